"""What is written: whole, readable by others, the right numbers, checked before and after."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file

from finetune.adapters.weights import LoraModule
from finetune.dialects.lora_file import read_lora
from finetune.errors import AtelierError, RecipeError
from finetune.export.check import cast
from finetune.export.kohya import kohya_state_dict, write_kohya
from finetune.export.registry import EXPORTERS, export_adapter, get_exporter
from finetune.naming.keys import SDXL_BASE_LAYOUT, UNetLayout, kohya_stem
from finetune.naming.structure import ModelStructure
from finetune.tensors.writing import write_safetensors

MakePipeline = Callable[..., StableDiffusionXLPipeline]
MakeModules = Callable[..., list[LoraModule]]

LINEAR = LoraModule(
    "unet",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
    down=torch.randn(4, 6),
    up=torch.randn(5, 4),
    scale=0.75,
    magnitude=torch.rand(5) + 1,
)
CONVOLUTION = LoraModule(
    "unet",
    "down_blocks.0.resnets.0.conv1",
    down=torch.randn(4, 6, 3, 3),
    up=torch.randn(5, 4, 1, 1),
    scale=0.3,
    magnitude=torch.rand(5) + 1,
)


def test_alpha_is_scale_times_rank_and_exact_in_every_precision() -> None:
    # rsLoRA of rank 12 and alpha 8: what stands in the file is alpha times the root of the rank.
    module = replace(CONVOLUTION, down=torch.randn(12, 6, 3, 3), up=torch.randn(5, 12, 1, 1), scale=8 / 12**0.5)
    tensors = kohya_state_dict([module], "fp16", SDXL_BASE_LAYOUT)
    alpha = tensors["lora_unet_input_blocks_1_0_in_layers_2.alpha"]
    assert alpha.shape == ()
    assert alpha.dtype == torch.float32
    assert alpha.item() == pytest.approx(8 * 12**0.5, rel=1e-7)
    assert tensors["lora_unet_input_blocks_1_0_in_layers_2.lora_up.weight"].dtype == torch.float16


@pytest.mark.parametrize("module", [LINEAR, CONVOLUTION], ids=["linear", "convolution"])
def test_dora_scale_fits_the_formula_of_its_readers(module: LoraModule) -> None:
    """LyCORIS with wd_on_output: W' = (W + ΔW) · dora_scale / norm of each row, all by broadcasting."""
    assert module.magnitude is not None
    tensors = kohya_state_dict([module], "fp16", SDXL_BASE_LAYOUT)
    (dora_scale,) = (tensor for name, tensor in tensors.items() if name.endswith(".dora_scale"))
    weight = torch.randn(module.delta().shape) + module.delta(torch.float32)
    assert dora_scale.dtype == torch.float32
    assert dora_scale.shape == (5, *[1] * (weight.dim() - 1))
    norms = weight.flatten(1).norm(dim=1).reshape(5, *[1] * (weight.dim() - 1))
    result = weight * (dora_scale / norms)
    assert result.shape == weight.shape
    assert torch.allclose(result.flatten(1).norm(dim=1), module.magnitude)


@pytest.mark.parametrize("format_name", EXPORTERS)
def test_every_exporter_writes_readable_files_and_nothing_else(
    format_name: str, make_pipeline: MakePipeline, make_modules: MakeModules, layout: UNetLayout, tmp_path: Path
) -> None:
    modules = make_modules(make_pipeline(), use_dora=True)
    counts = {component: sum(module.component == component for module in modules) for component in
              ("unet", "text_encoder", "text_encoder_2")}  # fmt: skip
    old = os.umask(0o022)
    try:
        written = export_adapter(
            modules,
            tmp_path / "exports",
            "cat",
            formats=[format_name],
            precision="fp16",
            layout=layout,
            metadata={"ss_output_name": "cat"},
            expected=counts,
        )[format_name]
    finally:
        os.umask(old)
    assert sorted(written) == sorted(path for path in tmp_path.rglob("*") if path.is_file())
    for path in written:
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
    tensors = {}
    for path in written:
        if path.suffix == ".safetensors":
            tensors |= {f"{path.parent.name}.{name}": tensor for name, tensor in load_file(path).items()}
            with safetensors.safe_open(path, framework="pt") as file:
                assert file.metadata()["ss_output_name"] == "cat"
    # peft's folder holds the first encoder's twice, by the names of transformers before and after 5.6.
    written_modules = len(modules) + (counts["text_encoder"] if format_name == "peft" else 0)
    assert len(tensors) == written_modules * (4 if format_name == "kohya" else 3)
    factors = [
        t for name, t in tensors.items() if not name.endswith(("alpha", "dora_scale", "magnitude_vector.weight"))
    ]
    assert len(factors) == 2 * written_modules
    assert {factor.dtype for factor in factors} == {torch.float16}


@pytest.mark.parametrize("format_name", ["kohya", "diffusers"])
@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize("layers_per_block", [1, 2])
def test_what_is_written_is_read_back(
    format_name: str,
    use_dora: bool,
    layers_per_block: int,
    make_pipeline: MakePipeline,
    make_modules: MakeModules,
    structure_of: Callable[[StableDiffusionXLPipeline], ModelStructure],
    tmp_path: Path,
) -> None:
    pipeline = make_pipeline(layers_per_block)
    layout = UNetLayout.from_config(pipeline.unet.config)
    modules = make_modules(pipeline, rank=3, alpha=5.0, use_rslora=True, use_dora=use_dora)
    # One module apart from the rest, as after resizing: ranks and alphas may differ.
    odd = modules[7]
    modules[7] = replace(odd, down=odd.down[:2].clone(), up=odd.up[:, :2].clone(), scale=0.125)
    written = export_adapter(
        modules, tmp_path, "cat", formats=[format_name], precision="fp32", layout=layout, metadata={}
    )
    (path,) = written[format_name]
    back = {(module.component, module.module): module for module in read_lora(path, structure_of(pipeline))}
    assert set(back) == {(module.component, module.module) for module in modules}
    for module in modules:
        found = back[module.component, module.module]
        assert isinstance(found, LoraModule)
        if module is not modules[7] or format_name != "kohya":  # see below
            assert torch.equal(found.up, module.up)
            assert torch.equal(found.down, module.down)
            assert found.scale == pytest.approx(module.scale, rel=1e-6)
        assert (found.delta() - module.delta()).norm() < 1e-6 * module.delta().norm()
        if module.magnitude is None:
            assert found.magnitude is None
        else:
            assert found.magnitude is not None
            assert torch.equal(found.magnitude, module.magnitude)


def test_all_loras_of_a_component_have_one_alpha(tmp_path: Path) -> None:
    """diffusers drops the alphas of attentions that differ from the most frequent one."""
    name = LINEAR.module
    modules = [
        LINEAR,  # alpha 3
        replace(LINEAR, module=name.replace("to_k", "to_v"), scale=3.0),  # four times as much, which is exact
        replace(LINEAR, module=name.replace("to_k", "to_q"), down=torch.randn(7, 6), up=torch.randn(5, 7), scale=0.3),
    ]
    path = tmp_path / "cat.safetensors"
    write_kohya(modules, path, precision="fp16", layout=SDXL_BASE_LAYOUT, metadata={})
    tensors = load_file(path)
    assert {tensor.item() for part, tensor in tensors.items() if part.endswith("alpha")} == {3.0}
    stem = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_v"
    up, down = (tensors[f"{stem}.lora_{part}.weight"] for part in ("up", "down"))
    one = torch.equal(up, 4 * LINEAR.up.half()) and torch.equal(down, LINEAR.down.half())
    other = torch.equal(up, LINEAR.up.half()) and torch.equal(down, 4 * LINEAR.down.half())
    assert one or other
    for module in modules:
        stem = kohya_stem("unet", module.module, SDXL_BASE_LAYOUT)
        up, down = (tensors[f"{stem}.lora_{part}.weight"].double() for part in ("up", "down"))
        delta = 3.0 / len(down) * up @ down
        assert (delta - module.delta()).norm() < 2e-3 * module.delta().norm()


@pytest.mark.parametrize("ratio", [1 / 64, 48.0])
def test_a_common_alpha_costs_no_precision(ratio: float, tmp_path: Path) -> None:
    """A second factor is small at the end of a short training: divided further it would lose its digits in half."""
    generator = torch.Generator().manual_seed(0)
    name = LINEAR.module
    first = replace(LINEAR, scale=1.0, magnitude=None)
    down, up = torch.randn(4, 6, generator=generator) * 0.05, torch.randn(5, 4, generator=generator) * 2e-4
    small = replace(first, module=name.replace("to_k", "to_v"), down=down, up=up, scale=ratio)
    path = tmp_path / "cat.safetensors"
    write_kohya([first, small], path, precision="fp16", layout=SDXL_BASE_LAYOUT, metadata={})
    tensors = load_file(path)
    stem = kohya_stem("unet", small.module, SDXL_BASE_LAYOUT)
    delta = tensors[f"{stem}.lora_up.weight"].double() @ tensors[f"{stem}.lora_down.weight"].double()
    assert (delta - small.delta()).norm() < 1e-3 * small.delta().norm()


def test_an_unknown_format_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"'kohia'. Did you mean 'kohya'\? Known: kohya, diffusers, peft"):
        export_adapter(
            [LINEAR],
            tmp_path,
            "cat",
            formats=["kohya", "kohia"],
            precision="fp16",
            layout=SDXL_BASE_LAYOUT,
            metadata={},
        )
    assert list(tmp_path.iterdir()) == []
    assert get_exporter("peft") is EXPORTERS["peft"]


@pytest.mark.parametrize("format_name", EXPORTERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_make_no_file(format_name: str, value: float, tmp_path: Path) -> None:
    down = LINEAR.down.clone()
    down[1, 2] = value
    with pytest.raises(AtelierError, match="to_k: holds numbers that are not finite"):
        export_adapter(
            [replace(LINEAR, down=down)],
            tmp_path,
            "cat",
            formats=[format_name],
            precision="fp32",
            layout=SDXL_BASE_LAYOUT,
            metadata={},
        )
    assert list(tmp_path.iterdir()) == []


def test_a_precision_too_narrow_is_refused() -> None:
    with pytest.raises(AtelierError, match=r"too large for fp16.*bf16 or fp32"):
        cast(torch.tensor([1.0, 70_000.0]), "fp16", "x")
    assert cast(torch.tensor([1.0, 70_000.0]), "bf16", "x").dtype == torch.bfloat16
    with pytest.raises(AtelierError, match="too small for fp16"):
        cast(torch.tensor([1e-9, 0.0]), "fp16", "x")
    with pytest.raises(AtelierError, match=r"unknown export.precision 'fp8'. Known: fp16, bf16, fp32"):
        cast(torch.ones(1), "fp8", "x")


def test_counts_are_asserted(tmp_path: Path) -> None:
    def export(modules: list[LoraModule], **more: object) -> None:
        export_adapter(
            modules, tmp_path, "cat", formats=["kohya"], precision="fp32", layout=SDXL_BASE_LAYOUT, metadata={}, **more
        )

    with pytest.raises(AssertionError, match="expected"):
        export([LINEAR], expected={"unet": 2, "text_encoder": 0})
    with pytest.raises(AssertionError, match="stands twice"):
        export([LINEAR, LINEAR])
    with pytest.raises(AssertionError, match="DoRA on some"):
        export([LINEAR, replace(CONVOLUTION, magnitude=None)])
    with pytest.raises(AssertionError, match="lacks text_model"):
        export([replace(LINEAR, component="text_encoder", module="encoder.layers.0.mlp.fc1")])
    with pytest.raises(AtelierError, match="no trained module"):
        export([])
    assert list(tmp_path.iterdir()) == []
    export([LINEAR], expected={"unet": 1, "text_encoder": 0})


FULL_DISK = """
import resource, sys
from pathlib import Path
import torch
from finetune.errors import DiskError
from finetune.tensors.writing import write_safetensors
path = Path(sys.argv[1]) / "cat.safetensors"
write_safetensors(path, {"a": torch.ones(4)}, {})
before = path.read_bytes()
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
try:
    write_safetensors(path, {"a": torch.ones(4096)}, {})
except DiskError as error:
    print(error)
assert path.read_bytes() == before
assert [p.name for p in path.parent.iterdir()] == ["cat.safetensors"]
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the limit is POSIX")
def test_a_full_disk_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "cat.safetensors: cannot be written" in done.stdout


def test_metadata_are_strings(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="strings"):
        write_safetensors(tmp_path / "a.safetensors", {"a": torch.ones(1)}, {"ss_steps": 3})  # type: ignore[dict-item]
