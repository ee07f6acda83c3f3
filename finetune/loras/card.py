"""The card of any LoRA file, from what its header says: `<file>-card/` with README.md, pictures, and the file's link.

What the header does not say can be given. A file of this kit that still lies among its run's exports gets the run's
previews; pictures drawn by `atelier generate` bring their prompts. As for a run, nothing that names folders, captions
or paths is taken over.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.errors import AtelierError, RecipeError
from finetune.export.card import CardContent, Shown, write_card_folder
from finetune.export.run_card import newest_pictures
from finetune.recipe import load_recipe, parse_recipe
from finetune.recipe.schema import HubModel, Recipe
from finetune.run.folder import RunFolder
from finetune.tensors.header import read_metadata

CARD_ENDING = "-card"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_LONGEST = 500

# Header string → what the card calls it.
_FIGURES = {
    "ss_num_train_images": "Pictures, with repeats",
    "ss_steps": "Steps",
    "ss_total_batch_size": "Pictures a step",
    "ss_network_dim": "Rank",
    "ss_network_alpha": "Alpha",
    "ss_unet_lr": "Learning rate",
    "ss_lr_scheduler": "Schedule",
    "ss_optimizer": "Optimizer",
    "modelspec.resolution": "Resolution",
    "ss_mixed_precision": "Precision",
}


@dataclass(frozen=True)
class CardWords:
    """What is given for a card, in place of what the file says; None leaves that as it is.

    Attributes:
        title, author, license, trigger: words about the LoRA.
        base_model: the base's id on the hub.
    """

    title: str | None = None
    author: str | None = None
    license: str | None = None
    trigger: str | None = None
    base_model: str | None = None

    def __post_init__(self) -> None:
        if self.base_model is not None and not _HUB_ID.fullmatch(self.base_model):
            raise RecipeError(f"--base-model {self.base_model!r}: needs a hub id, as owner/name")


def card_folder(path: Path) -> Path:
    """Return where a file's card lies."""
    return path.with_name(path.stem + CARD_ENDING)


def write_file_card(path: Path, words: CardWords, pictures: Sequence[Path]) -> tuple[Path, ...]:
    """Write the card of a LoRA file beside it; an older one is replaced.

    Args:
        path: the `.safetensors` file.
        words: what is given.
        pictures: of the gallery, in order; none takes the previews of the run that the file lies in, if it does.

    Returns:
        README.md, and the pictures.

    Raises:
        AtelierError: the file cannot be trusted, or a picture cannot be read.
        DiskError: the disk refuses.
    """
    metadata = read_metadata(path)
    shown = [_shown(index, picture) for index, picture in enumerate(pictures, start=1)]
    content = content_of_file(path, metadata, words, shown or run_pictures(path, metadata))
    return write_card_folder(card_folder(path), content)


def content_of_file(
    path: Path, metadata: Mapping[str, str], words: CardWords, pictures: Sequence[Shown]
) -> CardContent:
    """Return what the card of a file says."""

    def chosen(given: str | None, *keys: str) -> str:
        found = next((metadata[key] for key in keys if metadata.get(key)), "")
        return found[:_LONGEST] if given is None else given

    trigger = chosen(words.trigger, "modelspec.trigger_phrase")
    recipe = recipe_of(metadata)
    figures = {name: metadata[key][:_LONGEST] for key, name in _FIGURES.items() if metadata.get(key)}
    return CardContent(
        name=path.stem,
        title=chosen(words.title, "modelspec.title", "ss_output_name"),
        author=chosen(words.author, "modelspec.author"),
        license=chosen(words.license, "modelspec.license"),
        trigger=trigger,
        base_id=words.base_model or _base_id(recipe, metadata),
        base_words=_base_words(metadata),
        files=[path.name],
        prompt=pictures[0].prompt if pictures else trigger,
        figures=figures,
        pictures=pictures,
        predicts_v=metadata.get("modelspec.prediction_type") == "v",
        has_zero_terminal_snr=metadata.get("ss_zero_terminal_snr") == "True",
        trained_here="atelier_version" in metadata,
    )


def recipe_of(metadata: Mapping[str, str]) -> Recipe | None:
    """Return the recipe in a file's header; None where there is none, or none that this version reads."""
    if "atelier_recipe" not in metadata:
        return None
    try:
        return parse_recipe(metadata["atelier_recipe"])
    except RecipeError:
        return None  # a stranger's, or a later version's: the header's other strings say enough


def run_pictures(path: Path, metadata: Mapping[str, str]) -> list[Shown]:
    """Return the newest previews of the run whose `exports` a file lies in, up to its step; none elsewhere."""
    folder = path.resolve().parent
    if folder.name != "exports" or not (folder.parent / "recipe.yaml").is_file():
        return []
    run = RunFolder(folder.parent)
    steps = metadata.get("ss_steps", "")
    return newest_pictures(run, load_recipe(str(run.recipe)), int(steps) if steps.isdecimal() else None)


def _shown(index: int, picture: Path) -> Shown:
    if not picture.is_file():
        raise RecipeError(f"--picture {picture}: there is no such file. Give a PNG, JPEG or WebP")
    prompt, negative_prompt = drawn_with(picture)
    return Shown(picture, f"images/{index:02d}.jpg", prompt or picture.stem, negative_prompt)


def drawn_with(picture: Path) -> tuple[str, str]:
    """Return the prompt and the negative prompt that a picture of ours says it was drawn with; empty where it does not.

    Raises:
        AtelierError: it is no picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(picture, formats=["PNG", "JPEG", "WEBP"]) as opened:
            said = opened.info.get("atelier")
    except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise AtelierError(f"{picture}: is no picture that can be read: {error}") from error
    try:
        settings = json.loads(said) if isinstance(said, str) else {}
    except (ValueError, RecursionError):
        return "", ""
    found = settings if isinstance(settings, dict) else {}
    prompt, negative = found.get("prompt"), found.get("negative_prompt")
    return prompt if isinstance(prompt, str) else "", negative if isinstance(negative, str) else ""


def _base_id(recipe: Recipe | None, metadata: Mapping[str, str]) -> str | None:
    if recipe is not None and isinstance(recipe.model, HubModel):
        return recipe.model.id
    named = metadata.get("ss_sd_model_name", "")
    return named if _HUB_ID.fullmatch(named) and not named.endswith(".safetensors") else None


def _base_words(metadata: Mapping[str, str]) -> str:
    named = metadata.get("ss_sd_model_name", "")
    if named == "miniature":
        return "for the miniature that Atelier brings"
    return f"for {named[:_LONGEST]}" if named else ""
