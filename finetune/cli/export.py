"""`atelier export`: what a run has trained, as files for other programs."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.cli.arguments import add_json_argument
from finetune.cli.output import print_json
from finetune.errors import RecipeError
from finetune.run.quiet import quiet_libraries

if TYPE_CHECKING:
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
        "into the run's `exports` folder.",
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
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Export a checkpoint of a run, without loading the model."""
    from finetune.recipe import load_recipe
    from finetune.recipe.schema import SmallAdapter
    from finetune.run.folder import RunFolder

    run_folder = RunFolder.open(Path(arguments.run_folder))
    recipe = load_recipe(str(run_folder.recipe), overrides(arguments))
    is_adapter = isinstance(recipe.adapter, SmallAdapter)
    if arguments.format and not is_adapter:
        raise RecipeError(
            f"--format: {run_folder.path} trained a whole model (adapter.kind: {recipe.adapter.kind}), which is "
            "exported as a folder in diffusers' layout. Leave --format out"
        )
    if arguments.card and not is_adapter:
        raise RecipeError(f"--card: {run_folder.path} trained a whole model; only a LoRA gets a card. Leave --card out")
    best = find_best(run_folder) if arguments.best else None
    quiet_libraries()
    from finetune.export.run_export import export_card, export_run

    checkpoint = find_checkpoint(run_folder, arguments.step if best is None else best.step)
    paths = export_run(
        run_folder,
        recipe,
        checkpoint.exported,
        checkpoint.step,
        facts=checkpoint.extra,
        optimizer=checkpoint.extra["optimizer"],
        expected=checkpoint.extra["num_modules"],
    )
    if arguments.card:
        extra = checkpoint.extra
        paths += export_card(run_folder, recipe, checkpoint.step, paths, facts=extra, optimizer=extra["optimizer"])
    if arguments.json:
        chosen = {} if best is None else {"smoothed_loss": best.loss}
        print_json({"step": checkpoint.step, **chosen, "files": [str(path) for path in paths]})
    else:
        why = "" if best is None else f", where the smoothed training loss was lowest ({best.loss:.4g})"
        print(f"Exported step {checkpoint.step}{why}:")
        print("\n".join(f"  {path}" for path in paths))
    return 0


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
