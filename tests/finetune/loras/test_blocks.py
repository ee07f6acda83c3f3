"""Blocks get the strengths that are asked for, by scales alone."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from finetune.adapters.weights import LohaModule, LoraModule
from finetune.dialects.lora_file import read_lora
from finetune.errors import AtelierError, RecipeError
from finetune.loras.blocks import BlockRule, block_word, means, parse_rule, parse_vector, scale_blocks
from finetune.loras.writing import write_made
from finetune.naming.structure import SDXL_BASE, ModelStructure

MakeModule = Callable[..., LoraModule]
WriteLora = Callable[..., Path]

DOWN = "down_blocks.1.attentions.0.proj_in"
MIDDLE = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
LAYER = "text_model.encoder.layers.1.mlp.fc1"
NAMES = [("unet", DOWN), ("unet", MIDDLE), ("text_encoder", LAYER), ("text_encoder_2", LAYER)]


@pytest.fixture
def lora(make_module: MakeModule, write_lora: WriteLora) -> Path:
    return write_lora("cat", [make_module(*name, alpha=3.0, seed=seed) for seed, name in enumerate(NAMES)], "fp16")


def test_scales_change_and_nothing_else(lora: Path, tmp_path: Path, structure: ModelStructure) -> None:
    rules = [parse_rule(text) for text in ("unet=0.7", "mid_block=0", "text_encoder=-1.5")]
    target = tmp_path / "scaled.safetensors"
    report = scale_blocks(lora, target, rules, structure=structure)
    before = {(module.component, module.module): module for module in read_lora(lora, structure)}
    after = {(module.component, module.module): module for module in read_lora(target, structure)}
    assert after.keys() == before.keys() - {("unet", MIDDLE)}
    strengths = {("unet", DOWN): 0.7, ("text_encoder", LAYER): -1.5, ("text_encoder_2", LAYER): 1.0}
    for name, strength in strengths.items():
        old, new = before[name], after[name]  # type: ignore[index]
        assert isinstance(old, LoraModule)
        assert isinstance(new, LoraModule)
        assert torch.equal(new.up, old.up)
        assert torch.equal(new.down, old.down)
        assert new.scale == pytest.approx(strength * old.scale, rel=1e-7)
    assert [(rule.pattern, names) for rule, names in report.touched] == [
        ("unet", (("unet", DOWN),)),
        ("mid_block", (("unet", MIDDLE),)),
        ("text_encoder", (("text_encoder", LAYER),)),
    ]
    assert (report.kept, report.left_out) == (1, 1)


@pytest.mark.parametrize(
    ("pattern", "module", "meant"),
    [
        ("down_blocks.1", ("unet", DOWN), True),
        ("down_blocks", ("unet", DOWN), True),
        ("down_blocks.1", ("unet", DOWN.replace(".1.", ".10.")), False),
        ("unet.*.1", ("unet", DOWN), True),
        ("*_blocks.1.attentions", ("unet", DOWN), True),
        ("attn2", ("unet", MIDDLE), True),
        ("attn?.to_[kv]", ("unet", MIDDLE), True),
        ("attn", ("unet", MIDDLE), False),
        ("text_encoder", ("text_encoder", LAYER), True),
        ("text_encoder", ("text_encoder_2", LAYER), False),
        ("text_encoder*", ("text_encoder_2", LAYER), True),
        ("layers.1.mlp", ("text_encoder", LAYER), True),
        ("mlp.fc1.more", ("text_encoder", LAYER), False),
    ],
)
def test_patterns(pattern: str, module: tuple[str, str], meant: bool) -> None:
    assert means(pattern, module) == meant  # type: ignore[arg-type]


def test_a_rule_that_means_nothing_names_the_nearest(lora: Path, tmp_path: Path, structure: ModelStructure) -> None:
    with pytest.raises(RecipeError, match=r"Nearest: down_blocks\.1"):
        scale_blocks(lora, tmp_path / "new.safetensors", [BlockRule("down_block.1", 0.5)], structure=structure)
    with pytest.raises(AtelierError, match="no module would be changed"):
        scale_blocks(lora, tmp_path / "new.safetensors", [BlockRule("*", 0.0)], structure=structure)
    assert [path.name for path in tmp_path.iterdir()] == ["cat.safetensors"]


@pytest.mark.parametrize("text", ["mid_block", "=0.5", "mid_block=", "mid_block=half", "mid_block=nan"])
def test_rules_that_are_none(text: str) -> None:
    with pytest.raises(RecipeError, match="BLOCK=STRENGTH"):
        parse_rule(text)


def test_the_blocks_of_a_vector_are_the_original_layouts() -> None:
    """Of the real model: how many Linear layers and convolutions each block has, counted from the paper's structure."""
    counts = Counter(block_word(name, SDXL_BASE) for name in SDXL_BASE.weights)
    # conv1, time_emb_proj and conv2 of a resnet; proj_in, proj_out and ten Linear layers a transformer block.
    resnet, two, ten = 3, 2 + 2 * 10, 2 + 10 * 10
    assert counts["IN00"] == 1
    assert counts["IN01"] == counts["IN02"] == resnet
    assert counts["IN03"] == counts["IN06"] == 1
    assert counts["IN04"] == resnet + 1 + two
    assert counts["IN05"] == resnet + two
    assert counts["IN07"] == resnet + 1 + ten
    assert counts["IN08"] == resnet + ten
    assert counts["M00"] == 2 * resnet + ten
    assert counts["OUT00"] == counts["OUT01"] == resnet + 1 + ten
    assert counts["OUT02"] == resnet + 1 + ten + 1
    assert counts["OUT03"] == counts["OUT04"] == resnet + 1 + two
    assert counts["OUT05"] == resnet + 1 + two + 1
    assert counts["OUT06"] == counts["OUT07"] == counts["OUT08"] == resnet + 1
    assert counts["BASE"] == 72 + 192 + 1
    assert counts[None] == 5, "the embeddings of time and sizes, and the last convolution"


def test_a_vector(tmp_path: Path) -> None:
    first, second = "down_blocks.1.attentions.1.proj_in", "down_blocks.0.resnets.0.conv1"
    names = [("unet", first), ("unet", second), ("unet", "conv_out"), ("text_encoder", LAYER)]
    modules = [rank_one(*name) for name in names]
    source = tmp_path / "sdxl.safetensors"
    write_made(modules, source, precision="fp16", structure=SDXL_BASE, metadata={}, made_by={})
    for text, expected in (
        ("0.5,1,0.25,1,1,1,1,1,1,1,1,1", {first: 0.25, "conv_out": 1.0, LAYER: 0.5}),
        ("0.5,1,0.75" + ",1" * 17, {first: 1.0, second: 0.75, "conv_out": 1.0, LAYER: 0.5}),
    ):
        target = tmp_path / f"scaled-{len(text)}.safetensors"
        scale_blocks(source, target, parse_vector(text), structure=SDXL_BASE)
        before = {module.module: module.delta().norm() for module in modules}
        strengths = {module.module: (module.delta().norm() / before[module.module]).item()
                     for module in read_lora(target)}  # fmt: skip
        assert strengths == pytest.approx(expected, rel=1e-3)


def rank_one(component: str, path: str) -> LoraModule:
    shape = SDXL_BASE.weights[component, path]  # type: ignore[index]
    down, up = torch.ones(1, *shape[1:]), torch.ones(shape[0], 1, *[1] * (len(shape) - 2))
    return LoraModule(component, path, down, up, 1.0)  # type: ignore[arg-type]


def test_vectors_that_are_none(lora: Path, tmp_path: Path, structure: ModelStructure) -> None:
    with pytest.raises(RecipeError, match=r"got 17 numbers.*12 numbers: BASE, IN04"):
        parse_vector(",".join("1" * 17))
    with pytest.raises(RecipeError, match="no letters"):
        parse_vector("R" + ",1" * 11)
    with pytest.raises(RecipeError, match="SDXL's base"):
        scale_blocks(lora, tmp_path / "new.safetensors", parse_vector("1" + ",1" * 11), structure=structure)


def test_other_kinds(tmp_path: Path, structure: ModelStructure, make_module: MakeModule, write_lora: WriteLora) -> None:
    width = structure.weights["unet", DOWN][0]
    generator = torch.Generator().manual_seed(0)
    tall, wide = torch.randn(width, 2, generator=generator), torch.randn(2, width, generator=generator)
    loha = LohaModule("unet", DOWN, (width, width), tall, wide, tall * 2, wide * 3, 0.5)
    source, target = write_lora("loha", [loha]), tmp_path / "scaled.safetensors"  # type: ignore[list-item]
    scale_blocks(source, target, [BlockRule("down_blocks", 0.5)], structure=structure)
    (after,) = read_lora(target, structure)
    assert after.kind == "LoHa"
    assert torch.allclose(after.delta(), 0.5 * loha.delta(), rtol=1e-6, atol=0)
    dora = write_lora("dora", [make_module("unet", DOWN, use_dora=True), make_module("unet", MIDDLE, use_dora=True)])
    with pytest.raises(AtelierError, match="has DoRA"):
        scale_blocks(dora, target, [BlockRule("down_blocks", 0.5)], structure=structure)
    scale_blocks(dora, target, [BlockRule("down_blocks", 0.0), BlockRule("mid_block", 1.0)], structure=structure)
    assert [module.module for module in read_lora(target, structure)] == [MIDDLE]
