"""From a recipe's `model` or `refiner` section to the files behind it."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

from finetune.errors import RecipeError
from finetune.model.files import DiffusersFolder, ModelFiles
from finetune.model.geometry import existing_path
from finetune.model.miniature import Miniature
from finetune.model.single_file import SingleFile
from finetune.recipe.schema import FolderModel, HubModel, MiniatureModel, SingleFileModel

_PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")


def open_model(
    model: MiniatureModel | HubModel | FolderModel | SingleFileModel, *, refiner: bool | None = False
) -> ModelFiles:
    """Find the model's files; a hub id is downloaded to the hub's cache, as the user named it.

    Args:
        model: the recipe's section.
        refiner: whether it must be a refiner or a base; None takes either, as `model`.

    Raises:
        RecipeError: nothing there, not an SDXL model, or the hub cannot be reached and the cache does not hold it.
    """
    section = "refiner" if refiner else "model"
    files: ModelFiles
    match model:
        case MiniatureModel():
            files = Miniature(refiner=bool(refiner))
        case FolderModel(path=path, variant=variant):
            files = DiffusersFolder(existing_path(path, section), variant)
        case SingleFileModel(path=path, config=config):
            files = SingleFile(existing_path(path, section), None if config is None else existing_path(config, section))
        case HubModel():
            files = DiffusersFolder(_download(model, section), model.variant)
    if refiner is not None and files.has_first_encoder() == refiner:
        found, wanted = ("a base", "a refiner") if refiner else ("a refiner", "a base")
        raise RecipeError(f"{section}: this is {found} model; {wanted} is needed here")
    return files


def _download(model: HubModel, section: str) -> Path:
    ending = f".{model.variant}.safetensors" if model.variant else ".safetensors"
    patterns = ["model_index.json", *(f"{part}/*.json" for part in _PARTS), *(f"{part}/*.txt" for part in _PARTS)]
    patterns += [f"{part}/*{ending}" for part in _PARTS]
    ignored = [] if model.variant else ["*/*.fp16.safetensors", "*/*.non_ema.safetensors"]
    try:
        return Path(
            snapshot_download(model.id, revision=model.revision, allow_patterns=patterns, ignore_patterns=ignored)
        )
    except RepositoryNotFoundError as error:
        raise RecipeError(
            f"{section}.id: the hub has no model {model.id!r}, or it is private. "
            "Check the name, or log in with `hf auth login`."
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        raise RecipeError(
            f"{section}.id: {model.id!r} cannot be downloaded and is not in the hub's cache: "
            f"{str(error).partition(chr(10))[0]} "
            "Go online once, or give a folder or a single file."
        ) from error
