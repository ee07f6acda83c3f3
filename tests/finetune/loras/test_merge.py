"""Merged files change what the files beside each other change, by each method's own definition."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from finetune.adapters.lora import apply_lora, loras_scaled, remove_loras
from finetune.adapters.weights import LokrModule, LoraModule
from finetune.dialects.lora_file import read_lora
from finetune.errors import AtelierError, RecipeError
from finetune.loras.merge import MERGE_METHODS, MergeSettings, drop, merge, ties, trim
from finetune.loras.writing import write_made
from finetune.model.miniature import Miniature
from finetune.naming.structure import SDXL_BASE, ModelStructure
from finetune.readers.proof import prove, require_whole
from finetune.tensors.header import read_header

MakeModule = Callable[..., LoraModule]
WriteLora = Callable[..., Path]

MIDDLE = "mid_block.attentions.0.transformer_blocks.0"
PATHS = (f"{MIDDLE}.attn1.to_q", f"{MIDDLE}.ff.net.2", "down_blocks.0.resnets.0.conv2")


def deltas(path: Path, structure: ModelStructure) -> dict[str, torch.Tensor]:
    return {module.module: module.delta() for module in read_lora(path, structure)}


def run_unet(files: dict[str, tuple[list[LoraModule], float]]) -> torch.Tensor:
    """Return what the miniature's U-Net predicts with LoRAs of these strengths beside each other."""
    unet = Miniature().load_unet(torch.float32)
    generator = torch.Generator().manual_seed(5)
    config = unet.config
    pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
    try:
        for name, (modules, _) in files.items():
            apply_lora(unet, "unet", modules, name)
        with torch.no_grad(), loras_scaled([unet], {name: strength for name, (_, strength) in files.items()}):
            sample: torch.Tensor = unet(
                torch.randn(1, 4, 16, 16, generator=generator),
                500,
                torch.randn(1, 7, config["cross_attention_dim"], generator=generator),
                added_cond_kwargs={
                    "text_embeds": torch.randn(1, pooled, generator=generator),
                    "time_ids": torch.full((1, 6), 64.0),
                },
            ).sample
        return sample
    finally:
        remove_loras(unet)


@pytest.mark.parametrize("disjoint", [True, False])
def test_cat_is_both_beside_each_other(
    disjoint: bool, tmp_path: Path, structure: ModelStructure, make_module: MakeModule, write_lora: WriteLora
) -> None:
    first = [make_module("unet", path, rank=4, alpha=8.0, seed=index) for index, path in enumerate(PATHS[:2])]
    others = PATHS[2:] if disjoint else PATHS[1:]
    second = [make_module("unet", path, rank=3, alpha=9.0, seed=9 + index) for index, path in enumerate(others)]
    sources = [write_lora("cat", first), write_lora("dog", second)]
    target = tmp_path / "both.safetensors"
    report = merge(sources, [1.0, -0.7], target, settings=MergeSettings(), structure=structure)
    merged = read_lora(target, structure)
    assert {module.module for module in merged} == set(PATHS)
    assert report.shared["unet"] == (0 if disjoint else 1)
    for module in merged:
        expected = sum(
            strength * own.delta()
            for strength, owners in ((1.0, first), (-0.7, second))
            for own in owners
            if own.module == module.module
        )
        assert isinstance(expected, torch.Tensor)
        assert (module.delta() - expected).norm() <= 1e-6 * expected.norm()
    beside = run_unet({"cat": (first, 1.0), "dog": (second, -0.7)})
    together = run_unet({"both": (merged, 1.0)})
    assert (together - beside).abs().max() < 1e-4 * beside.abs().max()
    assert (run_unet({"cat": (first, 1.0)}) - beside).abs().max() > 1e-3 * beside.abs().max(), "the second did nothing"


def test_factors_of_equal_weight_are_not_even_rounded(
    tmp_path: Path, structure: ModelStructure, make_module: MakeModule, write_lora: WriteLora
) -> None:
    modules = [make_module("unet", PATHS[0], seed=seed) for seed in (1, 2)]
    sources = [write_lora(f"part{index}", [module], "fp16") for index, module in enumerate(modules)]
    target = tmp_path / "both.safetensors"
    merge(sources, [0.6, 0.6], target, settings=MergeSettings(), structure=structure)
    (merged,) = read_lora(target, structure)
    assert torch.equal(merged.up, torch.cat([module.up for module in modules], dim=1).half().float())
    assert torch.equal(merged.down, torch.cat([module.down for module in modules]).half().float())
    assert merged.scale == pytest.approx(0.3, rel=1e-6)
    assert all(entry.dtype == "F16" for entry in read_header(target).entries.values() if len(entry.shape) > 1)


def test_svd_is_the_best_of_a_rank(
    tmp_path: Path, structure: ModelStructure, make_module: MakeModule, write_lora: WriteLora
) -> None:
    first, second = make_module("unet", PATHS[0], rank=4, seed=1), make_module("unet", PATHS[0], rank=6, seed=2)
    target = tmp_path / "both.safetensors"
    for rank, expected in ((None, 6), (3, 3)):
        merge(
            [write_lora("cat", [first]), write_lora("dog", [second])],
            [1.0, 0.5],
            target,
            settings=MergeSettings("svd", rank),
            structure=structure,
        )
        (merged,) = read_lora(target, structure)
        assert merged.rank == expected
        total = (first.delta() + 0.5 * second.delta()).numpy()
        best = np.linalg.norm(np.linalg.svd(total, compute_uv=False)[expected:])
        assert np.linalg.norm(total - merged.delta().numpy()) <= 1.001 * best
        target.unlink()


def test_ties_by_hand() -> None:
    first = torch.tensor([[5.0, -1.0, 2.0, 0.1]])
    second = torch.tensor([[2.0, 4.0, -3.0, 0.2]])
    # Half of each is kept: (5, 2) and (4, -3); where the signs differ the larger sum decides.
    assert torch.equal(ties([first, second], 0.5), torch.tensor([[5.0, 4.0, -3.0, 0.0]]))
    # All is kept: the mean of those that agree with the sign of the sum.
    assert torch.allclose(ties([first, second], 1.0), torch.tensor([[3.5, 4.0, -3.0, 0.15]]))


def test_trim_keeps_the_share() -> None:
    change = torch.randn(40, 50, generator=torch.Generator().manual_seed(0))
    kept = trim(change, 0.2)
    assert kept.count_nonzero() == 400
    assert kept.abs()[kept != 0].min() > change.abs()[kept == 0].max()
    assert torch.equal(trim(change, 1.0), change)
    assert torch.equal(trim(torch.ones(2, 2), 0.5), torch.ones(2, 2)), "equal ones are no smaller"


def test_dare_keeps_the_expectation() -> None:
    change = torch.ones(200, 200)
    kept = drop(change, 0.25, torch.Generator().manual_seed(3))
    assert set(kept.unique().tolist()) == {0.0, 4.0}
    assert kept.mean() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("method", ["ties", "dare"])
def test_the_dense_methods_end_in_a_rank(
    method: str, tmp_path: Path, structure: ModelStructure, make_module: MakeModule, write_lora: WriteLora
) -> None:
    first, second = (make_module("unet", PATHS[2], seed=seed) for seed in (1, 2))
    sources = [write_lora("cat", [first]), write_lora("dog", [second])]
    results = []
    for number, seed in enumerate((0, 0, 1)):
        target = tmp_path / f"{method}-{number}.safetensors"
        # As many as the weight has: nothing is cut, so all the numbers can be held against the definition.
        full = min(first.delta().flatten(1).shape)
        settings = MergeSettings(method, full, 0.5, seed)
        merge(sources, [1.0, 0.5], target, settings=settings, structure=structure)
        results.append(deltas(target, structure)[PATHS[2]])
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2]) == (method == "ties")
    if method == "ties":
        expected = ties([first.delta(), second.delta() * 0.5], 0.5)
        assert (results[0] - expected).norm() <= 1e-6 * expected.norm()
    else:
        ratios = (results[0] - 0).flatten() / (2 * first.delta() + second.delta()).flatten()
        assert (ratios.sub(1).abs() < 1e-4).float().mean() == pytest.approx(0.25, abs=0.05), "both kept"
        assert (results[0].abs() < 1e-6 * results[0].abs().max()).float().mean() == pytest.approx(0.25, abs=0.05)


def test_the_metadata_name_the_parts_and_no_path(
    tmp_path: Path, structure: ModelStructure, make_module: MakeModule, write_lora: WriteLora
) -> None:
    module = make_module("unet", PATHS[0])
    sources = [write_lora("cat", [module], ss_seed="7", atelier_recipe="name: cat"), write_lora("dog", [module])]
    target = tmp_path / "both.safetensors"
    merge(sources, [1.0, 0.5], target, settings=MergeSettings("svd", 2), structure=structure)
    metadata = read_header(target).metadata
    assert json.loads(metadata["atelier_made_by"]) == {
        "verb": "merge",
        "method": "svd",
        "rank": 2,
        "of": [{"name": "cat", "weight": 1.0}, {"name": "dog", "weight": 0.5}],
    }
    assert metadata["ss_seed"] == "7"
    assert "atelier_recipe" not in metadata
    assert str(tmp_path) not in json.dumps(dict(metadata))


def test_what_cannot_be_merged(
    tmp_path: Path, structure: ModelStructure, make_module: MakeModule, write_lora: WriteLora
) -> None:
    plain = write_lora("cat", [make_module("unet", PATHS[0])])
    dora = write_lora("dora", [make_module("unet", PATHS[0], use_dora=True)])
    target = tmp_path / "both.safetensors"
    with pytest.raises(AtelierError, match=r"has DoRA .*fuse"):
        merge([plain, dora], [1.0, 1.0], target, settings=MergeSettings(), structure=structure)
    for sources, weights, message in (
        ([plain], [1.0], "two LoRA files"),
        ([plain, plain], [1.0], "one for each"),
        ([plain, plain], [1.0, 0.0], "other than 0"),
        ([plain, plain], [1.0, float("nan")], "other than 0"),
    ):
        with pytest.raises(RecipeError, match=message):
            merge(sources, weights, target, settings=MergeSettings(), structure=structure)
    assert not target.exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "linear"}, "adds up factors"),
        ({"method": "slerp"}, "Known: cat, svd, ties, dare"),
        ({"method": "cat", "rank": 4}, "ranks add up"),
        ({"method": "svd", "rank": 0}, "1 or more"),
        ({"method": "ties", "density": 0.0}, "above 0"),
    ],
)
def test_settings_that_mean_nothing(settings: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        MergeSettings(**settings)  # type: ignore[arg-type]


def test_other_kinds(tmp_path: Path, structure: ModelStructure, make_module: MakeModule, write_lora: WriteLora) -> None:
    out, inputs = structure.weights["unet", PATHS[0]]
    generator = torch.Generator().manual_seed(0)
    lora = make_module("unet", PATHS[0])
    first, second = torch.randn(8, 8, generator=generator), torch.randn(out // 8, inputs // 8, generator=generator)
    lokr = LokrModule("unet", PATHS[0], (out, inputs), 0.01, w1=first, w2=second)
    alone = replace(lokr, module=PATHS[0].replace("to_q", "to_k"))
    sources = [write_lora("cat", [lora]), write_lora("lokr", [lokr, alone])]  # type: ignore[list-item]
    target = tmp_path / "both.safetensors"
    with pytest.raises(AtelierError, match="--method svd"):
        merge(sources, [1.0, 0.5], target, settings=MergeSettings(), structure=structure)
    report = merge(sources, [1.0, 0.5], target, settings=MergeSettings("svd"), structure=structure)
    assert report.plain() == {"unet": {"shared": 1, "alone": 1, "ranks": [min(out, inputs)] * 2}}
    merged = {module.module: module for module in read_lora(target, structure)}
    assert merged[alone.module].kind == "LoKr"
    assert torch.allclose(merged[alone.module].delta(), 0.5 * alone.delta(), rtol=1e-6)
    expected = lora.delta() + 0.5 * lokr.delta()
    assert (merged[PATHS[0]].delta() - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.parametrize("method", MERGE_METHODS)
def test_every_reader_takes_a_merged_file_whole(method: str, tmp_path: Path, write_lora: WriteLora) -> None:
    sources = []
    for name, path in (("cat", "down_blocks.1.attentions.0.proj_in"), ("dog", "mid_block.resnets.0.conv1")):
        modules = []
        for own in (path, "up_blocks.0.attentions.0.proj_out"):
            out, *inputs = SDXL_BASE.weights["unet", own]
            down = torch.randn(2, *inputs, generator=torch.Generator().manual_seed(len(own)))
            modules.append(LoraModule("unet", own, down, torch.ones(out, 2, *[1] * (len(inputs) - 1)), 0.5))
        sources.append(tmp_path / f"{name}.safetensors")
        write_made(modules, sources[-1], precision="fp16", structure=SDXL_BASE, metadata={}, made_by={})
    target = tmp_path / "both.safetensors"
    merge(sources, [1.0, 0.5], target, settings=MergeSettings(method), structure=SDXL_BASE)
    require_whole(prove(target, SDXL_BASE))
