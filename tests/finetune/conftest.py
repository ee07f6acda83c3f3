"""A run in miniature: pictures in a temporary folder, a recipe over them, and the training state it gives.

Torch is imported inside the fixtures, so that tests of the torch-free packages start as fast as those do.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from finetune.recipe import Recipe
    from finetune.training.loop import TrainingState

MakeRecipe = Callable[..., "Recipe"]
MakeState = Callable[..., "TrainingState"]

_BASE: dict[str, Any] = {
    "schema_version": 1,
    "name": "small",
    "model": {"kind": "miniature"},
    "data": {"buckets": {"kind": "generated", "resolution": 32, "step": 16, "max_aspect": 2.0}},
    "adapter": {"unet": {"rank": 4, "alpha": 2.0, "learning_rate": 1e-3}},
    "training": {
        "steps": 10,
        "device": "cpu",
        "precision": "fp32",
        "gradient_checkpointing": False,
        "caption_dropout": 0.0,
    },
}


def _write_pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    noise = np.random.default_rng(0)
    for index in range(count):
        size = (40 + index, 40 + index, 3)
        Image.fromarray(noise.integers(0, 256, size, dtype=np.uint8)).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"a photo of a cat number {index}", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def pictures_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of four small square pictures with captions, all of different sizes."""
    return _write_pictures(tmp_path_factory.mktemp("data") / "pictures", 4)


@pytest.fixture
def make_recipe(pictures_folder: Path, tmp_path: Path) -> MakeRecipe:
    """Return a function that makes a recipe for the miniature; settings are given by dotted keys."""
    from finetune.recipe import Recipe

    def make(settings: Mapping[str, Any] | None = None) -> Recipe:
        content = _copied(_BASE)
        content["output_dir"] = str(tmp_path / "runs")  # the cache lies there, too
        content["data"]["sources"] = [{"kind": "folder", "path": str(pictures_folder)}]
        for key, value in (settings or {}).items():
            *parents, last = key.split(".")
            section = content
            for parent in parents:
                section = section.setdefault(parent, {})
            section[last] = value
        return Recipe.model_validate(content)

    return make


@pytest.fixture
def make_state(make_recipe: MakeRecipe) -> MakeState:
    """Return a function that puts a training state together, as a run does, without a run folder."""
    from accelerate import Accelerator

    from finetune.training.data import plan_pictures, scan_pictures
    from finetune.training.signals import StopRequest
    from finetune.training.trainer import assemble

    def make(settings: Mapping[str, Any] | None = None) -> "TrainingState":
        recipe = make_recipe(settings)
        pictures = plan_pictures(recipe, scan_pictures(recipe))
        return assemble(recipe, pictures, Accelerator(cpu=True), None, StopRequest()).state

    return make


def _copied(value: Any) -> Any:
    return {key: _copied(item) for key, item in value.items()} if isinstance(value, dict) else value
