"""What is extracted from a fine-tuned model is what it learned, as well as a rank can hold it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from finetune.adapters.weights import LoraModule
from finetune.dialects.lora_file import read_lora
from finetune.errors import AtelierError, RecipeError
from finetune.loras.extract import chosen_modules, extract
from finetune.loras.fuse import fuse
from finetune.loras.svd import RankRule
from finetune.model.geometry import MINIATURE_FOLDER
from finetune.model.weight_files import open_weights
from finetune.naming.structure import ModelStructure
from finetune.readers.proof import prove, require_whole

MakeModule = Callable[..., LoraModule]
WriteLora = Callable[..., Path]

BASE = MINIATURE_FOLDER / "base"
QUERY = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
CONVOLUTION = "down_blocks.0.resnets.0.conv2"
TEXT = "text_model.encoder.layers.1.self_attn.v_proj"


def tuned_by(path: Path, part: str, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """Return the miniature with tensors of one part changed, all of that part in float32."""
    if not path.exists():
        shutil.copytree(BASE, path)
    (file,) = (path / part).glob("*.safetensors")
    tensors = {name: value.float() for name, value in safetensors.torch.load_file(file).items()}
    change(tensors)
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})
    return path


@pytest.mark.parametrize("kind", ["folder", "checkpoint"])
def test_a_known_change_comes_back(
    kind: str, checkpoint: Path, tmp_path: Path, structure: ModelStructure, make_module: MakeModule,
    write_lora: WriteLora,
) -> None:  # fmt: skip
    modules = [
        make_module("unet", QUERY, rank=3, alpha=30.0, seed=1),
        make_module("unet", CONVOLUTION, rank=3, alpha=30.0, seed=2),
        make_module("text_encoder_2", TEXT, rank=3, alpha=30.0, seed=3),
    ]
    lora = write_lora("cat", modules)
    if kind == "folder":
        base_path, tuned_path = tuned_by(tmp_path / "base", "unet", lambda tensors: None), tmp_path / "tuned"
        tuned_by(base_path, "text_encoder_2", lambda tensors: None)
    else:
        base_path, tuned_path = checkpoint, tmp_path / "tuned.safetensors"
    with open_weights(base_path, config=BASE) as base:
        fuse(base, [lora], [1.0], tuned_path)
    target = tmp_path / "found.safetensors"
    with open_weights(base_path, config=BASE) as base, open_weights(tuned_path, config=BASE) as tuned:
        report = extract(base, tuned, target, rule=RankRule(rank=3), precision="fp32")
    found = {module.module: module for module in read_lora(target, structure)}
    assert found.keys() == {QUERY, CONVOLUTION, TEXT}
    # Rounding to the checkpoint's fp16 is a change of full rank, which a rank of three holds little of.
    tolerance = 1e-5 if kind == "folder" else 2e-3
    for module in modules:
        expected = module.delta()
        assert (found[module.module].delta() - expected).norm() <= tolerance * expected.norm()
    require_whole(prove(target, structure))
    assert not report.others
    assert not report.mixed
    assert {name: count for name, count in report.unchanged.items() if count} == {
        "unet": len(chosen_modules_of(structure, "unet")) - 2,
        "text_encoder": len(chosen_modules_of(structure, "text_encoder")),
        "text_encoder_2": len(chosen_modules_of(structure, "text_encoder_2")) - 1,
    }


def chosen_modules_of(structure: ModelStructure, component: str) -> list[str]:
    outer = ("conv_in", "conv_out", "time_embedding.", "add_embedding.", "text_projection")
    return [path for own, path in structure.weights if own == component and not path.startswith(outer)]


@pytest.mark.parametrize("rule", [RankRule(rank=5), RankRule(energy=0.7), RankRule(rank=2, energy=0.99)])
def test_a_full_change_is_cut_as_well_as_can_be(rule: RankRule, tmp_path: Path, structure: ModelStructure) -> None:
    generator = torch.Generator().manual_seed(0)

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in (QUERY, CONVOLUTION):
            weight = tensors[f"{name}.weight"]
            weight += 0.01 * torch.randn(weight.shape, generator=generator)

    tuned_path = tuned_by(tmp_path / "tuned", "unet", change)
    target = tmp_path / "found.safetensors"
    with open_weights(BASE) as base, open_weights(tuned_path) as tuned:
        report = extract(base, tuned, target, rule=rule, components=["unet"], precision="fp32")
        differences = {name: (tuned.get("unet", name) - base.get("unet", name)) for name in (QUERY, CONVOLUTION)}
    assert report.mixed, "one is in fp16, the other in fp32"
    errors = {module.module: module.error for module in report.modules}
    for module in read_lora(target, structure):
        exact = differences[module.module].flatten(1).double().numpy()
        assert module.rank is not None
        best = np.linalg.norm(np.linalg.svd(exact, compute_uv=False)[module.rank :])
        error = np.linalg.norm(exact - module.delta().flatten(1).numpy())
        assert error <= 1.001 * best
        assert errors[module.module] == pytest.approx(error, rel=1e-6)


def test_what_a_lora_cannot_hold_is_told(tmp_path: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{QUERY}.weight"] += torch.randn(128, 1) @ torch.randn(1, 128)
        tensors["conv_norm_out.weight"] *= 1.25
        tensors["conv_in.weight"] *= 1.01

    tuned_path = tuned_by(tmp_path / "tuned", "unet", change)
    with open_weights(BASE) as base, open_weights(tuned_path) as tuned:
        report = extract(base, tuned, tmp_path / "some.safetensors", rule=RankRule(rank=1))
        others = {other.name: other.relative for other in report.others}
        assert others == {"conv_norm_out.weight": pytest.approx(0.25), "conv_in.weight": pytest.approx(0.01, rel=1e-3)}
        assert report.others[0].name == "conv_norm_out.weight", "the largest first"
        report = extract(base, tuned, tmp_path / "all.safetensors", rule=RankRule(rank=1), targets="all")
        assert [other.name for other in report.others] == ["conv_norm_out.weight"]
        assert {module.module for module in report.modules} == {QUERY, "conv_in"}


def test_models_that_have_nothing_to_tell_apart(tmp_path: Path) -> None:
    target = tmp_path / "none.safetensors"
    with open_weights("miniature") as base:
        with open_weights("miniature") as same, pytest.raises(AtelierError, match="no module would be changed"):
            extract(base, same, target, rule=RankRule(rank=4))
        with open_weights("miniature-refiner") as other, pytest.raises(AtelierError, match="structure"):
            extract(base, other, target, rule=RankRule(rank=4))
    assert not target.exists()


def test_modules_are_chosen_by_words_and_patterns() -> None:
    with open_weights("miniature") as base:
        attention = chosen_modules(base, ["unet", "text_encoder"], "attention")
        assert {path.rpartition("_")[2] for component, path in attention if component == "unet"} == {
            "q",
            "k",
            "v",
            "out.0",
        }
        assert any(component == "text_encoder" for component, _ in attention)
        assert chosen_modules(base, ["unet"], ["attn1.to_q", "conv_in"])[0] == ("unet", "conv_in")
        with pytest.raises(RecipeError, match=r"'to_qq'.*Nearest"):
            chosen_modules(base, ["unet"], ["attn1.to_q", "to_qq"])
        with pytest.raises(RecipeError, match="attention, attention"):
            chosen_modules(base, ["unet"], "most")
