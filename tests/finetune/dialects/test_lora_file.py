"""Files as other programs write them are read: what they say of themselves decides the scale."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from finetune.adapters.weights import LoraModule
from finetune.dialects.lora_file import LoraFile, read_lora
from finetune.errors import AtelierError
from finetune.tensors.header import read_metadata

STEM = "lora_unet_middle_block_1_proj_in"
SIZE = 1280
GOOD = {
    f"{STEM}.lora_down.weight": torch.ones(2, SIZE),
    f"{STEM}.lora_up.weight": torch.ones(SIZE, 2),
    f"{STEM}.alpha": torch.tensor(1.0),
}


def test_a_good_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cat.safetensors"
    save_file(GOOD, path, {"ss_output_name": "cat"})
    (module,) = read_lora(path)
    assert (module.component, module.module) == ("unet", "mid_block.attentions.0.proj_in")
    assert module.scale == 0.5
    assert torch.equal(module.delta(), torch.ones(SIZE, SIZE, dtype=torch.float64))
    assert read_metadata(path) == {"ss_output_name": "cat"}


def test_without_alpha_the_scale_is_one(tmp_path: Path) -> None:
    path = tmp_path / "cat.safetensors"
    save_file({name: tensor for name, tensor in GOOD.items() if not name.endswith("alpha")}, path)
    assert read_lora(path)[0].scale == 1.0


def test_an_alpha_may_be_a_whole_number(tmp_path: Path) -> None:
    path = tmp_path / "cat.safetensors"
    save_file({**GOOD, f"{STEM}.alpha": torch.tensor(3)}, path)
    assert read_lora(path)[0].scale == 1.5


def test_modules_come_in_the_order_of_the_model(tmp_path: Path) -> None:
    stems = ["lora_te2_text_projection", "lora_te1_encoder_layers_3_mlp_fc1", STEM, "lora_unet_out_2"]
    shapes = [(1280, 1280), (3072, 768), (SIZE, SIZE), (4, 320, 3, 3)]
    tensors = {}
    for stem, (rows, *columns) in zip(stems, shapes, strict=True):
        tensors[f"{stem}.lora_down.weight"] = torch.ones(1, *columns)
        tensors[f"{stem}.lora_up.weight"] = torch.ones(rows, 1, *[1] * (len(columns) - 1))
    path = tmp_path / "cat.safetensors"
    save_file(tensors, path)
    with LoraFile(path) as file:
        assert [name for _, name in file.names] == [
            "mid_block.attentions.0.proj_in",
            "conv_out",
            "text_model.encoder.layers.3.mlp.fc1",
            "text_projection",
        ]
        assert (file.dialect, file.precision) == ("kohya, original layout", "fp32")


@pytest.mark.parametrize(("more", "scale"), [({}, 1.5), ({"text_encoder.use_rslora": True}, 6 / 4**0.5)])
@pytest.mark.parametrize("pattern", ["^text_model.{}", "^{}$", "{}", ".*\\.mlp.fc1"])
def test_a_diffusers_file_of_others(more: dict[str, object], scale: float, pattern: str, tmp_path: Path) -> None:
    """Saved by the library itself: no `text_model.` in front, rsLoRA as a switch, alphas as patterns."""
    name = "encoder.layers.0.mlp.fc1"
    config: dict[str, object] = {"text_encoder.r": 2, "text_encoder.lora_alpha": 3, **more}
    path = tmp_path / "pytorch_lora_weights.safetensors"
    tensors = {
        f"text_encoder.{name}.lora_A.weight": torch.ones(4, 768),
        f"text_encoder.{name}.lora_B.weight": torch.ones(3072, 4),
    }
    config["text_encoder.alpha_pattern"] = {pattern.format(name.replace(".", "\\.")): 6}
    save_file(tensors, path, {"lora_adapter_metadata": json.dumps(config)})
    (module,) = read_lora(path)
    assert module.module == f"text_model.{name}"
    assert module.scale == pytest.approx(scale)


def test_a_pattern_at_the_front_means_the_whole_name(tmp_path: Path) -> None:
    """As in peft: `^mlp.fc1` stands nowhere else than at the beginning."""
    path = tmp_path / "pytorch_lora_weights.safetensors"
    name = "text_encoder.text_model.encoder.layers.0.mlp.fc1"
    tensors = {f"{name}.lora_A.weight": torch.ones(4, 768), f"{name}.lora_B.weight": torch.ones(3072, 4)}
    config = {"text_encoder.lora_alpha": 4, "text_encoder.alpha_pattern": {"^mlp.fc1": 8, "fc1": 2}}
    save_file(tensors, path, {"lora_adapter_metadata": json.dumps(config)})
    assert read_lora(path)[0].scale == 0.5


def peft_folder(folder: Path, config: dict[str, object], tensors: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"} | config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def linear(name: str, rows: int = SIZE, columns: int = SIZE, fill: float = 1.0) -> dict[str, torch.Tensor]:
    rank = 2
    return {
        f"base_model.model.{name}.lora_A.weight": torch.full((rank, columns), float(fill)),
        f"base_model.model.{name}.lora_B.weight": torch.full((rows, rank), float(fill)),
    }


def test_a_peft_folder_for_each_component(tmp_path: Path) -> None:
    layer = "encoder.layers.0.mlp.fc1"
    peft_folder(tmp_path / "unet", {"r": 2, "lora_alpha": 3}, linear("mid_block.attentions.0.proj_in"))
    peft_folder(tmp_path / "text_encoder", {"r": 2, "lora_alpha": 5}, linear(layer, rows=3072, columns=768))
    peft_folder(
        tmp_path / "text_encoder_2", {"r": 2, "lora_alpha": 7}, linear(f"text_model.{layer}", rows=5120, columns=1280)
    )
    modules = read_lora(tmp_path)
    assert [(module.component, module.scale) for module in modules] == [
        ("unet", 1.5),
        ("text_encoder", 2.5),
        ("text_encoder_2", 3.5),
    ]
    assert {module.module for module in modules[1:]} == {f"text_model.{layer}"}


def test_which_encoder_is_told_by_the_shapes_where_nothing_else_tells(tmp_path: Path) -> None:
    layer = "text_model.encoder.layers.0.mlp.fc1"
    folder = peft_folder(tmp_path / "x", {"r": 2, "lora_alpha": 2}, linear(layer, rows=5120, columns=1280))
    assert read_lora(folder)[0].component == "text_encoder_2"
    assert read_lora(folder / "adapter_model.safetensors")[0].component == "text_encoder_2"


def test_names_of_two_versions_beside_each_other_hold_the_same(tmp_path: Path) -> None:
    """As our own peft folders have them: without `text_model.`, and with it."""
    layer = "encoder.layers.0.mlp.fc1"
    both = linear(layer, rows=3072, columns=768) | linear(f"text_model.{layer}", rows=3072, columns=768)
    folder = peft_folder(tmp_path / "text_encoder", {"r": 2, "lora_alpha": 2}, both)
    (module,) = read_lora(folder)
    assert module.module == f"text_model.{layer}"
    both[f"base_model.model.text_model.{layer}.lora_B.weight"][0, 0] = 7
    save_file(both, folder / "adapter_model.safetensors")
    with pytest.raises(AtelierError, match="do not hold the same"):
        read_lora(folder)


@pytest.mark.parametrize("word", ["pissa", "pissa_niter_4", "olora", "corda", "lora_ga"])
def test_an_adapter_that_began_as_a_part_of_the_base(word: str, tmp_path: Path) -> None:
    """Alone it is wrong on the untouched base; with what it began as it is a plain LoRA of twice the rank."""
    name = "mid_block.attentions.0.proj_in"
    trained = peft_folder(tmp_path / "trained", {"lora_alpha": 3, "init_lora_weights": word}, linear(name, fill=2))
    began = peft_folder(tmp_path / "began", {"lora_alpha": 3, "init_lora_weights": True}, linear(name, fill=0.5))
    with LoraFile(trained) as file, pytest.raises(AtelierError, match=f"{word} took a part out of the base.*--initial"):
        file.load(file.names[0])
    with LoraFile(trained, initial=began) as file:
        module = file.load(file.names[0])
    assert isinstance(module, LoraModule)
    assert (module.rank, module.scale) == (4, 1.5)
    assert torch.allclose(module.delta(), torch.full((SIZE, SIZE), 1.5 * 2 * (4 - 0.25), dtype=torch.float64))


def test_loftq_is_refused_whatever_is_given(tmp_path: Path) -> None:
    folder = peft_folder(tmp_path / "x", {"init_lora_weights": "loftq"}, linear("mid_block.attentions.0.proj_in"))
    with pytest.raises(AtelierError, match=r"LoftQ.*quantised base"):
        read_lora(folder)


def test_what_no_form_holds_is_left_out_only_where_asked(tmp_path: Path) -> None:
    path = tmp_path / "cat.safetensors"
    extras = {"lora_unet_out_0.w_norm": torch.ones(320), "bundle_emb.cat.string_to_param.*": torch.ones(2, 8)}
    save_file({**GOOD, **extras}, path)
    with pytest.raises(AtelierError, match=r"a text embedding \(1\).*a normalisation \(1\).*--leave-out"):
        read_lora(path)
    with LoraFile(path, leave_out=True) as file:
        assert len(file.names) == 1
        assert {name for name, _ in file.left_out} == set(extras)
