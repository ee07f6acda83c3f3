"""The sizes a model works in, read from its configurations: without torch, without weights, without the network."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import RecipeError
from finetune.model.single_file_header import file_kind
from finetune.recipe.schema import FolderModel, HubModel, MiniatureModel, Model, SingleFileModel

MINIATURE_FOLDER = Path(__file__).parent / "miniature"
SHIPPED_SETTINGS = Path(__file__).parent / "sdxl"
"""Configurations of SDXL's base and refiner, for checkpoints that come as one file."""


@dataclass(frozen=True)
class Geometry:
    """The sizes a model works in.

    Attributes:
        vae_factor: pixels a latent covers on a side: 8 for SDXL, 4 for the miniature.
        unet_factor: what latent sides must be multiples of.
        default_side: the side of the square picture the U-Net was made for, in pixels.
        unet_config: the U-Net's configuration.
    """

    vae_factor: int
    unet_factor: int
    default_side: int
    unet_config: dict[str, Any]

    @property
    def size_multiple(self) -> int:
        """What heights and widths of pictures must be multiples of. Pipelines check for 8 whatever the VAE."""
        return max(8, self.vae_factor * self.unet_factor)


@dataclass(frozen=True)
class KnownModel:
    """What can be said of a model that is on this machine before it is opened.

    Attributes:
        geometry: its sizes.
        has_first_encoder: whether it is a base; a refiner has only the second encoder.
    """

    geometry: Geometry
    has_first_encoder: bool


def look_at_model(model: Model, *, section: str = "model", refiner: bool = False) -> KnownModel | None:
    """Return what a model's configurations say; None for a hub model that is not downloaded whole.

    Args:
        model: the recipe's section.
        section: what it is called, for messages.
        refiner: whether the miniature's refiner is meant, not its base.

    Raises:
        RecipeError: there is no such folder or file, or it is no model.
    """
    match model:
        case MiniatureModel():
            return _of_folder(MINIATURE_FOLDER / ("refiner" if refiner else "base"))
        case FolderModel(path=path):
            return _of_folder(require_unet(existing_path(path, section)))
        case SingleFileModel(path=path, config=config):
            kind = file_kind(existing_path(path, section))
            settings = SHIPPED_SETTINGS / kind if config is None else existing_path(config, section)
            return KnownModel(read_geometry(settings), kind == "base")
        case HubModel():
            folder = _in_hub_cache(model)
            return None if folder is None else _of_folder(folder)


def existing_path(path: str, section: str) -> Path:
    """Return the path a recipe's model lies at.

    Raises:
        RecipeError: nothing is there.
    """
    found = Path(path).expanduser()
    if not found.exists():
        raise RecipeError(
            f"{section}: {found.absolute()} does not exist. Give the path of the model, or a hub id with kind: hub."
        )
    return found


def require_unet(root: Path) -> Path:
    """Return the folder of a model as diffusers saves it.

    Raises:
        RecipeError: it is none.
    """
    if not (root / "unet" / "config.json").is_file():
        raise RecipeError(
            f"{root} is no SDXL model as diffusers saves it: unet/config.json is missing. "
            "Give the folder that holds model_index.json, or use `kind: single_file` for a .safetensors checkpoint."
        )
    return root


def read_geometry(root: Path) -> Geometry:
    """Read the sizes a model works in from its configurations."""
    unet = read_json(root / "unet" / "config.json")
    vae = read_json(root / "vae" / "config.json")
    vae_factor = 2 ** (len(vae["block_out_channels"]) - 1)
    return Geometry(
        vae_factor=vae_factor,
        unet_factor=2 ** (len(unet["block_out_channels"]) - 1),
        default_side=unet["sample_size"] * vae_factor,
        unet_config=unet,
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read one of a model folder's JSON files.

    Raises:
        RecipeError: it is missing or no JSON.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise RecipeError(f"{path} cannot be read: {error}. Every diffusers model folder has this file.") from error
    return content


def _of_folder(root: Path) -> KnownModel:
    return KnownModel(read_geometry(root), (root / "text_encoder" / "config.json").is_file())


def _in_hub_cache(model: HubModel) -> Path | None:
    """Return the model's folder in the hub's cache where its configurations are there; nothing is fetched."""
    from huggingface_hub import try_to_load_from_cache

    # Settings are fetched before weights; the second encoder's are the last that say what kind of model it is.
    names = ("unet/config.json", "vae/config.json", "text_encoder_2/config.json", "model_index.json")
    found = [try_to_load_from_cache(model.id, name, revision=model.revision) for name in names]
    if not all(isinstance(path, str) for path in found):
        return None
    root = Path(str(found[-1])).parent
    wants_first = (read_json(root / "model_index.json").get("text_encoder") or [None])[0] is not None
    return None if wants_first and not (root / "text_encoder" / "config.json").is_file() else root
