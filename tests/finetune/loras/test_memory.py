"""Making files of files holds one module at a time: a file of the real shape takes no more memory than a small one."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from finetune.adapters.weights import LoraModule
from finetune.loras.writing import write_made
from finetune.model.geometry import MINIATURE_FOLDER
from finetune.naming.components import Component
from finetune.naming.structure import SDXL_BASE

MakeModule = Callable[..., LoraModule]
WriteLora = Callable[..., Path]

MIB = 2**20
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks of memory are read from /proc"),
]


def peak_of(*words: str | Path) -> int:
    """Return the most memory that `atelier lora …` ever had resident, in bytes."""
    code = (
        "import sys, re, pathlib; from finetune.cli.main import main; code = main(sys.argv[1:]); "
        "found = re.search(r'VmHWM:\\s+(\\d+) kB', pathlib.Path('/proc/self/status').read_text()); "
        "print(int(found[1]) * 1024, file=sys.stderr); sys.exit(code)"
    )
    line = [sys.executable, "-c", code, "lora", *map(str, words), "--json"]
    finished = subprocess.run(line, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return int(finished.stderr.splitlines()[-1])


def random_module(component: Component, path: str) -> LoraModule:
    out, inputs = SDXL_BASE.weights[component, path]
    return LoraModule(component, path, torch.randn(64, inputs), torch.randn(out, 64), 1.0)


@pytest.fixture(scope="module")
def loras(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A LoRA of eight modules, and one of 722 with 340 MB; the largest module is the same."""
    folder = tmp_path_factory.mktemp("loras")
    names = [name for name in SDXL_BASE.weights if name[0] == "unet" and ".attentions." in name[1]]
    paths = folder / "small.safetensors", folder / "large.safetensors"
    largest = max(names, key=lambda name: SDXL_BASE.weights[name])
    for path, chosen in zip(paths, ([*names[:8], largest], names), strict=True):
        modules = (random_module(*name) for name in chosen)
        write_made(modules, path, precision="fp16", structure=SDXL_BASE, metadata={}, made_by={})
    return paths


@pytest.mark.parametrize("verb", ["resize", "cat", "svd", "scale-blocks"])
def test_a_large_file(verb: str, loras: tuple[Path, Path], tmp_path: Path) -> None:
    peaks = []
    for lora in loras:
        words: dict[str, list[str | Path]] = {
            "resize": ["resize", lora, "--rank", "16"],
            "cat": ["merge", lora, lora],
            "svd": ["merge", lora, lora, "--method", "svd"],
            "scale-blocks": ["scale-blocks", lora, "--set", "unet=0.5"],
        }
        peaks.append(peak_of(*words[verb], "-o", tmp_path / lora.name))
    small, large = loras
    difference = large.stat().st_size - small.stat().st_size
    assert difference > 300 * MIB
    assert peaks[1] - peaks[0] < difference / 4


def test_a_large_checkpoint(checkpoint: Path, tmp_path: Path, make_module: MakeModule, write_lora: WriteLora) -> None:
    lora = write_lora("cat", [make_module("unet", "mid_block.attentions.0.proj_in")])
    tensors = safetensors.torch.load_file(checkpoint)
    large = tmp_path / "large.safetensors"
    added = 512 * MIB
    safetensors.torch.save_file({**tensors, "first_stage_model.huge": torch.zeros(added, dtype=torch.uint8)}, large)
    peaks = [
        peak_of("fuse", base, lora, "--config", MINIATURE_FOLDER / "base", "-o", tmp_path / f"fused-{base.name}")
        for base in (checkpoint, large)
    ]
    assert (tmp_path / "fused-large.safetensors").stat().st_size > added
    assert peaks[1] - peaks[0] < added / 8
