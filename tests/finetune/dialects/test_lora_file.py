"""Files from strangers are refused with a reason when they hold what must not be trusted."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from finetune.dialects.lora_file import read_lora
from finetune.errors import AtelierError
from finetune.tensors.header import read_metadata

STEM = "lora_unet_middle_block_1_proj_in"
GOOD = {
    f"{STEM}.lora_down.weight": torch.ones(2, 6),
    f"{STEM}.lora_up.weight": torch.ones(5, 2),
    f"{STEM}.alpha": torch.tensor(1.0),
}


def with_header(header: str, data: bytes = b"") -> bytes:
    return len(header.encode()).to_bytes(8, "little") + header.encode() + data


def changed(**tensors: torch.Tensor) -> bytes:
    return save({**GOOD, **{f"{STEM}.{name.replace('__', '.')}": tensor for name, tensor in tensors.items()}})


def twice() -> bytes:
    entry = '"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    return with_header("{" + entry + ", " + entry + "}", b"\0" * 4)


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "no safetensors file"),
    "text": (lambda: b"hello, this is not a tensor", "beyond reason"),
    "huge header": (lambda: (1 << 40).to_bytes(8, "little") + b"{}", "beyond reason"),
    "header cut off": (lambda: (100).to_bytes(8, "little") + b"{}", "cut off"),
    "header not json": (lambda: with_header("{nope}"), "not JSON"),
    "header a list": (lambda: with_header("[]"), "no JSON object"),
    "leading space": (lambda: with_header(" {}"), "no JSON object"),
    "deep header": (lambda: with_header('{"a":' * 90_000), "not JSON"),
    "a name twice": (twice, "a name stands twice"),
    "metadata not strings": (lambda: with_header('{"__metadata__": {"a": 3}}'), "not strings"),
    "data cut off": (lambda: save(GOOD)[:-3], "no whole safetensors file"),
    "no tensors": (lambda: save({}), "holds no tensors"),
    "nan": (lambda: changed(lora_up__weight=torch.full((5, 2), float("nan"))), "else than finite numbers"),
    "integers": (lambda: changed(alpha=torch.tensor(3)), "else than finite numbers"),
    "ranks apart": (lambda: changed(lora_up__weight=torch.ones(5, 3)), "do not fit together"),
    "one dimension": (lambda: changed(lora_down__weight=torch.ones(2)), "do not fit together"),
    "rank zero": (lambda: changed(lora_down__weight=torch.ones(0, 6), lora_up__weight=torch.ones(5, 0)), "do not fit"),
    "two alphas": (lambda: changed(alpha=torch.ones(2)), "holds 2 numbers, not one"),
    "half a module": (lambda: save({f"{STEM}.lora_up.weight": torch.ones(5, 2)}), "lora_down.weight is missing"),
    "a wrong magnitude": (lambda: changed(dora_scale=torch.ones(1, 6)), "6 numbers, not one for each of the 5 outputs"),
    "an unknown part": (lambda: changed(hada_w1=torch.ones(2)), "no part of a LoRA"),
    "an unknown module": (lambda: save({"lora_unet_../../x.alpha": torch.ones(())}), "no module of SDXL"),
    "an embedding": (lambda: save({**GOOD, "emb_params": torch.ones(2, 3)}), "no part of a LoRA"),
    "another model": (lambda: save({"transformer.x.lora_A.weight": torch.ones(2, 3)}), "belongs to none of"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_its_reason(name: str, tmp_path: Path) -> None:
    make, reason = BAD[name]
    path = tmp_path / "cat.safetensors"
    path.write_bytes(make())
    with pytest.raises(AtelierError, match=reason) as caught:
        read_lora(path)
    assert str(caught.value).startswith(str(path))


def test_only_safetensors_are_read(tmp_path: Path) -> None:
    with pytest.raises(AtelierError, match="no such file"):
        read_lora(tmp_path / "cat.safetensors")
    torch.save(GOOD, tmp_path / "cat.pt")
    with pytest.raises(AtelierError, match="others can hold code"):
        read_lora(tmp_path / "cat.pt")


def test_a_good_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cat.safetensors"
    save_file(GOOD, path, {"ss_output_name": "cat"})
    (module,) = read_lora(path)
    assert (module.component, module.module) == ("unet", "mid_block.attentions.0.proj_in")
    assert module.scale == 0.5
    assert torch.equal(module.delta(), torch.ones(5, 6, dtype=torch.float64))
    assert read_metadata(path) == {"ss_output_name": "cat"}


def test_without_alpha_the_scale_is_one(tmp_path: Path) -> None:
    path = tmp_path / "cat.safetensors"
    save_file({name: tensor for name, tensor in GOOD.items() if not name.endswith("alpha")}, path)
    assert read_lora(path)[0].scale == 1.0


@pytest.mark.parametrize("config", ["{", "[]", '{"unet.lora_alpha": "2"}', '{"unet.lora_alpha": NaN}',
                                    '{"unet.lora_alpha": 2, "unet.alpha_pattern": [1]}'])  # fmt: skip
def test_a_broken_config_is_refused(config: str, tmp_path: Path) -> None:
    path = tmp_path / "pytorch_lora_weights.safetensors"
    tensors = {"unet.x.lora_A.weight": torch.ones(2, 6), "unet.x.lora_B.weight": torch.ones(5, 2)}
    save_file(tensors, path, {"lora_adapter_metadata": config})
    with pytest.raises(AtelierError, match=r"lora_adapter_metadata|lora_alpha|alpha_pattern"):
        read_lora(path)


@pytest.mark.parametrize(("more", "scale"), [({}, 1.5), ({"text_encoder.use_rslora": True}, 6 / 4**0.5)])
def test_a_diffusers_file_of_others(more: dict[str, object], scale: float, tmp_path: Path) -> None:
    """Saved by the library itself: no `text_model.` in front, rsLoRA as a switch, alphas as patterns."""
    name = "encoder.layers.0.mlp.fc1"
    config = {"text_encoder.r": 2, "text_encoder.lora_alpha": 3, **more}
    path = tmp_path / "pytorch_lora_weights.safetensors"
    tensors = {
        f"text_encoder.{name}.lora_A.weight": torch.ones(4, 6),
        f"text_encoder.{name}.lora_B.weight": torch.ones(5, 4),
    }
    config["text_encoder.alpha_pattern"] = {f"^text_model.{name}": 6}
    save_file(tensors, path, {"lora_adapter_metadata": json.dumps(config)})
    (module,) = read_lora(path)
    assert module.module == f"text_model.{name}"
    assert module.scale == pytest.approx(scale)
