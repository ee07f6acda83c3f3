"""What the header of a checkpoint in one file says: its tensors' names, and so what it is. Torch is not needed."""

from pathlib import Path
from typing import Literal

from safetensors import SafetensorError, safe_open

from finetune.errors import RecipeError

_BASE_KEY = "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias"
_REFINER_KEY = "conditioner.embedders.0.model.transformer.resblocks.9.mlp.c_proj.bias"


def file_kind(path: Path) -> Literal["base", "refiner"]:
    """Return which SDXL model a checkpoint is.

    Raises:
        RecipeError: it is none, or cannot be read.
    """
    return kind_of(path, tensor_names(path))


def kind_of(path: Path, names: set[str]) -> Literal["base", "refiner"]:
    """Return which SDXL model has tensors of these names. Raises RecipeError for none."""
    if _BASE_KEY in names:
        return "base"
    if _REFINER_KEY in names:
        return "refiner"
    raise RecipeError(
        f"{path} is no SDXL checkpoint in the original layout: {_BASE_KEY} is not in it. "
        f"It holds {len(names)} tensors, the first named {min(names, default='(none)')!r}."
    )


def tensor_names(path: Path) -> set[str]:
    """Return the names of a checkpoint's tensors.

    Raises:
        RecipeError: it is no safetensors file, or cannot be read.
    """
    if path.suffix != ".safetensors":
        raise RecipeError(
            f"{path}: only .safetensors checkpoints are read; {path.suffix or 'a file without an ending'} may be a "
            "pickle, which can run code. Convert it in the program it came from."
        )
    try:
        with safe_open(path, framework="np") as file:
            return set(file.keys())
    except FileNotFoundError as error:
        raise RecipeError(f"{path} does not exist. Give the path of a .safetensors checkpoint.") from error
    except (OSError, SafetensorError) as error:
        raise RecipeError(f"{path} is not a readable .safetensors file: {error}. It may be cut short.") from error
