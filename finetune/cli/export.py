"""`atelier export`: what a run has trained, as files for other programs."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.cli.arguments import add_json_argument
from finetune.cli.output import format_bytes, print_json
from finetune.errors import AtelierError, RecipeError
from finetune.run.quiet import quiet_libraries

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from finetune.export.denoising import StepComparison
    from finetune.readers.proof import Proof
    from finetune.recipe import Recipe
    from finetune.run.folder import RunFolder
    from finetune.run.losses import StepLoss
    from finetune.training.checkpoint import Checkpoint


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "export",
        help="export what a run has trained",
        description="Write a run's LoRA as files for other programs: kohya (ComfyUI, A1111, Forge, InvokeAI, kohya and "
        "diffusers read it), diffusers or peft; or the model it trained, as a folder that diffusers loads. They go "
        "into the run's `exports` folder. Each file of a LoRA is then held against the rules by which ComfyUI, A1111, "
        "Forge, InvokeAI, kohya's scripts and diffusers read such files.",
    )
    parser.add_argument("run_folder", metavar="RUN", help="a run's folder")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--step", type=int, help="export the checkpoint of this step; without it, the newest whole one")
    which.add_argument(
        "--best",
        action="store_true",
        help="export the kept checkpoint at which the smoothed training loss was lowest (an exponential mean of decay "
        "0.98, about the last fifty steps). The loss says little of how pictures look: compare previews too",
    )
    parser.add_argument(
        "--format",
        action="append",
        metavar="FORMAT",
        help="kohya, diffusers or peft; may be given several times; without it, the recipe's",
    )
    parser.add_argument(
        "--precision", choices=("fp16", "bf16", "fp32"), help="of the weights; without it, the recipe's"
    )
    parser.add_argument(
        "--minimal-metadata", action="store_true", help="leave out what tells of the pictures, captions and recipe"
    )
    parser.add_argument(
        "--card",
        action="store_true",
        help="write the LoRA's model card too, as the Hugging Face hub shows it: exports/NAME-card/README.md with the "
        "newest previews beside it. To publish, put the exported file there",
    )
    parser.add_argument(
        "--for",
        dest="readers",
        action="append",
        metavar="PROGRAM",
        help="a program that must read a file whole and as it was trained, or it is an error: comfyui, a1111, forge, "
        "invokeai, kohya, diffusers or peft; may be given several times",
    )
    parser.add_argument(
        "--no-denoising-step",
        action="store_true",
        help="do not load the model to compare one step of denoising through each file with the adapter itself",
    )
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Export a checkpoint of a run, and prove what was written."""
    from finetune.recipe import load_recipe
    from finetune.run.folder import RunFolder

    run_folder = RunFolder.open(Path(arguments.run_folder))
    recipe = load_recipe(str(run_folder.recipe), overrides(arguments))
    require_possible(arguments, run_folder, recipe)
    best = find_best(run_folder) if arguments.best else None
    quiet_libraries()
    from finetune.export.run_export import export_card, export_run
    from finetune.readers.proof import require_readers

    checkpoint = find_checkpoint(run_folder, arguments.step if best is None else best.step)
    step, extra, optimizer = checkpoint.step, checkpoint.extra, checkpoint.extra["optimizer"]
    exported = export_run(
        run_folder, recipe, checkpoint.exported, step, facts=extra, optimizer=optimizer, expected=extra["num_modules"]
    )
    require_readers(exported.proofs, arguments.readers or ())
    paths = exported.files
    if arguments.card:
        paths += export_card(run_folder, recipe, step, paths, facts=extra, optimizer=optimizer)
    if not arguments.json:
        print("\n".join(closing_words(step, best, paths, exported.proofs)), flush=True)
    compared = [] if arguments.no_denoising_step else compare_steps(recipe, checkpoint, exported.proofs)
    if arguments.json:
        chosen = {} if best is None else {"smoothed_loss": best.loss}
        proofs = [proof.as_data() for proof in exported.proofs]
        steps = [each.as_data() for each in compared]
        files = [str(path) for path in paths]
        print_json({"step": step, **chosen, "files": files, "proofs": proofs, "denoising": steps})
    elif compared:
        print("\n".join(["", *(each.describe() for each in compared)]))
    return 0


def require_possible(arguments: argparse.Namespace, run_folder: "RunFolder", recipe: "Recipe") -> None:
    """Refuse options that this run's export has no use for, before anything is written.

    Raises:
        RecipeError: an option is an adapter's and the run trained a whole model, or a program is not known.
    """
    from finetune.readers.proof import check_readers
    from finetune.recipe.schema import SmallAdapter

    check_readers(arguments.readers or ())
    if isinstance(recipe.adapter, SmallAdapter):
        return
    if arguments.format:
        raise RecipeError(
            f"--format: {run_folder.path} trained a whole model (adapter.kind: {recipe.adapter.kind}), which is "
            "exported as a folder in diffusers' layout. Leave --format out"
        )
    for option, given in (("--card", arguments.card), ("--for", arguments.readers)):
        if given:
            raise RecipeError(f"{option}: {run_folder.path} trained a whole model, not a LoRA. Leave {option} out")


def closing_words(
    step: int, best: "StepLoss | None", paths: "Sequence[Path]", proofs: "Sequence[Proof]"
) -> "Iterator[str]":
    """Yield the lines that say what was written, and what other programs make of it."""
    why = "" if best is None else f", where the smoothed training loss was lowest ({best.loss:.4g})"
    yield f"Exported step {step}{why}:"
    yield from (f"  {path}" for path in paths)
    for proof in proofs:
        yield from ("", f"What programs make of {proof.file.path.name}:", *proof.as_lines())


def compare_steps(recipe: "Recipe", checkpoint: "Checkpoint", proofs: "Sequence[Proof]") -> "list[StepComparison]":
    """Compare one denoising step through each file with the adapter itself, where there is the memory for it.

    Raises:
        AtelierError: a file does other than was trained; it does not stay.
    """
    from finetune.export.denoising import StepProof, has_room, memory_needed
    from finetune.export.run_export import remove_export
    from finetune.model.open import open_model
    from finetune.recipe.schema import SmallAdapter

    if not proofs or not isinstance(recipe.adapter, SmallAdapter):
        return []
    files = open_model(recipe.model, refiner=None)
    if not has_room(files.structure()):
        needed = format_bytes(memory_needed(files.structure()))
        print(f"No denoising step was compared: that takes {needed} of memory, more than is free.", file=sys.stderr)
        return []
    prompt = recipe.preview.prompts[0].prompt if recipe.preview.prompts else "a photo"
    step = StepProof(files, recipe.adapter, checkpoint.exported, prompt)
    compared = []
    for proof in proofs:
        try:
            compared.append(step.compare(proof.file.path, recipe.export.precision))
        except AtelierError:
            remove_export(proof.file.path)
            raise
    return compared


def overrides(arguments: argparse.Namespace) -> list[str]:
    """Turn the verb's options into the recipe's settings."""
    chosen = []
    if arguments.format:
        chosen.append(f"export.formats=[{', '.join(arguments.format)}]")
    if arguments.precision:
        chosen.append(f"export.precision={arguments.precision}")
    if arguments.minimal_metadata:
        chosen.append("export.metadata=minimal")
    return chosen


def find_best(run_folder: "RunFolder") -> "StepLoss":
    """Return the kept step at which the smoothed training loss was lowest.

    Raises:
        RecipeError: no step is kept, or the log tells the loss of none that is.
    """
    from finetune.run.losses import lowest_loss

    steps = run_folder.kept_steps()
    best = lowest_loss(run_folder, steps)
    if best is None:
        kept = ", ".join(map(str, steps)) or "none"
        raise RecipeError(
            f"--best: {run_folder.path} tells no loss of a step that is kept ({kept}). Name one with --step"
        )
    return best


def find_checkpoint(run_folder: "RunFolder", step: int | None) -> "Checkpoint":
    """Return the checkpoint of a step, or the newest whole one.

    Raises:
        RecipeError: there is none.
    """
    from finetune.training.checkpoint import list_checkpoints, load_checkpoint, newest_whole_checkpoint

    if step is not None:
        folder = run_folder.checkpoint(step)
        if not folder.is_dir():
            there = ", ".join(str(int(path.name[5:])) for path in list_checkpoints(run_folder.checkpoints)) or "none"
            raise RecipeError(f"--step: got {step}; {run_folder.path} has checkpoints of steps: {there}")
        return load_checkpoint(folder)
    checkpoint, damaged = newest_whole_checkpoint(run_folder.checkpoints)
    for message in damaged:
        print(f"warning: {message}", file=sys.stderr)
    if checkpoint is None:
        raise RecipeError(f"{run_folder.path} has no whole checkpoint to export. Train it first, or go on: --resume")
    return checkpoint
