"""A saved recipe is checked, started or queued: by the commands a person would type, each a process of its own."""

import json
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import AtelierError, RecipeError
from finetune.queue.items import PROGRAM
from finetune.queue.runner import ensure_runner
from finetune.recipe import load_recipe
from finetune.run.folder import RunFolder
from webui.desk import Desk
from webui.places import PlaceError

_CHECK_SECONDS = 600


@dataclass(frozen=True)
class Begun:
    """A run that was asked for.

    Attributes:
        line: what a person would type.
        run: the key of its folder for the monitor.
        folder: where it goes.
    """

    line: str
    run: str
    folder: Path


def typed_path(path: Path) -> str:
    """Return a recipe's path as a person would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def check(path: Path) -> dict[str, Any]:
    """Return what `atelier check FILE --json` says.

    Raises:
        RecipeError: the recipe is wrong, with what it said.
        AtelierError: it said nothing that can be read, or took too long.
    """
    command = [*PROGRAM, "check", typed_path(path), "--json"]
    try:
        finished = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=_CHECK_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise AtelierError(
            f"the check has not ended in {_CHECK_SECONDS // 60} minutes and was stopped. In a terminal it takes as "
            f"long as it needs: atelier check {typed_path(path)}"
        ) from error
    try:
        found = json.loads(finished.stdout)
    except ValueError:
        said = (
            finished.stderr.strip().removeprefix("atelier: ")
            or f"the check ended with {finished.returncode} and said nothing"
        )
        raise (RecipeError if finished.returncode == 2 else AtelierError)(said) from None
    return dict(found)


def start(desk: Desk, path: Path) -> Begun:
    """Start `atelier train FILE`, now and whatever else runs.

    Raises:
        RecipeError: the recipe is wrong, or its run folder is taken, or is none of this page's.
        DiskError: its log cannot be written.
    """
    folder, key = _free_folder(desk, path)
    if RunFolder(folder).has_begun():
        raise RecipeError(f"{folder.name}: a run of that name is there already. Give this one another name")
    waiting = [item.id for item in desk.queue.read().items if item.run == str(folder) and item.ended_at is None]
    if waiting:
        raise RecipeError(f"{folder.name}: item {waiting[0]} of the queue has that name. Give this one another name")
    started = desk.starter.start(["train", typed_path(path)], f"train-{folder.name}", run=key)
    return Begun(started.line, key, folder)


def enqueue(desk: Desk, path: Path) -> tuple[Begun, int]:
    """Put the recipe at the end of the queue, see to it that the queue is run, and return its place too.

    Raises:
        RecipeError: the recipe is wrong, or its run folder is taken, or is none of this page's.
        AtelierError: the queue is damaged or held.
    """
    folder, key = _free_folder(desk, path)
    item = desk.queue.add(typed_path(path))
    waiting = [other.id for other in desk.queue.read().waiting()]
    ensure_runner(desk.queue)
    line = shlex.join(["atelier", "queue", "add", item.recipe, "--queue", typed_path(desk.queue.folder)])
    return Begun(line, key, folder), waiting.index(item.id) + 1 if item.id in waiting else 1


def names_taken(desk: Desk, saved: Sequence[str]) -> list[str]:
    """Return the names that a new recipe had better not have: of files, and of runs."""
    root = desk.places.runs[0]
    runs = [entry.name for entry in root.iterdir()] if root.is_dir() else []
    return [*saved, *runs]


def _free_folder(desk: Desk, path: Path) -> tuple[Path, str]:
    """Return the folder that a recipe's run goes to, and its key; one that was begun from here a moment ago is taken.

    A run elsewhere could be written by this page and never be looked at: it is refused.
    """
    settings = load_recipe(str(path))
    folder = (Path(settings.output_dir).expanduser() / settings.name).absolute()
    try:
        key = desk.places.key_of(folder.resolve())
    except PlaceError as error:
        listed = ", ".join(str(root) for root in desk.places.runs)
        raise RecipeError(
            f"output_dir: {settings.output_dir} lies below none of this page's folders of runs ({listed}). Change it, "
            "or start the page with another: atelier ui --runs FOLDER"
        ) from error
    started = desk.starter.of_run(key)
    if started is not None and started.exit_code() is None:
        raise RecipeError(f"{folder.name}: a run of that name was started here. Give this one another name")
    return folder, key
