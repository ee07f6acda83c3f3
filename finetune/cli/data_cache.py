"""`atelier data cache`: encode a recipe's pictures and captions ahead of training, or clear out what nobody uses."""

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.cli.arguments import add_json_argument
from finetune.cli.output import format_bytes, format_duration, print_json
from finetune.errors import RecipeError
from finetune.run.quiet import quiet_libraries

if TYPE_CHECKING:
    from finetune.cache.pruning import Pruning
    from finetune.recipe import Recipe
    from finetune.training.preparing import Prepared


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "cache",
        help="encode pictures and captions ahead of training; --prune removes what nobody uses",
        description="Encode a recipe's pictures and captions into its cache, as training would: only what is not there "
        "yet. An interrupted build goes on with the same command, and `train` uses what is there. With --prune, remove "
        "what none of the recipes that ever used a cache asks for any more.",
    )
    parser.add_argument(
        "words",
        metavar="RECIPE",
        nargs="*",
        help="a recipe's path, a run's folder, or the name of one that ships; key.path=value replaces a setting. "
        "With --prune any number of recipes: what they ask for now is found out first",
    )
    parser.add_argument("--prune", action="store_true", help="remove what no recipe asks for any more")
    parser.add_argument("--dry-run", action="store_true", help="with --prune: say what would go, and remove nothing")
    parser.add_argument(
        "--forget", action="append", default=[], metavar="NAME", help="with --prune: what run NAME asks for may go, too"
    )
    parser.add_argument(
        "--folder", type=Path, default=None, metavar="FOLDER", help="with --prune and no recipe: the cache's folder"
    )
    add_json_argument(parser)
    parser.set_defaults(run=run, overrides=[])


def run(arguments: argparse.Namespace) -> int:
    """Encode, or prune."""
    recipes = [word for word in arguments.words if "=" not in word or Path(word).exists()]
    overrides = [word for word in arguments.words if word not in recipes] + arguments.overrides
    if arguments.prune:
        return run_prune(recipes, overrides, arguments)
    for option in ("dry_run", "forget", "folder"):
        if getattr(arguments, option):
            raise RecipeError(f"--{option.replace('_', '-')} belongs to --prune")
    if len(recipes) != 1:
        raise RecipeError(f"got {len(recipes)} recipes, needs one: atelier data cache RECIPE [key.path=value …]")
    return run_fill(recipes[0], overrides, as_json=arguments.json)


def run_fill(reference: str, overrides: Sequence[str], *, as_json: bool) -> int:
    """Encode what a recipe needs and is not there yet."""
    from finetune.cli.progress import choose_listener

    began = time.monotonic()
    recipe, folder = recipe_with_cache(reference, overrides)
    prepare = preparing(recipe)
    from finetune.training.signals import StoppedEarlyError, stop_on_signals

    listener = choose_listener(as_json=as_json)
    try:
        with stop_on_signals() as stop:
            prepared = prepare(listener, stop)
    except StoppedEarlyError as stopped:
        print("Stopped. What was encoded is kept; the same command goes on.", file=sys.stderr)
        return int(stopped.args[0])
    finally:
        listener.close()
    if not prepared.is_main_process:
        return 0
    seconds = time.monotonic() - began
    if as_json:
        print_json({"recipe": recipe.name, "folder": str(folder), **prepared.counts(), "seconds": round(seconds, 1)})
    else:
        print(closing_words(recipe, folder, prepared, seconds, shlex.join(["atelier", "train", reference, *overrides])))
    return 0


def recipe_with_cache(reference: str, overrides: Sequence[str]) -> "tuple[Recipe, Path]":
    """Load a recipe and find its cache.

    Raises:
        RecipeError: it keeps nothing on the disk, or encodes nothing ahead.
    """
    from finetune.cache.place import cache_folder
    from finetune.recipe import load_recipe

    recipe = load_recipe(reference, overrides)
    folder = cache_folder(recipe)
    if folder is None:
        raise RecipeError(f"{recipe.name}: cache.kind is memory, so nothing is kept. Set cache.kind=disk")
    if recipe.adapter.kind == "vae":
        raise RecipeError(f"{recipe.name}: adapter.kind is vae: the VAE is trained, so nothing is encoded ahead")
    return recipe, folder


def preparing(recipe: "Recipe") -> "Callable[..., Prepared]":
    """Scan a recipe's pictures and return what encodes them."""
    from functools import partial

    from finetune.training.data import pictures_of
    from finetune.training.pictures import TrainingPictures

    pictures = pictures_of(recipe, lambda message: print(f"warning: {message}", file=sys.stderr))
    if not isinstance(pictures, TrainingPictures):
        raise RecipeError(
            "data.sources.*.streaming: pictures that are read as they come are encoded at every step and kept nowhere, "
            "so there is nothing to encode ahead. Set streaming: false to list them, or train at once"
        )
    quiet_libraries()
    from finetune.training.preparing import prepare

    return partial(prepare, recipe, pictures)


_LABELS = {"text": "captions and prompts", "latents": "pictures in their cuts", "masks": "their masks"}


def closing_words(recipe: "Recipe", folder: Path, prepared: "Prepared", seconds: float, next_command: str) -> str:
    """Say what was done, where it lies, and with which command it is used."""
    counts = prepared.counts()
    lines = []
    for name, label in _LABELS.items():
        if name not in counts:
            continue
        wanted, encoded = counts[name]["wanted"], counts[name]["encoded"]
        lines.append(
            f"  {label:<24}{encoded} encoded, {wanted - encoded} were there"
            if wanted
            else f"  {label:<24}encoded at every step: {prepared.reasons[name]}"
        )
    size = f"{format_bytes(counts['bytes'])} in all"
    return "\n".join([
        f"{recipe.name}: {folder} is ready after {format_duration(seconds)} ({size})",
        *lines,
        f"Next, which uses it: {next_command}",
    ])  # fmt: skip


def run_prune(recipes: Sequence[str], overrides: Sequence[str], arguments: argparse.Namespace) -> int:
    """Find out what the given recipes ask for now, then remove what nobody asks for, or say what that would be."""
    from finetune.cache.pruning import prune

    folders = [] if arguments.folder is None else [arguments.folder]
    if not recipes and overrides:
        raise RecipeError(f"{overrides[0]} replaces a recipe's setting; name the recipe")
    for reference in recipes:
        recipe, folder = recipe_with_cache(reference, overrides)
        preparing(recipe)(None, None, only_record=True)
        folders.append(folder)
    folders = list(dict.fromkeys(folders or [Path("runs/_cache")]))
    found = [
        prune(folder, arguments.forget, dry_run=arguments.dry_run, warn=lambda text: print(text, file=sys.stderr))
        for folder in folders
    ]
    if arguments.json:
        print_json({"caches": [as_data(each) for each in found]})
    else:
        print("\n".join(line for each in found for line in as_lines(each)))
    return 0


def as_data(found: "Pruning") -> dict[str, Any]:
    """Return what was pruned as plain data."""
    return {
        "folder": str(found.folder),
        "dry_run": found.dry_run,
        "bytes": found.num_bytes,
        "values": found.num_values,
        "unused_values": found.unused_values,
        "unused_bytes": found.unused_bytes,
        "freed_bytes": found.freed_bytes,
        "users": [
            {
                "name": size.use.name,
                "run": size.use.run,
                "used": round(size.use.seconds),
                "values": size.num_values,
                "bytes": size.num_bytes,
                "forgotten": size.forgotten,
            }
            for size in found.users
        ],
    }


def as_lines(found: "Pruning") -> list[str]:
    """Say in words what was pruned."""
    values = sum(found.num_values.values())
    lines = [f"{found.folder}: {values} values, {format_bytes(found.num_bytes)}"]
    for size in found.users:
        when = time.strftime("%Y-%m-%d", time.localtime(size.use.seconds))
        note = "; forgotten" if size.forgotten else "" if Path(size.use.run).exists() else "; its run is not there"
        lines.append(
            f"  {size.use.name:<24}{size.num_values:>8} values {format_bytes(size.num_bytes):>9}  "
            f"last prepared {when}{note}"
        )
    unused = sum(found.unused_values.values())
    kinds = " and ".join(f"{count} {name}" for name, count in found.unused_values.items() if count)
    if not unused:
        lines.append(f"Nothing to remove: all that is there is asked for{_freed(found.freed_bytes)}")
    elif found.dry_run:
        lines.append(f"Would remove {kinds}, which nobody asks for: {format_bytes(found.unused_bytes)}")
        lines.append("Nothing was removed. Without --dry-run it is")
    else:
        lines.append(f"Removed {kinds}, which nobody asked for{_freed(found.freed_bytes)}")
    return lines


def _freed(num_bytes: int) -> str:
    """Say how much was freed, which may be what a stopped build has left."""
    return f"; {format_bytes(num_bytes)} are free again" if num_bytes else ""
