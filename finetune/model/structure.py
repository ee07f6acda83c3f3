"""Which model is meant where a LoRA file stands alone: by a word, or by the folder of its configurations. No torch."""

from pathlib import Path

from finetune.errors import RecipeError
from finetune.model.geometry import MINIATURE_FOLDER, read_json, require_unet
from finetune.naming.structure import SDXL_BASE, SDXL_REFINER, ModelStructure, TextStructure, UNetStructure

MODEL_WORDS = ("base", "refiner", "miniature", "miniature-refiner")


def named_structure(word: str) -> ModelStructure:
    """Return a model's structure.

    Args:
        word: 'base' and 'refiner' for SDXL's own, 'miniature' and 'miniature-refiner' for those that ship with the
            kit, or a folder as diffusers saves a model; its configurations are enough.

    Raises:
        RecipeError: it is none of these.
    """
    match word:
        case "base":
            return SDXL_BASE
        case "refiner":
            return SDXL_REFINER
        case "miniature":
            return read_structure(MINIATURE_FOLDER / "base")
        case "miniature-refiner":
            return read_structure(MINIATURE_FOLDER / "refiner")
        case _ if Path(word).expanduser().is_dir():
            return read_structure(Path(word).expanduser())
    raise RecipeError(
        f"--model {word!r}: needs {', '.join(MODEL_WORDS)}, or the folder of a model as diffusers saves it"
    )


def read_structure(root: Path) -> ModelStructure:
    """Return the structure that the configurations in a model's folder describe.

    Raises:
        RecipeError: they are missing, or not those of SDXL's parts.
    """
    require_unet(root)
    first = root / "text_encoder" / "config.json"
    try:
        return ModelStructure(
            UNetStructure.from_config(read_json(root / "unet" / "config.json")),
            TextStructure.from_config(read_json(first), projected=False) if first.is_file() else None,
            TextStructure.from_config(read_json(root / "text_encoder_2" / "config.json"), projected=True),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RecipeError(f"{root}: its configurations are not those of an SDXL model: {error} is missing") from error
