"""Whole runs as a person starts them: the command line in processes of its own, on the embedded miniature."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

DRIVER = Path(__file__).parent / "driver.py"

RECIPE = """\
schema_version: 1
seed: 7
output_dir: {output_dir}
model:
  kind: miniature
refiner:
  kind: miniature
data:
  sources:
    - kind: folder
      path: {pictures}
  buckets:
    kind: generated
    resolution: 64
    step: 16
    max_aspect: 2.0
  flip_probability: 0.5
adapter:
  unet:
    rank: 4
    alpha: 8
    learning_rate: 2e-3
    dropout: 0.1
  text_encoder:
    rank: 4
    learning_rate: 1e-3
    stop_after_steps: 4
  text_encoder_2:
    rank: 2
    learning_rate: 1e-3
training:
  steps: 9
  micro_batch_size: 2
  global_batch_size: 4
  precision: fp32
  gradient_checkpointing: false
  lr_schedule:
    kind: cosine
    warmup_steps: 2
  objective:
    snr_gamma: 5
    noise_offset: 0.05
preview:
  every_steps: null
  at_start: false
checkpoint:
  every_steps: 1
  keep: 3
"""


@pytest.fixture
def job(tmp_path: Path) -> "Job":
    """A recipe and a folder of eleven small pictures of three aspects."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    draws = np.random.default_rng(0)
    for index in range(11):
        height, width = [(80, 80), (64, 100), (110, 64)][index % 3]
        pixels = draws.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(pixels).save(pictures / f"picture-{index:02d}.png")
        # Two are longer than an encoder reads at once, so that batches hold texts of different lengths.
        caption = f"a star number {index}" + ", and a square beside it" * (12 if index % 5 == 4 else 0)
        (pictures / f"picture-{index:02d}.txt").write_text(caption, encoding="utf-8")
    recipe = tmp_path / "job.yaml"
    recipe.write_text(RECIPE.format(output_dir=tmp_path / "runs", pictures=pictures), encoding="utf-8")
    return Job(recipe, tmp_path / "runs")


class Job:
    """Runs one recipe in child processes and reads what they leave."""

    def __init__(self, recipe: Path, runs: Path) -> None:
        self.recipe = recipe
        self.runs = runs

    def start(self, *arguments: str, driver: Sequence[str] = ()) -> "subprocess.Popen[str]":
        """Start `atelier train` on the recipe; with `driver`, through the script that misbehaves on purpose."""
        program = [str(DRIVER), *driver, "--"] if driver else ["-m", "finetune"]
        return subprocess.Popen(
            [sys.executable, *program, "train", str(self.recipe), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=child_environment(),
            cwd=self.recipe.parent,
        )

    def train(self, *arguments: str, driver: Sequence[str] = (), code: int = 0) -> str:
        """Train to the process's end, check its exit code and return its output."""
        process = self.start(*arguments, driver=driver)
        output, errors = process.communicate(timeout=300)
        assert process.returncode == code, f"exit code {process.returncode}\n{output}\n{errors}"
        return output + errors

    def state_of(self, name: str = "job", step: int | None = None) -> dict[str, str]:
        """Return the hash of every tensor file of a checkpoint, the newest by default."""
        folders = sorted((self.runs / name / "checkpoints").glob("step-*"))
        folder = folders[-1] if step is None else self.runs / name / "checkpoints" / f"step-{step:06d}"
        return {
            file: hashlib.sha256((folder / file).read_bytes()).hexdigest()
            for file in ("adapter.safetensors", "optimizer.safetensors")
        }

    def losses(self, name: str = "job") -> dict[int, tuple[float, ...]]:
        """Return what each step computed; a step that was repeated after a resume counts as it was last."""
        return {
            event["step"]: (event["loss"], event["grad_norm"], *event["per_sample"], *event["timesteps"])
            for event in self.events(name)
            if event["kind"] == "step"
        }

    def events(self, name: str = "job") -> list[dict[str, Any]]:
        """Return a run's events."""
        text = (self.runs / name / "events.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def atelier(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run one line of the command line in a process of its own, in an empty folder."""

    def call(*arguments: str, cwd: Path = tmp_path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "finetune", *arguments],
            capture_output=True,
            text=True,
            env=child_environment(),
            cwd=cwd,
            timeout=300,
            check=False,
        )

    return call


def child_environment() -> dict[str, str]:
    """One thread, offline, and this checkout's packages, whatever is installed."""
    root = Path(__file__).parents[2]
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join([str(root), str(root / "datasets")]),
    }
