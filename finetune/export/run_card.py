"""The card of a run's export: what its recipe, facts and previews have to say.

    exports/<name>-card/
      README.md      a head of YAML that the hub reads, and words for people
      images/        the newest previews with the LoRA up to its step, made small, without the settings PNGs carry

To publish, put README.md, images/ and the exported file into one repository (`atelier lora push` does). No path of the
machine, no name of a folder and no caption is written; with `export.metadata: minimal` no trigger words, prompts,
pictures and figures of the training either. It does not write the LoRA.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.export.card import CardContent, Shown, render_card, write_card_folder
from finetune.recipe.schema import HubModel, MiniatureModel, Recipe, SmallAdapter
from finetune.run.folder import RunFolder

if TYPE_CHECKING:
    from finetune.export.metadata import ExportFacts

MOST_PICTURES = 12

_PICTURE = re.compile(r"(?P<prompt>[0-9]{2,4})-lora\.png", re.ASCII)
_STEP = re.compile(r"step-(?P<step>[0-9]{6,9})", re.ASCII)


def write_card(run: RunFolder, recipe: Recipe, facts: "ExportFacts", files: Sequence[Path]) -> tuple[Path, ...]:
    """Write the card of a run's export, whole or not at all; an older one of the same name is replaced.

    Args:
        run: the run, for its previews.
        recipe: its resolved recipe, of an adapter.
        facts: what is known about the export.
        files: what was exported.

    Returns:
        README.md, and the pictures.

    Raises:
        AtelierError: a preview cannot be read.
        DiskError: the disk refuses.
    """
    names = [path.relative_to(run.exports).as_posix() for path in files]
    content = content_of_run(recipe, facts, names, newest_pictures(run, recipe, facts.steps))
    return write_card_folder(run.exports / f"{facts.name}-card", content)


def card_text(recipe: Recipe, facts: "ExportFacts", files: Sequence[str], pictures: Sequence[Shown]) -> str:
    """Return the whole README.md."""
    return render_card(content_of_run(recipe, facts, files, pictures))


def content_of_run(
    recipe: Recipe, facts: "ExportFacts", files: Sequence[str], pictures: Sequence[Shown]
) -> CardContent:
    """Return what the card says; as little as possible where the recipe asks for minimal metadata."""
    minimal = recipe.export.metadata == "minimal"
    base_words = "" if minimal else f"for {facts.base_model}"
    if isinstance(recipe.model, MiniatureModel):
        base_words = "for the miniature that Atelier brings"
    return CardContent(
        name=facts.name,
        title=facts.title,
        author=facts.author,
        license=facts.license,
        trigger="" if minimal else facts.trigger,
        base_id=recipe.model.id if isinstance(recipe.model, HubModel) else None,
        base_words=base_words,
        files=files,
        prompt="" if minimal else pictures[0].prompt if pictures else facts.trigger,
        figures={} if minimal else _figures(recipe, facts),
        pictures=[] if minimal else pictures,
        predicts_v=facts.prediction_type == "v_prediction",
        has_zero_terminal_snr=facts.zero_terminal_snr,
    )


def newest_pictures(run: RunFolder, recipe: Recipe, step: int | None) -> list[Shown]:
    """Return the newest previews drawn with the LoRA that are no newer than `step`, with their prompts."""
    folders = [
        (int(match["step"]), path) for path in run.previews.glob("step-*") if (match := _STEP.fullmatch(path.name))
    ]
    for made_at, folder in sorted(folders, reverse=True):
        found = [_shown(path, recipe) for path in sorted(folder.iterdir())] if step is None or made_at <= step else []
        pictures = [picture for picture in found if picture is not None]
        if pictures:
            return pictures[:MOST_PICTURES]
    return []


def _figures(recipe: Recipe, facts: "ExportFacts") -> dict[str, str]:
    """Return the training in figures and words of ours; what is not known is left out."""
    adapter = recipe.adapter
    assert isinstance(adapter, SmallAdapter), "a card is an adapter's"
    parts = {"U-Net": adapter.unet, "text encoder": adapter.text_encoder, "text encoder 2": adapter.text_encoder_2}
    trained = {name: part for name, part in parts.items() if part is not None}
    height, width = facts.resolution
    steps = None if facts.steps is None else f"{facts.steps:,}" + _of(facts.steps, facts.max_steps)
    rows: dict[str, str | None] = {
        "Pictures": _count(sum(pictures for _, pictures in facts.folders.values())),
        "Steps": steps,
        "Pictures a step": _count(facts.global_batch_size),
        "Rank": _each({name: str(part.rank) for name, part in trained.items()}),
        "Alpha": _each({name: f"{part.alpha or part.rank:g}" for name, part in trained.items()}),
        "Learning rate": _each({name: f"{part.learning_rate:g}" for name, part in trained.items()}),
        "Schedule": facts.lr_schedule or None,
        "Optimizer": facts.optimizer or None,
        "Resolution": f"{width} x {height} pixels, in buckets of its area",
        "Precision": facts.precision or None,
    }
    return {name: value for name, value in rows.items() if value is not None}


def _of(steps: int, total: int | None) -> str:
    return "" if total is None or total == steps else f" of {total:,}"


def _count(number: int) -> str | None:
    return f"{number:,}" if number else None


def _each(values: Mapping[str, str]) -> str:
    """Return one value where all parts have the same, else each with its part."""
    if len(set(values.values())) == 1 and len(values) == 1:
        return next(iter(values.values()))
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _shown(path: Path, recipe: Recipe) -> Shown | None:
    """Return a preview with its prompt, or None where the file is none that was drawn with the LoRA."""
    match = _PICTURE.fullmatch(path.name)
    prompts = recipe.preview.prompts
    if match is None or path.is_symlink() or not path.is_file() or not 1 <= int(match["prompt"]) <= len(prompts):
        return None
    prompt = prompts[int(match["prompt"]) - 1]
    return Shown(path, f"images/{match['prompt']}.jpg", prompt.prompt, prompt.negative_prompt)
