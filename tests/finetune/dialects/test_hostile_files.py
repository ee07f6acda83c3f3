"""Files from strangers are refused with one line that says why, and nothing in them is executed."""

import json
import math
import os
import pickle
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from finetune.cli.main import main
from finetune.dialects.forms import Given, build_form, check_shapes
from finetune.dialects.lora_file import LoraFile
from finetune.dialects.parts import ALLOWED
from finetune.dialects.peft_config import make_config
from finetune.errors import AtelierError
from finetune.naming.structure import SDXL_BASE

STEM = "lora_unet_middle_block_1_proj_in"
CONVOLUTION = "lora_unet_input_blocks_1_0_in_layers_2"  # (320, 320, 3, 3)
PEFT = "base_model.model.mid_block.attentions.0.proj_in"
SIZE = 1280
GOOD = {
    f"{STEM}.lora_down.weight": torch.ones(2, SIZE),
    f"{STEM}.lora_up.weight": torch.ones(SIZE, 2),
    f"{STEM}.alpha": torch.tensor(1.0),
}
LOHA = {f"{STEM}.hada_w{half}_{side}": torch.ones(*shape) for half in "12"
        for side, shape in (("a", (SIZE, 2)), ("b", (2, SIZE)))}  # fmt: skip
LOKR = {f"{STEM}.lokr_w1": torch.ones(8, 8), f"{STEM}.lokr_w2": torch.ones(160, 160)}

Maker = Callable[[], bytes]


def with_header(header: str | bytes, data: bytes = b"") -> bytes:
    content = header if isinstance(header, bytes) else header.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(content)) + content + data


def entry(name: str, shape: Any = (1,), offsets: Any = (0, 4), dtype: str = "F32") -> str:
    value = {"dtype": dtype, "shape": list(shape) if isinstance(shape, tuple) else shape, "data_offsets": offsets}
    return f"{json.dumps(name)}: {json.dumps(value)}"


def one(name: str, data: bytes = b"\0" * 4, **more: Any) -> bytes:
    return with_header("{" + entry(name, **more) + "}", data)


def changed(stem: str = STEM, **tensors: torch.Tensor) -> bytes:
    return save({**GOOD, **{f"{stem}.{name.replace('__', '.')}": tensor for name, tensor in tensors.items()}})


def spoiled(tensors: dict[str, torch.Tensor], **parts: torch.Tensor | None) -> bytes:
    """Return a file of `tensors` in which some parts of the one module are others, or missing."""
    result: dict[str, torch.Tensor] = dict(tensors)
    for name, tensor in parts.items():
        if tensor is None:
            del result[f"{STEM}.{name}"]
        else:
            result[f"{STEM}.{name}"] = tensor
    return save(result)


def convolution(**parts: torch.Tensor) -> bytes:
    return save({f"{CONVOLUTION}.{name.replace('__', '.')}": tensor for name, tensor in parts.items()})


def named(name: str) -> bytes:
    return save({**GOOD, name: torch.ones(2, 3)})


class _Bomb:
    """Unpickled, it makes the file that the tests look for."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self.path,))


FILES: dict[str, tuple[Maker, str]] = {
    # The container.
    "empty": (lambda: b"", "no safetensors file"),
    "seven bytes": (lambda: b"\x02\0\0\0\0\0\0", "no safetensors file"),
    "text": (lambda: b"hello, this is not a tensor", "beyond reason"),
    "html": (lambda: b"<!DOCTYPE html><html>404", "a web page"),
    "a pointer of Git LFS": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
    "a zip by another name": (lambda: b"PK\x03\x04" + b"\0" * 40, "a zip archive"),
    "a pickle of protocol 2": (lambda: pickle.dumps(_Bomb("owned"), protocol=2), "a pickle, which can run code"),
    "huge header": (lambda: (1 << 40).to_bytes(8, "little") + b"{}", "beyond reason"),
    "negative header": (lambda: b"\xff" * 8 + b"{}", "beyond reason"),
    "header cut off": (lambda: (100).to_bytes(8, "little") + b"{}", "cut off"),
    "header not json": (lambda: with_header("{nope}"), "not JSON"),
    "header not text": (lambda: with_header(b'{"\xff\xfe": 1}'), "not JSON"),
    "header a list": (lambda: with_header("[]"), "no JSON object"),
    "leading space": (lambda: with_header(" {}"), "no JSON object"),
    "deep header": (lambda: with_header('{"a":' * 90_000), "not JSON"),
    "deep list": (lambda: with_header('{"a":' + "[" * 200_000), "not JSON"),
    "an endless number": (lambda: with_header('{"a": ' + "9" * 20_000 + "}"), "not JSON"),
    "a name twice": (lambda: with_header("{" + f"{entry('a')}, {entry('a')}" + "}", b"\0" * 4), "stands twice"),
    "metadata twice": (lambda: with_header('{"__metadata__": {}, "__metadata__": {}}'), "stands twice"),
    "metadata not strings": (lambda: with_header('{"__metadata__": {"a": 3}}'), "not strings"),
    "metadata nested": (lambda: with_header('{"__metadata__": {"a": {"b": "c"}}}'), "not strings"),
    "metadata a list": (lambda: with_header('{"__metadata__": ["a"]}'), "not strings"),
    "data cut off": (lambda: save(GOOD)[:-3], "no whole safetensors file"),
    "data behind": (lambda: save(GOOD) + b"PK\x03\x04", "goes on behind"),
    "overlapping": (lambda: with_header("{" + f"{entry('a')}, {entry('b')}" + "}", b"\0" * 4), "overlap"),
    "a gap": (lambda: one("a", b"\0" * 8, offsets=[4, 8]), "leave gaps"),
    "offsets turned round": (lambda: one("a", offsets=[4, 0]), "do not agree"),
    "a negative shape": (lambda: one("a", shape=[-1]), "shape is none"),
    "a shape of fractions": (lambda: one("a", shape=[1.0]), "shape is none"),
    "a shape of truths": (lambda: one("a", shape=[True]), "shape is none"),
    "a shape of everything": (lambda: one("a", shape=[2**62, 2**62]), "shape is none"),
    "a product that overflows": (lambda: one("a", shape=[2**40, 2**40, 2**40]), "do not agree"),
    "ninety dimensions": (lambda: one("a", shape=[1] * 90), "shape is none"),
    "an unknown kind of numbers": (lambda: one("a", dtype="F13"), "not read here"),
    "a hundred thousand tensors": (
        lambda: with_header("{" + ", ".join(entry(f"a{i}", (0,), [0, 0]) for i in range(100_000)) + "}"),
        "100000 tensors",
    ),
    "a pickle by another name": (lambda: pickle.dumps(_Bomb("owned")), "a pickle, which can run code"),
    # Names.
    "an empty name": (lambda: one(""), "no tensor's name"),
    "a name of newlines": (lambda: one("a\nerror: all is well"), "no tensor's name"),
    "a name that erases the line": (lambda: one("a\x1b[2Kb"), "no tensor's name"),
    "a name that turns the text": (lambda: one("a\u202eb"), "no tensor's name"),
    "a name of NUL": (lambda: one("a\0b"), "no tensor's name"),
    "half a letter": (lambda: with_header('{"a\\ud800": {}}'), "no tensor's name"),
    "a name without end": (lambda: one("a" * 100_000), "no tensor's name"),
    "a path": (lambda: named("../../../etc/passwd.lora_up.weight"), "not known: '../../../etc/passwd"),
    "a path in a stem": (lambda: named("lora_unet_../../x.alpha"), "not known"),
    "another module": (lambda: named("lora_unet_input_blocks_44_1_proj_in.alpha"), "no module of this model"),
    "a block too many": (lambda: named("lora_unet_input_blocks_4_1_transformer_blocks_2_attn1_to_q.alpha"), "nearest"),
    "a misspelt part": (lambda: named(f"{STEM}.lora_sideways.weight"), "no part of a module"),
    "code for a name": (lambda: named("__import__('os').system('x').alpha"), "not known"),
    "another model": (lambda: save({"transformer.x.lora_A.weight": torch.ones(2, 3)}), "not known"),
    "one of SD 1": (lambda: named("lora_te_text_model_encoder_layers_0_mlp_fc1.alpha"), "SD 1 or 2"),
    "OFT": (lambda: named(f"{STEM}.oft_blocks"), "kind OFT"),
    "an embedding beside": (lambda: named("emb_params"), "--leave-out"),
    "an embedding alone": (lambda: save({"string_to_param.*": torch.ones(2, 768)}), "a text embedding"),
    "no tensors": (lambda: save({}), "no tensors of a LoRA"),
    "one part twice": (
        lambda: named("unet.mid_block.attentions.0.proj_in.lora_A.weight"),
        "the same part of one module",
    ),
    # Numbers.
    "nan": (lambda: changed(lora_up__weight=torch.full((SIZE, 2), float("nan"))), "else than finite numbers"),
    "infinity": (lambda: changed(lora_up__weight=torch.full((SIZE, 2), float("inf"))), "else than finite numbers"),
    "nan in the alpha": (lambda: changed(alpha=torch.tensor(float("nan"))), "else than finite numbers"),
    "a magnitude of nan": (lambda: changed(dora_scale=torch.full((SIZE, 1), float("nan"))), "else than finite"),
    "whole numbers": (
        lambda: changed(lora_up__weight=torch.ones(SIZE, 2, dtype=torch.int32)),
        "else than finite numbers",
    ),
    "an alpha of truth": (lambda: changed(alpha=torch.tensor(True)), "else than finite numbers"),
    "truths": (lambda: changed(lora_up__weight=torch.ones(SIZE, 2, dtype=torch.bool)), "else than finite numbers"),
    "alpha zero": (lambda: changed(alpha=torch.tensor(0.0)), "its alpha is 0"),
    "two alphas": (lambda: changed(alpha=torch.ones(2)), "holds 2 numbers, not one"),
    # Shapes.
    "ranks apart": (lambda: changed(lora_up__weight=torch.ones(SIZE, 3)), "do not fit together"),
    "one dimension": (lambda: changed(lora_down__weight=torch.ones(2)), "do not fit together"),
    "no dimension": (lambda: changed(lora_down__weight=torch.tensor(2.0)), "do not fit together"),
    "rank zero": (
        lambda: changed(lora_down__weight=torch.ones(0, SIZE), lora_up__weight=torch.ones(SIZE, 0)),
        "do not fit together",
    ),
    "of a wider model": (
        lambda: changed(lora_down__weight=torch.ones(2, 2048), lora_up__weight=torch.ones(2048, 2)),
        r"the weight: \(2, 2048\) and \(2048, 2\) for \(1280, 1280\)",
    ),
    "half a module": (lambda: save({f"{STEM}.lora_up.weight": torch.ones(SIZE, 2)}), "lora_down.weight is missing"),
    "the other half": (lambda: save({f"{STEM}.lora_down.weight": torch.ones(2, SIZE)}), "lora_up.weight .* missing"),
    "alpha alone": (lambda: save({f"{STEM}.alpha": torch.tensor(1.0)}), "missing"),
    "a magnitude of neither side": (lambda: changed(dora_scale=torch.ones(7, 1)), "neither one number for each of"),
    "a magnitude of a square": (lambda: changed(dora_scale=torch.ones(SIZE, SIZE)), "neither one number for each of"),
    "a core for a Linear": (lambda: changed(lora_mid__weight=torch.ones(2, 2, 3, 3)), "mid is"),
    "a core of a wrong shape": (
        lambda: convolution(
            lora_down__weight=torch.ones(2, 320, 1, 1),
            lora_up__weight=torch.ones(320, 2, 1, 1),
            lora_mid__weight=torch.ones(2, 3, 3, 3),
        ),
        "mid is",
    ),
    "of two kinds": (lambda: save({**GOOD, **LOHA}), "several kinds at once"),
    "LoHa without a factor": (lambda: spoiled(LOHA, hada_w2_b=None), "hada_w2_b is missing"),
    "LoHa that does not fit": (lambda: spoiled(LOHA, hada_w1_a=torch.ones(SIZE, 3)), "hada_w1_a is"),
    "LoHa with one core": (lambda: spoiled(LOHA, hada_t1=torch.ones(2, 2, 3, 3)), "hada_t1 and hada_t2"),
    "LoHa of rank zero": (lambda: spoiled(LOHA, hada_w1_b=torch.ones(0, SIZE)), "hada_w1_b is"),
    "LoKr that does not divide": (lambda: spoiled(LOKR, lokr_w1=torch.ones(7, 8)), "lokr_w1 is"),
    "LoKr of nothing": (lambda: spoiled(LOKR, lokr_w1=torch.ones(0, 8)), "lokr_w1 is"),
    "LoKr too large": (lambda: spoiled(LOKR, lokr_w2=torch.ones(160, 161)), "lokr_w2 is"),
    "LoKr whole and factored": (lambda: spoiled(LOKR, lokr_w2_a=torch.ones(160, 2)), "and not both"),
    "a whole change with DoRA": (
        lambda: save({f"{STEM}.diff": torch.ones(SIZE, SIZE), f"{STEM}.dora_scale": torch.ones(SIZE, 1)}),
        "has no dora_scale",
    ),
    "a whole change of another weight": (lambda: save({f"{STEM}.diff": torch.ones(2, 2)}), "diff is"),
}  # fmt: skip


def read_all(path: Path) -> None:
    with LoraFile(path) as file:
        for name in file.names:
            file.load(name)


def refused(path: Path, reason: str) -> str:
    """Return the message with which a file is refused, after seeing that it is one line about it, given soon."""
    begun = time.perf_counter()
    with pytest.raises(AtelierError, match=reason) as caught:
        read_all(path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1_200, "a message is to be read"
    assert message.isprintable()
    assert time.perf_counter() - begun < 20, "a refusal does not take long"
    return message


@pytest.mark.parametrize("name", FILES)
def test_a_bad_file_is_refused_with_its_reason(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make, reason = FILES[name]
    path = tmp_path / "cat.safetensors"
    path.write_bytes(make())
    assert refused(path, reason).startswith(str(path))
    assert list(tmp_path.iterdir()) == [path], "something was made"


@pytest.mark.parametrize(
    "name", ["empty", "deep header", "a name that erases the line", "nan", "a path", "of two kinds"]
)
@pytest.mark.parametrize("verb", [["inspect"], ["convert", "--to", "kohya"]])
def test_the_verbs_say_so_on_one_line(
    verb: list[str], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cat.safetensors"
    path.write_bytes(FILES[name][0]())
    code = main(["lora", *verb[:1], str(path), *verb[1:]])
    shown = capsys.readouterr()
    if name == "nan" and verb == ["inspect"]:
        assert code == 0, "to look at it is no harm"
        assert "1 tensor holds numbers that are not finite" in shown.out
        return
    assert code == 1
    assert shown.err.count("\n") == 1
    assert shown.err.startswith("atelier: ")
    assert list(tmp_path.iterdir()) == [path]


def test_there_are_enough_of_them() -> None:
    assert len(FILES) + len(CONFIGS) >= 90


def test_names_that_are_not_known_are_counted_and_the_nearest_is_told(tmp_path: Path) -> None:
    path = tmp_path / "cat.safetensors"
    stem = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_{}"
    path.write_bytes(save({f"{stem.format(word)}.alpha": torch.ones(()) for word in ("kk", "qq", "vv", "x", "y")}))
    message = refused(path, "5 names are not known")
    assert "and 2 more" in message
    assert f"the nearest is {stem.format('k')!r}" in message


@pytest.mark.parametrize("name", ["cat.pt", "cat.bin", "cat.ckpt", "cat.pth", "cat", "cat.safetensors"])
def test_a_pickle_is_never_opened(name: str, tmp_path: Path) -> None:
    owned = tmp_path / "owned"
    path = tmp_path / name
    path.write_bytes(pickle.dumps(_Bomb(str(owned))))
    refused(path, "only .safetensors|no safetensors file")
    zipped = tmp_path / f"zipped-{name}"
    with zipfile.ZipFile(zipped, "w") as archive:  # as torch.save writes it
        archive.writestr("archive/data.pkl", pickle.dumps(_Bomb(str(owned))))
    refused(zipped, "only .safetensors|no safetensors file")
    assert not owned.exists()
    pickle.loads(path.read_bytes())
    assert owned.exists(), "the pickle does nothing, so the test proves nothing"


def test_a_folder_with_a_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (tmp_path / "adapter_model.bin").write_bytes(pickle.dumps(_Bomb(str(tmp_path / "owned"))))
    refused(tmp_path, "only .safetensors files are read; others can hold code")
    assert not (tmp_path / "owned").exists()


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "cat.safetensors", "no such file")
    (tmp_path / "folder.safetensors").mkdir()
    refused(tmp_path / "folder.safetensors", "is a folder without")
    os.mkfifo(tmp_path / "pipe.safetensors")
    refused(tmp_path / "pipe.safetensors", "no plain file")
    refused(Path("/dev/zero"), "no plain file")
    (tmp_path / "loop.safetensors").symlink_to(tmp_path / "pool.safetensors")
    (tmp_path / "pool.safetensors").symlink_to(tmp_path / "loop.safetensors")
    refused(tmp_path / "loop.safetensors", "no such file")


CONFIGS: dict[str, tuple[str | bytes, str]] = {
    "no json": ("{", "not JSON"),
    "a list": ("[]", "no JSON object"),
    "not text": (b"\xff\xfe\x00", "cannot be read as text"),
    "huge": (" " * 5_000_000, "beyond reason"),
    "deep": ('{"a":' * 90_000, "not JSON"),
    "another method": ('{"peft_type": "PROMPT_TUNING"}', "PROMPT_TUNING"),
    "a method that is a list": ('{"peft_type": ["LORA"]}', "are not read here"),
    "alpha a word": ('{"lora_alpha": "2"}', "not a number"),
    "alpha a truth": ('{"lora_alpha": true}', "not a number"),
    "alpha nan": ('{"lora_alpha": NaN}', "not JSON"),
    "alpha endless": ('{"lora_alpha": 1e999}', "no sensible number"),
    "alpha with 400 digits": ('{"lora_alpha": ' + "9" * 400 + "}", "beyond reason"),
    "alpha with 9000 digits": ('{"lora_alpha": ' + "9" * 9000 + "}", "not JSON"),
    "rank zero": ('{"lora_alpha": 2, "r": 0}', "no sensible number"),
    "patterns a list": ('{"alpha_pattern": [1]}', "no JSON object"),
    "a pattern to a list": ('{"alpha_pattern": {"a": []}}', "not a number"),
    "a pattern that takes forever": ('{"alpha_pattern": {"(a+)+$": 2}}', "is a regular expression"),
    "a pattern of everything": ('{"rank_pattern": {".*": 2}}', "is a regular expression"),
    "DoRA without magnitudes": ('{"lora_alpha": 2, "use_dora": true}', "its magnitude is missing"),
    "layers repeated": ('{"layer_replication": [[0, 4]]}', "layer_replication is set"),
    "LoftQ": ('{"init_lora_weights": "loftq"}', "LoftQ"),
    "a beginning nobody knows": ('{"init_lora_weights": ["pissa"]}', "is not known here"),
    "PiSSA": ('{"init_lora_weights": "pissa"}', "--initial"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_a_bad_configuration_is_refused(name: str, tmp_path: Path) -> None:
    content, reason = CONFIGS[name]
    (tmp_path / "adapter_config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    tensors = {f"{PEFT}.lora_A.weight": torch.ones(2, SIZE), f"{PEFT}.lora_B.weight": torch.ones(SIZE, 2)}
    (tmp_path / "adapter_model.safetensors").write_bytes(save(tensors))
    refused(tmp_path, reason)


@pytest.mark.parametrize("name", [name for name in CONFIGS if isinstance(CONFIGS[name][0], str)])
def test_a_bad_configuration_in_the_header_is_refused(name: str, tmp_path: Path) -> None:
    content, reason = CONFIGS[name]
    try:
        settings = json.loads(content)
        text = json.dumps({f"unet.{key}": value for key, value in settings.items()}).replace("Infinity", "1e999")
    except (ValueError, RecursionError, AttributeError):
        text = str(content)
    stem = "unet.mid_block.attentions.0.proj_in"
    tensors = {f"{stem}.lora_A.weight": torch.ones(2, SIZE), f"{stem}.lora_B.weight": torch.ones(SIZE, 2)}
    path = tmp_path / "pytorch_lora_weights.safetensors"
    path.write_bytes(save(tensors, {"lora_adapter_metadata": text}))
    refused(path, reason)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["pissa", "LORA"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
SETTINGS = st.sampled_from(["peft_type", "r", "lora_alpha", "alpha", "rank_pattern", "alpha_pattern", "use_rslora",
                            "use_dora", "init_lora_weights", "layer_replication"])  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(SETTINGS, VALUES, max_size=6))
def test_any_configuration_is_read_or_refused(values: dict[str, Any]) -> None:
    try:
        config = make_config(values, "here")
    except AtelierError:
        return
    assert math.isfinite(config.scale_of("mid_block.attentions.0.proj_in", 4))


PART_NAMES = sorted({part for parts in ALLOWED.values() for part in parts})
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 4, 8, 24, 72, 144]), max_size=4).map(tuple)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(PART_NAMES), SHAPES, min_size=1, max_size=7),
       st.sampled_from([(8, 24), (8, 24, 3, 3), (8, 24, 1, 1)]))  # fmt: skip
def test_any_shapes_are_put_together_or_refused(parts: dict[str, tuple[int, ...]], shape: tuple[int, ...]) -> None:
    """What passes the check has a change in the shape of the weight: nothing fails later."""
    given_parts = Given("here", ("unet", "x"), shape, parts, None)
    try:
        check_shapes(given_parts)
    except AtelierError:
        return
    form = build_form(given_parts, {part: torch.ones(size) for part, size in parts.items()})
    assert form.delta().shape == shape


def test_what_a_file_claims_is_not_made(tmp_path: Path) -> None:
    """Opening one forms no product: a Kronecker product of a weight of 8 GB is refused by its shapes."""
    path = tmp_path / "cat.safetensors"
    side = SIZE * 32
    path.write_bytes(save({f"{STEM}.lokr_w1": torch.ones(side, 1), f"{STEM}.lokr_w2": torch.ones(1, side)}))
    refused(path, "lokr_w1 is")


def test_every_spelling_means_one_module_or_asks_which(tmp_path: Path) -> None:
    """An encoder's bare path is a module of both encoders; where shapes tell nothing, the file is refused."""
    layer = "text_model.encoder.layers.0.mlp.fc1"
    path = tmp_path / "cat.safetensors"
    path.write_bytes(save({f"{layer}.alpha": torch.tensor(1.0)}))
    refused(path, "does not say which text encoder")
    assert SDXL_BASE.weights["text_encoder", layer] != SDXL_BASE.weights["text_encoder_2", layer]
