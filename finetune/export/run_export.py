"""Export a run: what was trained, from its parameters, and what is known about it, from its folder."""

import math
import re
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

import finetune
from finetune.adapters.trained import trained_modules
from finetune.errors import AtelierError
from finetune.export.card import small_copy
from finetune.export.folder import export_folder
from finetune.export.metadata import ExportFacts, build_metadata
from finetune.export.registry import export_adapter, get_exporter
from finetune.export.run_card import newest_pictures, write_card
from finetune.model.open import open_model
from finetune.naming.components import COMPONENTS
from finetune.naming.structure import ModelStructure
from finetune.readers.proof import Proof, prove, require_whole
from finetune.recipe import Recipe, dump_recipe
from finetune.recipe.schema import (
    FolderModel,
    FullTraining,
    GeneratedBuckets,
    HubModel,
    ListedBuckets,
    SingleFileModel,
    SmallAdapter,
    VaeTraining,
)
from finetune.run.events import read_events
from finetune.run.folder import RunFolder
from imagesets.emphasis import plain_text
from imagesets.manifest import read_manifest

THUMBNAIL_SIDE_PX = 256
"""As large as ModelSpec 1.0.1 allows."""


@dataclass(frozen=True)
class Exported:
    """What an export has written.

    Attributes:
        files: every file, or the folder of a whole model.
        proofs: what other programs make of a LoRA's files, one proof a format; none of a whole model.
    """

    files: tuple[Path, ...]
    proofs: tuple[Proof, ...] = ()


def export_run(
    run: RunFolder,
    recipe: Recipe,
    parameters: Mapping[str, Tensor],
    step: int,
    *,
    facts: Mapping[str, Any],
    optimizer: str,
    expected: Mapping[str, int],
) -> Exported:
    """Write what was trained after `step` optimizer steps under the run's `exports`, as `adapter.kind` has it.

    The files of a LoRA are then held against the rules of every program that reads them.

    Args:
        run: the run's folder, with its manifest and events.
        recipe: the resolved recipe.
        parameters: the trainable parameters as a checkpoint names them.
        step: how many optimizer steps they have had; files of an unfinished run carry it in their name.
        facts: what the task says of itself: `prediction_type`, 'epsilon' or 'v_prediction', as trained.
        optimizer: the optimizer's name, as it ran.
        expected: how many modules of each model were trained; fewer or more in a file is a slip of ours.

    Raises:
        AtelierError: it cannot be written so, or a program that a file is meant for would take it in part: that file is
            removed again.
        DiskError: the disk refuses.
    """
    name = export_name(recipe, step)
    match recipe.adapter:
        case SmallAdapter():
            known = run_facts(run, recipe, step, facts["prediction_type"], optimizer)
            return export_lora(run, recipe, parameters, name, known, expected)
        case FullTraining() | VaeTraining():
            written = export_folder(
                open_model(recipe.model, refiner=None),
                parameters,
                run.exports / name,
                precision=recipe.export.precision,
                prediction_type=facts.get("prediction_type"),
                zero_terminal_snr=recipe.training.objective.zero_terminal_snr,
            )
            return Exported(written)


def export_card(
    run: RunFolder, recipe: Recipe, step: int, files: Sequence[Path], *, facts: Mapping[str, Any], optimizer: str
) -> tuple[Path, ...]:
    """Write the card of an exported LoRA as `finetune.export.card` has it; the arguments are `export_run`'s.

    Args:
        run: the run's folder.
        recipe: the resolved recipe.
        step: which step was exported.
        files: what was exported.
        facts: what the task says of itself.
        optimizer: the optimizer's name, as it ran.

    Raises:
        AtelierError: a preview cannot be read.
        DiskError: the disk refuses.
    """
    known = run_facts(run, recipe, step, facts["prediction_type"], optimizer)
    return write_card(run, recipe, replace(known, name=export_name(recipe, step)), files)


def export_name(recipe: Recipe, step: int) -> str:
    """Return what the files of a step are called; before the last step they carry it in their name."""
    return recipe.name if step == recipe.training.steps else f"{recipe.name}-step-{step:06d}"


def export_lora(
    run: RunFolder,
    recipe: Recipe,
    parameters: Mapping[str, Tensor],
    name: str,
    facts: ExportFacts,
    expected: Mapping[str, int],
) -> Exported:
    """Write a trained adapter in the recipe's formats, and prove each; the errors are `export_run`'s."""
    assert isinstance(recipe.adapter, SmallAdapter), "only adapters have these formats"
    modules = trained_modules(parameters, recipe.adapter)
    structure = open_model(recipe.model, refiner=None).structure()
    facts = replace(facts, is_refiner=structure.text_encoder is None)
    written = export_adapter(
        modules,
        run.exports,
        name,
        formats=recipe.export.formats,
        precision=recipe.export.precision,
        layout=structure.unet.layout,
        metadata=build_metadata(facts, modules, recipe.export.metadata),
        expected={component: expected.get(component, 0) for component in COMPONENTS},
    )
    places = {name_of: get_exporter(name_of).place(run.exports, name) for name_of in written}
    proofs = tuple(proved(place, structure) for place in places.values())
    return Exported(tuple(path for paths in written.values() for path in paths), proofs)


def proved(place: Path, structure: ModelStructure) -> Proof:
    """Return the proof of a file or of peft's folder; what is not read whole does not stay."""
    proof = prove(place, structure)
    try:
        require_whole(proof)
    except AtelierError:
        remove_export(place)
        raise
    return proof


def remove_export(place: Path) -> None:
    """Remove what was just written: a file, or a folder of peft's."""
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink()


def run_facts(run: RunFolder, recipe: Recipe, step: int, prediction_type: str, optimizer: str) -> ExportFacts:
    """Gather what is known about a run from its recipe, manifest and events."""
    lines = [line for line in read_manifest(run.manifest) if "stream" not in line]  # of a stream no picture is listed
    num_images = sum(line["repeats"] for line in lines)
    starts = [event for event in read_events(run.events)[0] if event["kind"] == "run_started"]
    steps_per_epoch = starts[-1]["steps_per_epoch"]
    adapter, training = recipe.adapter, recipe.training
    assert isinstance(adapter, SmallAdapter), "these facts are an adapter's"
    encoders = [section for section in (adapter.text_encoder, adapter.text_encoder_2) if section is not None]
    triggers = [source.trigger for source in recipe.data.sources if source.trigger]
    return ExportFacts(
        name=recipe.name,
        recipe=without_home(dump_recipe(recipe)),
        title=recipe.export.title,
        author=recipe.export.author,
        license=recipe.export.license,
        trigger=", ".join(triggers),
        thumbnail=_thumbnail(run, recipe, step),
        base_model=_model_name(recipe),
        prediction_type="v_prediction" if prediction_type == "v_prediction" else "epsilon",
        resolution=_resolution(recipe),
        bucket_counts=_bucket_counts(lines),
        tag_frequency=_tag_frequency(lines, weighted=training.weighted_captions),
        folders=_folders(lines),
        num_images=num_images or None,
        steps=step,
        max_steps=training.steps,
        epoch=None if steps_per_epoch is None else -(-step // steps_per_epoch),
        num_epochs=None if steps_per_epoch is None else -(-training.steps // steps_per_epoch),
        micro_batch_size=training.micro_batch_size,
        global_batch_size=training.global_batch_size,
        gradient_checkpointing=training.gradient_checkpointing,
        unet_learning_rate=None if adapter.unet is None else adapter.unet.learning_rate,
        text_encoder_learning_rates=tuple(encoder.learning_rate for encoder in encoders),
        optimizer=optimizer,
        lr_schedule=training.lr_schedule.kind,
        warmup_steps=training.lr_schedule.warmup_steps,
        max_grad_norm=training.max_grad_norm,
        caption_dropout=training.caption_dropout,
        max_caption_tokens=training.max_caption_tokens,
        weighted_captions=training.weighted_captions,
        precision=training.precision,
        seed=recipe.seed,
        snr_gamma=training.objective.snr_gamma,
        noise_offset=training.objective.noise_offset,
        zero_terminal_snr=training.objective.zero_terminal_snr,
        started_at=starts[0]["time"],
        finished_at=time.time(),
        version=finetune.__version__,
    )


def without_home(recipe: str) -> str:
    """Return a recipe's text with `~` for the home folder, whose name is a person's: it means the same to that person.

    Only where a path begins: behind a space, a quote, a bracket or a comma.
    """
    home = Path.home().as_posix()
    return re.sub(rf"(?<=[\s'\"\[,]){re.escape(home)}(?=/)", "~", recipe) if len(home) > 1 else recipe


def _thumbnail(run: RunFolder, recipe: Recipe, step: int) -> bytes | None:
    """Return the first of the newest previews with the adapter, small; None where none was drawn."""
    for picture in newest_pictures(run, recipe, step):
        try:
            return small_copy(picture.source, THUMBNAIL_SIDE_PX)
        except AtelierError:
            continue  # a damaged preview is no reason not to export
    return None


def _model_name(recipe: Recipe) -> str:
    match recipe.model:
        case HubModel(id=name):
            return name
        case FolderModel(path=path) | SingleFileModel(path=path):
            return Path(path).name
        case _:
            return "miniature"


def _resolution(recipe: Recipe) -> tuple[int, int]:
    buckets = recipe.data.buckets
    side = 1024
    if isinstance(buckets, GeneratedBuckets):
        side = buckets.resolution
    elif isinstance(buckets, ListedBuckets):  # the square of their mean area
        side = round(math.sqrt(sum(math.prod(size) for size in buckets.sizes) / len(buckets.sizes)))
    return (side, side)


def _bucket_counts(lines: list[dict[str, Any]]) -> dict[tuple[int, int], int]:
    counts: Counter[tuple[int, int]] = Counter()
    for line in lines:
        height, width = line["bucket"]
        counts[height, width] += line["repeats"]
    return dict(counts)


def _tag_frequency(lines: list[dict[str, Any]], *, weighted: bool) -> dict[str, dict[str, int]]:
    """Count comma-separated tags by folder, as kohya does; brackets that weigh belong to no tag."""
    tags: dict[str, Counter[str]] = {}
    for line in lines:
        counter = tags.setdefault(_folder(line), Counter())
        caption = plain_text(line["caption"]) if weighted else line["caption"]
        counter.update(tag.strip().lower() for tag in caption.split(",") if tag.strip())
    return {folder: dict(counter) for folder, counter in tags.items()}


def _folders(lines: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    pictures: Counter[str] = Counter(_folder(line) for line in lines)
    return {_folder(line): (line["repeats"], pictures[_folder(line)]) for line in lines}


def _folder(line: dict[str, Any]) -> str:
    return str(line["source"])
