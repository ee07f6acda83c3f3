"""A resized file holds, module by module, the best approximation of the change that was there."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from finetune.adapters.weights import LohaModule, LoraModule
from finetune.dialects.lora_file import read_lora
from finetune.errors import AtelierError
from finetune.loras.resize import resize
from finetune.loras.svd import RankRule
from finetune.naming.structure import ModelStructure
from finetune.readers.proof import prove, require_whole
from finetune.tensors.header import read_header

MakeModule = Callable[..., LoraModule]
WriteLora = Callable[..., Path]

LINEAR = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
CONVOLUTION = "down_blocks.0.resnets.0.conv2"
TEXT = "text_model.encoder.layers.0.mlp.fc1"


@pytest.mark.parametrize("rule", [RankRule(rank=3), RankRule(energy=0.8)])
def test_each_module_keeps_what_a_rank_can(
    rule: RankRule, tmp_path: Path, structure: ModelStructure, make_module: MakeModule, write_lora: WriteLora
) -> None:
    modules = [
        make_module("unet", LINEAR, rank=8, alpha=-5.0, seed=1),
        make_module("unet", CONVOLUTION, rank=6, alpha=-5.0, seed=2),
        make_module("text_encoder", TEXT, rank=5, seed=3),
    ]
    source, target = write_lora("cat", modules), tmp_path / "small.safetensors"
    report = resize(source, target, rule=rule, structure=structure)
    found = {module.module: module for module in read_lora(target, structure)}
    told = {module.module: module for module in report.modules}
    assert found.keys() == told.keys() == {LINEAR, CONVOLUTION, TEXT}
    for module in modules:
        before = module.delta().flatten(1).numpy()
        after = found[module.module]
        assert after.shape == module.shape
        values = np.linalg.svd(before, compute_uv=False)
        if rule.energy is not None:
            kept = np.cumsum(values**2) / np.sum(values**2)
            assert kept[after.rank - 1] >= rule.energy
            assert after.rank == 1 or kept[after.rank - 2] < rule.energy
        else:
            assert after.rank == 3
        error = np.linalg.norm(before - after.delta().flatten(1).numpy())
        assert error <= 1.001 * np.linalg.norm(values[after.rank :])
        assert told[module.module].error == pytest.approx(error, rel=1e-5)
        assert after.scale * after.rank == pytest.approx(module.scale * module.rank), "alpha stays"
        assert after.down.norm().item() == pytest.approx(after.up.norm().item(), rel=1e-5)
        assert told[module.module].norm == pytest.approx(np.linalg.norm(before), rel=1e-6)
    entries = read_header(target).entries
    assert all(entries[name].dtype == "F32" for name in entries)
    assert report.bytes_after == target.stat().st_size < report.bytes_before


def test_a_rank_that_is_enough_changes_no_bit(
    tmp_path: Path, structure: ModelStructure, make_module: MakeModule, write_lora: WriteLora
) -> None:
    module = make_module("unet", LINEAR, rank=4, alpha=3.0)
    source, target = write_lora("cat", [module], "fp16"), tmp_path / "same.safetensors"
    report = resize(source, target, rule=RankRule(rank=4), structure=structure)
    (before,), (after,) = (read_lora(path, structure) for path in (source, target))
    assert torch.equal(before.down, after.down)
    assert torch.equal(before.up, after.up)
    assert after.scale == before.scale == 0.75
    assert report.modules[0].error == 0


def test_doras_magnitudes_stay(
    tmp_path: Path, structure: ModelStructure, make_module: MakeModule, write_lora: WriteLora
) -> None:
    module = make_module("unet", LINEAR, rank=4, use_dora=True)
    target = tmp_path / "small.safetensors"
    resize(write_lora("cat", [module]), target, rule=RankRule(rank=2), structure=structure)
    (after,) = read_lora(target, structure)
    assert module.magnitude is not None
    assert after.magnitude is not None
    assert torch.equal(after.magnitude, module.magnitude)


def test_a_module_that_does_nothing_stays_one(
    tmp_path: Path, structure: ModelStructure, make_module: MakeModule, write_lora: WriteLora
) -> None:
    dead = make_module("unet", LINEAR)
    dead.up.zero_()
    target = tmp_path / "small.safetensors"
    report = resize(write_lora("cat", [dead]), target, rule=RankRule(energy=0.9), structure=structure)
    (after,) = read_lora(target, structure)
    assert after.rank == 1
    assert not after.delta().any()
    assert report.modules[0].relative_error == 0


def test_the_metadata_say_what_the_file_is(
    tmp_path: Path, structure: ModelStructure, make_module: MakeModule, write_lora: WriteLora
) -> None:
    modules = [make_module("unet", name, rank=8, alpha=3.0) for name in (LINEAR, CONVOLUTION)]
    before = {
        "ss_network_dim": "8",
        "ss_sd_model_name": "sdxl",
        "atelier_recipe": "name: cat",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "wrong",
    }
    target = tmp_path / "small.safetensors"
    resize(write_lora("cat", modules, **before), target, rule=RankRule(rank=2), structure=structure)
    metadata = read_header(target).metadata
    assert metadata["ss_network_dim"] == "2"
    assert float(metadata["ss_network_alpha"]) == 3
    assert json.loads(metadata["ss_network_args"])["conv_dim"] == "2"
    assert metadata["ss_base_model_version"] == "sdxl_base_v1-0"
    assert metadata["ss_sd_model_name"] == "sdxl"
    assert metadata["atelier_recipe"] == "name: cat"
    assert metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert metadata["ss_output_name"] == "small"
    assert json.loads(metadata["atelier_made_by"]) == {"verb": "resize", "rank": 2, "energy": None, "of": ["cat"]}
    assert str(tmp_path) not in json.dumps(dict(metadata))
    assert len(metadata["sshs_model_hash"]) == 64


def test_what_does_not_fit_the_precision_is_refused_and_leaves_nothing(
    tmp_path: Path, structure: ModelStructure, make_module: MakeModule, write_lora: WriteLora
) -> None:
    module = make_module("unet", LINEAR)
    module.up.mul_(1e12)
    source, target = write_lora("cat", [module]), tmp_path / "small.safetensors"
    with pytest.raises(AtelierError, match="too large for fp16"):
        resize(source, target, rule=RankRule(rank=2), structure=structure, precision="fp16")
    assert not target.exists()


def test_other_kinds_become_plain(tmp_path: Path, structure: ModelStructure, write_lora: WriteLora) -> None:
    shape = structure.weights["unet", CONVOLUTION]
    generator = torch.Generator().manual_seed(0)
    width = shape[1] * shape[2] * shape[3]
    halves = [torch.randn(size, generator=generator) * 0.2 for size in ((shape[0], 2), (2, width)) * 2]
    loha = LohaModule("unet", CONVOLUTION, shape, *halves, scale=0.5)
    target = tmp_path / "plain.safetensors"
    report = resize(write_lora("loha", [loha]), target, rule=RankRule(energy=1.0), structure=structure)
    (after,) = read_lora(target, structure)
    assert (report.modules[0].old_rank, after.kind) == (None, "LoRA")
    assert (after.delta() - loha.delta()).norm() <= 1e-6 * loha.delta().norm()
    assert report.modules[0].relative_error < 1e-6
    # A Hadamard product of two matrices of rank two has rank four at most.
    resize(tmp_path / "loha.safetensors", target, rule=RankRule(rank=4), structure=structure)
    (after,) = read_lora(target, structure)
    assert after.rank == 4
    assert (after.delta() - loha.delta()).norm() <= 1e-6 * loha.delta().norm()
    require_whole(prove(target, structure))
