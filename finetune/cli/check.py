"""`atelier check`: everything that can be known before the first step, all problems at once."""

import argparse
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from finetune.cli.arguments import add_json_argument, add_recipe_arguments
from finetune.cli.output import print_json
from finetune.run.quiet import quiet_libraries

if TYPE_CHECKING:
    from finetune.errors import AtelierError
    from finetune.recipe import Recipe
    from finetune.training.pictures import TrainingPictures
    from imagesets.inspection import Finding, TokenCount
    from imagesets.scan import ScanReport

_SHOWN = 50
TOLD_APART = ("unusable", "no_pictures", "passed_over")
"""Kinds of findings that have lines of their own here."""


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "check",
        help="check a recipe and its pictures",
        description="Say everything that can be known before the first step: the recipe's problems, every picture "
        "that cannot be used, the buckets and the steps.",
    )
    add_recipe_arguments(parser)
    add_json_argument(parser)
    parser.set_defaults(
        run=lambda arguments: check_recipe(arguments.recipe, arguments.overrides, as_json=arguments.json)
    )


def check_recipe(reference: str, overrides: Sequence[str], *, as_json: bool, with_model: bool = False) -> int:
    """Print what a run would meet; return 0, or the exit code of a run that would stop before its first step.

    Args:
        reference: the recipe.
        overrides: settings to replace.
        as_json: print one JSON object.
        with_model: look at the model's files too, which may download a hub model that the recipe names.
    """
    from finetune.recipe import load_recipe, recipe_warnings

    recipe = load_recipe(reference, overrides)  # first, and alone: a mistake in it is told at once
    from finetune.training.data import plan_pictures, scan_pictures
    from finetune.training.inspecting import training_plan
    from finetune.training.stops import find_stops
    from imagesets.inspection import find_without_looking

    warnings = recipe_warnings(recipe)
    report = scan_pictures(recipe)
    pictures = plan_pictures(recipe, report) if report.samples else None
    stops = find_stops(recipe, pictures)
    plan = training_plan(recipe, pictures, steps=recipe.training.steps)
    found = find_without_looking(report, plan, partial(count_long, recipe))
    is_unusable = not report.samples or (bool(report.bad) and recipe.data.on_bad_image == "stop")
    can_start = not (is_unusable or stops)
    if with_model and can_start and pictures is not None:
        check_model(recipe, pictures)
    if as_json:
        print_json(findings(recipe, report, pictures, warnings, found, stops))
    else:
        print(as_text(recipe, report, pictures, warnings, found, stops))
        if can_start:
            print(last_words(reference, with_model=with_model))
    if can_start:
        return 0
    return 3 if is_unusable else stops[0].exit_code  # as a run, which looks at the pictures first


def count_long(recipe: "Recipe", captions: Sequence[str]) -> "list[tuple[TokenCount, ...]]":
    """Count the tokens of captions that may be longer than is read; of the others none, as that takes its time."""
    from finetune.errors import RecipeError
    from finetune.model.text_tokens import CHUNK_TOKENS, reading_of
    from finetune.model.token_counts import open_token_counter

    # A token is a byte at least, and of two chunks that follow each other the words fill more than one.
    shortest = max(CHUNK_TOKENS, recipe.training.max_caption_tokens // 2)
    long = [caption for caption in dict.fromkeys(captions) if len(caption.encode("utf-8", "replace")) > shortest]
    if not long or recipe.adapter.kind == "vae":
        return [()] * len(captions)
    try:
        counter = open_token_counter(recipe.model, reading_of(recipe.training))
    except RecipeError:  # of a model that is not there, which is told where the model is looked at
        return [()] * len(captions)
    counted = dict(zip(long, counter(long), strict=True))
    return [counted.get(caption, ()) for caption in captions]


def last_words(reference: str, *, with_model: bool) -> str:
    """Say what was looked at, or what still is to be, and where more is shown."""
    model = (
        "The model's files were looked at, too: nothing stands in a run's way."
        if with_model
        else f"The model's weights are looked at by: atelier train {reference} --dry-run"
    )
    return f"{model}\nEach picture, its cut and its words: atelier data inspect {reference} --html pictures.html"


def told(found: "Sequence[Finding]", *severities: str) -> list[str]:
    """Return a line for each finding of these severities that has none of its own here."""
    return [finding.line() for finding in found if finding.severity in severities and finding.kind not in TOLD_APART]


def check_model(recipe: "Recipe", pictures: "TrainingPictures") -> None:
    """Look at the model's files as a run would.

    Raises:
        AtelierError: what a run would stop at.
    """
    quiet_libraries()
    from finetune.model.files import noise_scheduler
    from finetune.model.open import open_model
    from finetune.model.precision import choose_device, choose_dtype
    from finetune.preview.requests import resolve_requests
    from finetune.training.components import open_trained_model
    from finetune.training.objective import build_objective
    from finetune.training.stops import require_fitting_buckets

    choose_dtype(recipe.training.precision, choose_device(recipe.training.device))
    files = open_trained_model(recipe)
    if recipe.refiner is not None:
        open_model(recipe.refiner, refiner=True)
    objective = recipe.training.objective
    build_objective(objective, noise_scheduler(files, zero_terminal_snr=objective.zero_terminal_snr))
    geometry = files.geometry()
    require_fitting_buckets(pictures.used_buckets(), geometry.size_multiple)
    resolve_requests(recipe.preview.prompts, geometry)


def findings(
    recipe: "Recipe",
    report: "ScanReport",
    pictures: "TrainingPictures | None",
    warnings: Sequence[str],
    found: "Sequence[Finding]",
    stops: "Sequence[AtelierError]",
) -> dict[str, Any]:
    """Return what was found as plain data."""
    from imagesets.inspection.as_data import finding_as_data

    data: dict[str, Any] = {
        "recipe": recipe.name,
        "pictures": len(report.samples),
        "bad_pictures": [{"source": bad.source, "name": bad.name, "reason": bad.reason} for bad in report.bad],
        "notes": [
            {"source": note.source, "name": note.name, "kind": note.kind, "text": note.text} for note in report.notes
        ],
        "ignored_files": len(report.ignored),
        "warnings": [*warnings, *told(found, "error", "warning")],
        "stops": [str(stop) for stop in stops],
        "findings": [finding_as_data(finding) for finding in found],
        "steps": recipe.training.steps,
    }
    if pictures is not None:
        if not report.is_beginning:
            data["steps_per_epoch"] = pictures.steps_per_epoch
            data["epochs"] = round(recipe.training.steps / pictures.steps_per_epoch, 2)
        data["buckets"] = [
            {"height": height, "width": width, "pictures": count}
            for (height, width), count in sorted(bucket_counts(pictures).items())
        ]
    return data


def bucket_counts(pictures: "TrainingPictures") -> Counter[tuple[int, int]]:
    """Count the pictures of each bucket."""
    return Counter(pictures.bucket_of(index) for index in range(len(pictures.samples)))


def as_text(
    recipe: "Recipe",
    report: "ScanReport",
    pictures: "TrainingPictures | None",
    warnings: Sequence[str],
    found: "Sequence[Finding]",
    stops: "Sequence[AtelierError]",
) -> str:
    """Write what was found for a person."""
    lines = [f"{recipe.name}: {recipe.purpose}" if recipe.purpose else recipe.name]
    ignored = f", {len(report.ignored)} other files" if report.ignored else ""
    first = " of the first ones; the rest is read as it comes" if report.is_beginning else ""
    lines.append(f"  pictures   {len(report.samples)} usable, {len(report.bad)} not{ignored}{first}")
    if pictures is not None and report.is_beginning:
        lines.append(f"  steps      {recipe.training.steps} of {recipe.training.global_batch_size} pictures")
    elif pictures is not None:
        epochs = recipe.training.steps / pictures.steps_per_epoch
        lines.append(
            f"  steps      {recipe.training.steps} of {recipe.training.global_batch_size} pictures, "
            f"{pictures.steps_per_epoch} an epoch: {epochs:.1f} epochs"
        )
    if pictures is not None:
        lines.append("  buckets    height x width")
        largest = max(bucket_counts(pictures).values())
        for (height, width), count in sorted(bucket_counts(pictures).items()):
            bar = "█" * max(1, round(24 * count / largest))
            lines.append(f"    {height:>5} x {width:<5} {count:>5}  {bar}")
    lines += [f"  stops      {stop}" for stop in stops]
    lines += [f"  error      {line}" for line in told(found, "error")]
    lines += [f"  warning    {line}" for line in [*warnings, *told(found, "warning")]]
    lines += [f"  note       {line}" for line in told(found, "note")]
    lines += [f"  cannot use {report.called(bad.source, bad.name)}: {bad.reason}" for bad in report.bad[:_SHOWN]]
    if len(report.bad) > _SHOWN:
        lines.append(f"  … and {len(report.bad) - _SHOWN} more (--json lists all)")
    if report.bad and recipe.data.on_bad_image == "stop":
        lines.append("A run would stop here. Mend or remove them, or train without: data.on_bad_image=skip")
    elif not report.samples:
        lines.append("There is no picture to train on. Mend those that cannot be used, or give others: data.sources")
    elif stops:
        lines.append("A run would stop before its first step, for what is said beside 'stops'")
    return "\n".join(lines)
