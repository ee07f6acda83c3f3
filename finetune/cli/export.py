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
    parser.add_argument("--step", type=int, help="export the checkpoint of this step; without it, the newest whole one")
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
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Export a checkpoint of a run, without loading the model."""
    from finetune.recipe import load_recipe
    from finetune.run.folder import RunFolder

    run_folder = RunFolder.open(Path(arguments.run_folder))
    recipe = load_recipe(str(run_folder.recipe), overrides(arguments))
    if arguments.format and recipe.adapter.kind != "lora":
        raise RecipeError(
            f"--format: {run_folder.path} trained a whole model (adapter.kind: {recipe.adapter.kind}), which is "
            "exported as a folder in diffusers' layout. Leave --format out"
        )
    quiet_libraries()
    from finetune.export.run_export import export_run

    checkpoint = find_checkpoint(run_folder, arguments.step)
    paths = export_run(
        run_folder,
        recipe,
        checkpoint.exported,
        checkpoint.step,
        facts=checkpoint.extra,
        optimizer=checkpoint.extra["optimizer"],
        expected=checkpoint.extra["num_modules"],
    )
    if arguments.json:
        print_json({"step": checkpoint.step, "files": [str(path) for path in paths]})
    else:
        print(f"Exported step {checkpoint.step}:")
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
