"""A file's model is found by its shapes."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from finetune.errors import RecipeError
from finetune.model.structure import MODEL_WORDS, named_structure
from finetune.naming.keys import kohya_stem
from finetune.naming.structure import SDXL_BASE, SDXL_REFINER, ModelStructure
from finetune.readers.which_model import fitting_structure, structure_for


def write(path: Path, structure: ModelStructure, components: tuple[str, ...], every: int = 7) -> Path:
    """A kohya file of rank one with every seventh module."""
    tensors = {}
    for (component, module), shape in list(structure.weights.items())[::every]:
        if component in components and module != "text_projection":
            stem = kohya_stem(component, module, structure.unet.layout)
            tensors[f"{stem}.lora_down.weight"] = np.zeros((1, *shape[1:]), np.float16)
            tensors[f"{stem}.lora_up.weight"] = np.zeros((shape[0], 1, *[1] * (len(shape) - 2)), np.float16)
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("word", MODEL_WORDS)
@pytest.mark.parametrize("components", [("unet",), ("unet", "text_encoder", "text_encoder_2")])
def test_each_known_model_is_told_apart(word: str, components: tuple[str, ...], tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", named_structure(word), components)
    assert fitting_structure(path) == named_structure(word)


def test_what_fits_several_is_the_bases_and_what_is_said_goes_first(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", SDXL_REFINER, ("text_encoder_2",), every=1)
    assert fitting_structure(path) == SDXL_BASE
    assert structure_for("refiner", path) == SDXL_REFINER
    save_file({"nobody.knows.it": np.zeros(3)}, tmp_path / "strange.safetensors")
    assert structure_for("auto", tmp_path / "strange.safetensors") == SDXL_BASE
    with pytest.raises(RecipeError, match="--model 'sdxl'"):
        structure_for("sdxl", path)
