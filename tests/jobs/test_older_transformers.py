"""Transformers before 5.6, whose CLIPTextModel has `text_model.` in its names, loads what is exported here, and so does
the one that is installed.

The other environment is built where a network or a folder of wheels is there, or taken from ATELIER_OLDER_PYTHON.
"""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from finetune.adapters.weights import LoraModule
from finetune.export.registry import FORMATS
from finetune.naming.structure import ModelStructure, TextStructure, UNetStructure

SCRIPT = Path(__file__).parent / "read_elsewhere.py"
OLDER = ("transformers>=5.5,<5.6", "diffusers==0.42.1", "peft==0.21.2", "accelerate", "safetensors", "numpy")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one LoRA of mixed ranks and alphas in every format, and what it changes."""
    folder = tmp_path_factory.mktemp("exported")
    pipeline = runpy.run_path(str(SCRIPT))["build_pipeline"]()
    structure = ModelStructure(
        UNetStructure.from_config(pipeline.unet.config),
        TextStructure.from_config(pipeline.text_encoder.config.to_dict(), projected=False),
        TextStructure.from_config(pipeline.text_encoder_2.config.to_dict(), projected=True),
    )
    generator = torch.Generator().manual_seed(0)
    modules = []
    for number, ((component, path), shape) in enumerate(structure.weights.items()):
        if component == "unet" and not any(word in path for word in ("attentions", "resnets", "samplers")):
            continue
        rank, kernel = 2 + number % 3, shape[2:]
        down = torch.randn(rank, *shape[1:], generator=generator)
        up = torch.randn(shape[0], rank, *[1] * len(kernel), generator=generator)
        modules.append(LoraModule(component, path, down, up, (1 + number % 5) / rank))
    for name, known in FORMATS.items():
        target = known.place(folder / "other" if name == "kohya-diffusers" else folder, "cat")
        known.write(modules, target, precision="fp32", layout=structure.unet.layout, metadata={})
    changes = {f"{module.component}.{module.module}": module.delta(torch.float32) for module in modules}
    save_file(changes, folder / "expected.safetensors")
    return folder


def read(python: str, folder: Path) -> dict[str, Any]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [python, str(SCRIPT), str(folder)], capture_output=True, text=True, env=environment, check=False
    )
    assert finished.returncode == 0, finished.stderr[-2_000:]
    report: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return report


def assert_all_loaded(report: dict[str, Any]) -> None:
    assert set(report["formats"]) == set(FORMATS)
    for name, found in report["formats"].items():
        assert found["missing"] == [], (name, found)
        assert found["loaded"] == report["modules"], (name, found)
        assert found["difference"] <= 1e-6, (name, found)


@pytest.fixture(scope="module")
def older_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an environment with an older transformers."""
    given = os.environ.get("ATELIER_OLDER_PYTHON")
    if given:
        return given
    folder = tmp_path_factory.mktemp("older")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True)
    python = str(folder / "bin" / "python")
    torch_version = torch.__version__.partition("+")[0]
    for packages in ((f"torch=={torch_version}",), OLDER):
        pip = [python, "-m", "pip", "install", "--quiet", "--timeout", "20", "--retries", "1", *packages]
        finished = subprocess.run(pip, capture_output=True, text=True, check=False)
        if finished.returncode:
            last = (finished.stderr.strip().splitlines() or ["pip says nothing"])[-1]
            pytest.skip(f"the older libraries cannot be installed here: {last[:300]}")
    return python


@pytest.mark.slow
def test_the_installed_libraries_load_every_format(exported: Path) -> None:
    assert_all_loaded(read(sys.executable, exported))


@pytest.mark.slow
def test_an_older_transformers_loads_every_format(exported: Path, older_python: str) -> None:
    report = read(older_python, exported)
    assert tuple(map(int, report["versions"]["transformers"].split(".")[:2])) < (5, 6)
    assert_all_loaded(report)
