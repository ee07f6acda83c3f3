"""`atelier data inspect`: everything about a set of pictures, on the terminal, as JSON, and as a page."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.cli.arguments import add_json_argument
from finetune.cli.output import print_json

if TYPE_CHECKING:
    from rich.progress import TaskID

    from finetune.recipe import Recipe
    from imagesets.inspection import Inspection, TrainingPlan

_PLAIN_EVERY_SECONDS = 2.0
_DATASET_FILES = (".parquet", ".arrow")
_LOOKED_AT_BYTES = 4096
"""How much of a file is looked at for zeros, which no text has."""


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "inspect",
        help="say everything about a set of pictures, and what is wrong with it",
        description="Look at every picture and caption as training will take them: buckets, cuts, tokens, duplicates, "
        "and what is wrong, ranked, with what to do. Exit code 3 where an error was found.",
    )
    parser.add_argument(
        "source",
        metavar="SOURCE_OR_RECIPE",
        help="a folder of pictures, of tar shards or parquet files, or one such file, sample:NAME, a dataset_config of "
        "kohya's; or a recipe's path, a "
        "run's folder, a shipped name",
    )
    parser.add_argument(
        "overrides",
        metavar="key.path=value",
        nargs="*",
        help="settings to replace, as training.micro_batch_size=4 or data.sources.0.trigger=zrkx",
    )
    parser.add_argument("--html", type=Path, default=None, metavar="FILE", help="write a page that holds everything")
    parser.add_argument(
        "--thumbnails",
        type=Path,
        default=None,
        metavar="FOLDER",
        help="write a small WebP file of each picture into a new folder, which --json names as 'thumbnail'",
    )
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Inspect, show, and return 3 where an error was found."""
    if arguments.html is not None:
        require_page_place(arguments.html)
    if arguments.thumbnails is not None:
        require_thumbnails_place(arguments.thumbnails)
    recipe, is_recipe = open_recipe(arguments.source, arguments.overrides)
    inspection = inspect_recipe(
        recipe,
        is_recipe=is_recipe,
        with_thumbnails=arguments.html is not None or arguments.thumbnails is not None,
        in_one_file=arguments.html is not None,
    )
    thumbnails: list[str | None] | None = None
    if arguments.thumbnails is not None:
        thumbnails = write_thumbnails(inspection, arguments.thumbnails)
    if arguments.html is not None:
        from finetune.run.durable import write_text
        from imagesets.inspection.page import render_page

        write_text(arguments.html, render_page(inspection))
    if arguments.json:
        from imagesets.inspection.as_data import as_data

        print_json(as_data(inspection, thumbnails))
    else:
        from finetune.cli.inspection_text import print_inspection

        print_inspection(inspection)
    if arguments.html is not None:
        print(f"page: {arguments.html}", file=sys.stderr if arguments.json else sys.stdout)
    return 3 if inspection.has_errors else 0


def require_page_place(path: Path) -> None:
    """Refuse to write a page over anything but an earlier page, before anything slow happens.

    Raises:
        RecipeError: with what to type instead.
    """
    from finetune.errors import RecipeError
    from imagesets.inspection.page import is_page

    if not path.absolute().parent.is_dir():
        raise RecipeError(f"--html: the folder {path.absolute().parent} does not exist. Make it, or name another place")
    if path.is_dir():
        raise RecipeError(f"--html: {path} is a folder. Name a file in it: {path / 'pictures.html'}")
    if path.exists() and not is_page(path):
        raise RecipeError(f"--html: {path} exists and is no page of an inspection. Name another file, or remove it")


def require_thumbnails_place(folder: Path) -> None:
    """Refuse to write thumbnails among other files, before anything slow happens.

    Raises:
        RecipeError: with what to type instead.
    """
    from finetune.errors import RecipeError

    if not folder.absolute().parent.is_dir():
        raise RecipeError(f"--thumbnails: the folder {folder.absolute().parent} does not exist. Make it first")
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise RecipeError(f"--thumbnails: {folder} exists and is no empty folder. Name one that is not there yet")


def write_thumbnails(inspection: "Inspection", folder: Path) -> list[str | None]:
    """Write the thumbnail of each picture; return their file names in the order of the pictures, None without one.

    Raises:
        DiskError: the disk is full or cannot be written.
    """
    from finetune.run.durable import disk_errors, write_bytes

    names: list[str | None] = []
    with disk_errors(folder):
        folder.mkdir(exist_ok=True)
        for picture in inspection.facts.pictures:
            thumbnail = picture.look.thumbnail if picture.look is not None else None
            # By number, not by the picture's own name: that may be anything.
            names.append(None if thumbnail is None else f"{picture.index:06d}.webp")
            if thumbnail is not None:
                write_bytes(folder / f"{picture.index:06d}.webp", thumbnail, flush=False)
    return names


def open_recipe(reference: str, overrides: Sequence[str]) -> "tuple[Recipe, bool]":
    """Return the recipe that is meant, or one made for a bare source, and whether it was a recipe.

    Raises:
        RecipeError: it is neither.
    """
    from finetune.recipe import load_recipe, parse_recipe

    source = source_meant(reference)
    if source is None:
        return load_recipe(reference, overrides), True
    # As the recipes that ship have it, so that a folder is seen as they would train it. JSON is YAML.
    settings = {
        "schema_version": 1,
        "model": {"kind": "hub", "id": "stabilityai/stable-diffusion-xl-base-1.0"},
        "data": {"sources": [source], "buckets": {"kind": "symmetric"}},
    }
    return parse_recipe(json.dumps(settings), "source.yaml", overrides), False


def source_meant(reference: str) -> dict[str, str] | None:
    """Return the settings of the source of pictures that a word means; None where it can only be a recipe.

    Raises:
        RecipeError: it is a file that is neither.
    """
    from imagesets.reading.kohya import looks_like_kohyas
    from imagesets.reading.kohya_config import looks_like_config
    from imagesets.reading.webdataset import SHARD_ENDINGS

    path = Path(reference).expanduser()
    if reference.startswith("sample:"):
        return {"kind": "folder", "path": reference}
    if path.suffix in _DATASET_FILES and path.is_file():
        return {"kind": "huggingface", "name": str(path)}
    if looks_like_config(path):
        return {"kind": "kohya_config", "path": str(path)}
    if path.is_file():
        if path.name.lower().endswith(SHARD_ENDINGS):
            return {"kind": "webdataset", "path": str(path)}
        require_no_picture(path)
    if not path.is_dir() or (path / "recipe.yaml").is_file():
        return None
    if any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json")):
        return {"kind": "huggingface", "name": str(path)}
    if looks_like_kohyas(path):
        return {"kind": "kohya", "path": str(path)}
    kind = kind_by_endings(path)
    return {"kind": kind, "name" if kind == "huggingface" else "path": str(path)}


def kind_by_endings(folder: Path) -> str:
    """Return 'webdataset' for a folder of shards, 'huggingface' for one of parquet files, else 'folder'."""
    from imagesets.errors import SourceError
    from imagesets.reading.folder import other_kind
    from imagesets.reading.walk import walk
    from imagesets.reading.webdataset import SHARD_ENDINGS

    endings = (*SHARD_ENDINGS, *_DATASET_FILES)
    try:
        near = [*folder.iterdir(), *folder.glob("*/*")] if (folder / "data").is_dir() else [*folder.iterdir()]
        if not any(path.name.lower().endswith(endings) for path in near):
            return "folder"  # without going through all of it
        return other_kind(walk(folder, recursive=True)) or "folder"
    except (OSError, SourceError):
        return "folder"  # whose reader says what is wrong with it


def require_no_picture(path: Path) -> None:
    """Refuse a file that is plainly no recipe.

    Raises:
        RecipeError: with what to give instead.
    """
    from finetune.errors import RecipeError
    from imagesets.decoding import PICTURE_LIKE

    if path.suffix.lower() in PICTURE_LIKE:
        raise RecipeError(f"{path} is a picture. Give the folder that it lies in: {path.parent}")
    try:
        with path.open("rb") as file:
            is_binary = b"\0" in file.read(_LOOKED_AT_BYTES)
    except OSError:
        return  # the recipe's reader says so
    if is_binary:
        raise RecipeError(
            f"{path} is neither a recipe nor a source of pictures. Give a folder of pictures, a .parquet, .arrow or "
            ".tar file, a dataset_config of kohya's, or a recipe"
        )


def inspect_recipe(
    recipe: "Recipe", *, is_recipe: bool, with_thumbnails: bool, in_one_file: bool = True
) -> "Inspection":
    """Scan, plan and inspect a recipe's pictures.

    Args:
        recipe: whose pictures.
        is_recipe: whether it was given, rather than made for a bare source.
        with_thumbnails: whether thumbnails are kept.
        in_one_file: whether thumbnails are for a page that holds all of them: then many are smaller ones.

    Raises:
        DataError: a source cannot be read at all.
    """
    from finetune.model.text_tokens import reading_of
    from finetune.model.token_counts import open_token_counter
    from finetune.training.data import plan_pictures, scan_pictures
    from finetune.training.inspecting import training_plan
    from imagesets.inspection import inspect_pictures
    from imagesets.inspection.page import MAX_PICTURES, thumbnail_limits

    with progress_bar() as bar:
        report = scan_pictures(recipe, partial(bar, "reading"), with_keys=is_recipe)
        pictures = plan_pictures(recipe, report) if report.samples else None
        plan = training_plan(recipe, pictures, steps=recipe.training.steps if is_recipe else None)
        counter = open_token_counter(recipe.model, reading_of(recipe.training))
        return inspect_pictures(
            recipe.name if is_recipe else _name_of(recipe, plan),
            report,
            plan,
            counter,
            token_source=counter.origin,
            thumbnails=thumbnail_limits(len(report.samples) if in_one_file else 1) if with_thumbnails else None,
            num_thumbnails=MAX_PICTURES if with_thumbnails else 0,
            progress=partial(bar, "looking"),
        )


def _name_of(recipe: "Recipe", plan: "TrainingPlan") -> str:
    """Return what a bare source is called: by the name of its folder, or of the file that stands for several."""
    source = recipe.data.sources[0]
    return Path(source.path).name if source.kind == "kohya_config" else plan.sources[0].label


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Show how far each stage is, by (name, done, total): a bar on a terminal, elsewhere a line now and then."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=28), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def move(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name)
            progress.update(tasks[name], completed=done, total=total)

        yield move


def _plain_lines() -> Callable[[str, int, int], None]:
    """Return what writes 'reading 16/300' to stderr, so seldom that what is quickly done says nothing."""
    last = time.monotonic()

    def say(name: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _PLAIN_EVERY_SECONDS:
            last = time.monotonic()
            print(f"{name} {done}/{total}", file=sys.stderr, flush=True)

    return say
