"""`atelier check`: everything that can be known before the first step, all problems at once."""

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from finetune.cli.arguments import add_json_argument, add_recipe_arguments
from finetune.cli.output import print_json
from finetune.cli.quiet import quiet_libraries

if TYPE_CHECKING:
    from finetune.recipe import Recipe
    from finetune.training.pictures import TrainingPictures
    from imagesets.inspection import Finding
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
    """Print what a run would meet; return 0, or 3 where pictures would stop it.

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
    from imagesets.inspection import find_without_looking

    warnings = recipe_warnings(recipe)
    report = scan_pictures(recipe)
    pictures = plan_pictures(recipe, report) if report.samples else None
    found: Sequence[Finding] = ()
    if pictures is not None:
        found = find_without_looking(report, training_plan(recipe, pictures, steps=recipe.training.steps))
        if with_model:
            check_model(recipe, pictures)
    stops = not report.samples or (bool(report.bad) and recipe.data.on_bad_image == "stop")
    if as_json:
        print_json(findings(recipe, report, pictures, [*warnings, *told(found, "error", "warning")]))
    else:
        print(as_text(recipe, report, pictures, warnings, found, stops=stops))
        if not stops:
            print(f"Each picture, its cut and its words: atelier data inspect {reference} --html pictures.html")
    return 3 if stops else 0


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
    from finetune.training.components import open_trained_model, require_fitting_buckets, resolve_requests
    from finetune.training.objective import build_objective

    choose_dtype(recipe.training.precision, choose_device(recipe.training.device))
    files = open_trained_model(recipe)
    if recipe.refiner is not None:
        open_model(recipe.refiner, refiner=True)
    objective = recipe.training.objective
    build_objective(objective, noise_scheduler(files, zero_terminal_snr=objective.zero_terminal_snr))
    geometry = files.geometry()
    require_fitting_buckets(pictures, geometry.size_multiple)
    resolve_requests(recipe, geometry)


def findings(
    recipe: "Recipe", report: "ScanReport", pictures: "TrainingPictures | None", warnings: Sequence[str]
) -> dict[str, Any]:
    """Return what was found as plain data."""
    found: dict[str, Any] = {
        "recipe": recipe.name,
        "pictures": len(report.samples),
        "bad_pictures": [{"source": bad.source, "name": bad.name, "reason": bad.reason} for bad in report.bad],
        "notes": [
            {"source": note.source, "name": note.name, "kind": note.kind, "text": note.text} for note in report.notes
        ],
        "ignored_files": len(report.ignored),
        "warnings": list(warnings),
        "steps": recipe.training.steps,
    }
    if pictures is not None:
        if not report.is_beginning:
            found["steps_per_epoch"] = pictures.steps_per_epoch
            found["epochs"] = round(recipe.training.steps / pictures.steps_per_epoch, 2)
        found["buckets"] = [
            {"height": height, "width": width, "pictures": count}
            for (height, width), count in sorted(bucket_counts(pictures).items())
        ]
    return found


def bucket_counts(pictures: "TrainingPictures") -> Counter[tuple[int, int]]:
    """Count the pictures of each bucket."""
    return Counter(pictures.bucket_of(index) for index in range(len(pictures.samples)))


def as_text(
    recipe: "Recipe",
    report: "ScanReport",
    pictures: "TrainingPictures | None",
    warnings: Sequence[str],
    found: "Sequence[Finding]",
    *,
    stops: bool,
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
    lines += [f"  error      {line}" for line in told(found, "error")]
    lines += [f"  warning    {line}" for line in [*warnings, *told(found, "warning")]]
    lines += [f"  note       {line}" for line in told(found, "note")]
    lines += [f"  cannot use {report.called(bad.source, bad.name)}: {bad.reason}" for bad in report.bad[:_SHOWN]]
    if len(report.bad) > _SHOWN:
        lines.append(f"  … and {len(report.bad) - _SHOWN} more (--json lists all)")
    if stops and report.bad:
        lines.append("A run would stop here. Mend or remove them, or train without: data.on_bad_image=skip")
    elif not stops:
        lines.append("The model's files are looked at by: atelier train … --dry-run")
    if stops and not report.bad:
        lines.append("There is no picture to train on: data.sources.0.path=…")
    return "\n".join(lines)
