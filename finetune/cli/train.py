"""`atelier train`: a recipe's run, from pictures to exported files."""

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.cli.arguments import add_json_argument, add_recipe_arguments
from finetune.cli.output import print_json
from finetune.run.quiet import quiet_libraries

if TYPE_CHECKING:
    from finetune.recipe import Recipe
    from finetune.training.trainer import TrainResult


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "train", help="train a recipe", description="Train a recipe into its run folder, with previews, and export it."
    )
    add_recipe_arguments(parser)
    parser.add_argument("--resume", action="store_true", help="go on with the run that lies in the recipe's folder")
    parser.add_argument(
        "--dry-run", action="store_true", help="check recipe, pictures and model as a run would, and train nothing"
    )
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train, or with --dry-run check what a run would do."""
    if arguments.dry_run:
        from finetune.cli.check import check_recipe

        return check_recipe(arguments.recipe, arguments.overrides, as_json=arguments.json, with_model=True)
    from finetune.cli.progress import choose_listener
    from finetune.recipe import load_recipe, recipe_warnings

    recipe = load_recipe(arguments.recipe, arguments.overrides)  # first, and alone: a mistake in it is told at once
    from finetune.training.data import pictures_of
    from finetune.training.stops import require_startable

    for warning in recipe_warnings(recipe):
        print(f"warning: {warning}", file=sys.stderr)
    require_free_folder(recipe, resume=arguments.resume)
    pictures = pictures_of(recipe, lambda message: print(f"warning: {message}", file=sys.stderr))
    require_startable(recipe, pictures)
    quiet_libraries()
    from finetune.training.signals import StoppedEarlyError
    from finetune.training.trainer import train

    listener = choose_listener(as_json=arguments.json)
    try:
        result = train(recipe, pictures, resume=arguments.resume, listeners=[listener])
    except StoppedEarlyError as stopped:
        print("Stopped before the first step; there was nothing to save.", file=sys.stderr)
        return int(stopped.args[0])
    finally:
        listener.close()
    if not result.is_main_process:
        return result.exit_code  # the main process speaks for all
    if arguments.json:
        print_json(summary(result))
    else:
        print(closing_words(recipe, result))
    return result.exit_code


def require_free_folder(recipe: "Recipe", *, resume: bool) -> None:
    """Refuse a folder that holds a run, or with --resume one that does not, before anything slow happens.

    Raises:
        RecipeError: with what to type instead.
    """
    from finetune.errors import RecipeError
    from finetune.run.folder import RunFolder

    path = Path(recipe.output_dir).expanduser() / recipe.name
    if resume:
        RunFolder.open(path)
    elif RunFolder(path).has_begun():
        raise RecipeError(
            f"{path} already holds a run. Go on with it: --resume. Start another beside it: name={recipe.name}-2"
        )


def summary(result: "TrainResult") -> dict[str, Any]:
    """Return what a program wants to know of a run that has ended."""
    return {
        "run": str(result.run.path),
        "finished": result.finished,
        "exports": [str(path) for path in result.exports],
        "proofs": [proof.as_data() for proof in result.exported.proofs],
        "previews": str(result.run.previews),
    }


def closing_words(recipe: "Recipe", result: "TrainResult") -> str:
    """Say where the files lie and what to type next."""
    from finetune.readers.proof import describe_takers
    from finetune.recipe.schema import SmallAdapter

    if not result.finished:
        return f"\nStopped and saved. Go on with:\n  {command_name()} train {result.run.recipe} --resume"
    walls = sorted(result.run.previews.glob("step-*/wall.png"))
    lines = ["", "Done.", "  file      " + "\n            ".join(str(path) for path in result.exports)]
    lines += [
        f"  proved    {proof.file.path.name} is read whole by: {describe_takers(proof)}"
        for proof in result.exported.proofs
    ]
    if walls:
        lines.append(f"  previews  {walls[-1]}")
    lines.append(f"  run       {result.run.path}")
    prompt = recipe.preview.prompts[0].prompt if recipe.preview.prompts else "a photo"
    command = command_name()
    lines += ["", "Next:"]
    is_adapter = isinstance(recipe.adapter, SmallAdapter)
    if recipe.preview.prompts or is_adapter:
        lines.append(f'  {command} generate {result.run.path} --prompt "{prompt}"')
    if is_adapter:
        other = "diffusers" if recipe.adapter.kind == "lora" else "peft"
        lines.append(f"  {command} export {result.run.path} --format {other}")
    else:
        folder = result.exports[0]
        lines.append(f"  {command} train RECIPE 'model={{kind: folder, path: {folder}}}'")
    lines.append(f"  {command} recipes list")
    return "\n".join(lines)


def command_name() -> str:
    """Return what a person types for this program here: its path where it is not on the PATH."""
    program = Path(sys.argv[0])
    if program.name != "atelier":
        return "python -m finetune" if program.name == "__main__.py" else "atelier"
    found = shutil.which("atelier")
    if found is not None and Path(found).samefile(program):
        return "atelier"
    return str(program.relative_to(Path.cwd())) if program.is_relative_to(Path.cwd()) else str(program)
