"""`atelier ui`: the web page, as a process that takes this one's place. Nothing here knows how a page is built."""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from finetune.errors import RecipeError

MISSING = (
    "the web page's packages are not installed. Type: pip install --no-deps -r requirements-page.txt in a checkout, "
    "else pip install 'atelier[ui]'"
)


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "ui",
        help="open the web page",
        description="Serve the web page: runs and their curves and previews, pictures and captions, recipes, the "
        "queue, a playground, exports. It is for this machine alone unless --host or --share says otherwise, and may "
        "be closed at any time without touching a run.",
    )
    parser.add_argument(
        "--runs", metavar="DIR", type=Path, action="append", help="a folder of runs (runs); may be given several times"
    )
    parser.add_argument(
        "--pictures",
        metavar="DIR",
        type=Path,
        action="append",
        help="a folder below which pictures and captions may be seen and edited (the current one, unless that is the "
        "home folder); may be given several times",
    )
    parser.add_argument("--recipes", metavar="DIR", type=Path, default=Path(), help="where recipes are saved (here)")
    parser.add_argument("--queue", metavar="DIR", type=Path, help="the queue's folder (_queue in the first of --runs)")
    parser.add_argument("--port", type=int, help="without it, the first free one from 7860")
    parser.add_argument(
        "--host", default="127.0.0.1", help="the address to listen at; any but this machine's own needs a user"
    )
    parser.add_argument(
        "--share",
        action="store_true",
        help="a public address by way of Gradio's servers, whose tunnel is downloaded the first time; needs --user",
    )
    parser.add_argument("--user", metavar="NAME", help="ask for this name and the password in ATELIER_PASSWORD")
    parser.add_argument("--max-upload", metavar="MB", type=int, default=64, help="the largest file taken (64 MB)")
    parser.add_argument("--open", action="store_true", help="open a browser at it")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Become the page's process; on Windows, start it and wait."""
    if importlib.util.find_spec("gradio") is None:
        raise RecipeError(MISSING)
    command = [sys.executable, "-m", "webui", json.dumps(settings_of(arguments))]
    if os.name != "nt":
        sys.stdout.flush()
        os.execv(command[0], command)  # noqa: S606 - our own interpreter and module
    return subprocess.run(command, check=False).returncode


def settings_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the page is started with, as plain data.

    Raises:
        RecipeError: a folder is none, or a number is out of range.
    """
    runs = [folder.expanduser() for folder in arguments.runs or [Path("runs")]]
    pictures = [folder.expanduser() for folder in arguments.pictures or _own_pictures()]
    for option, folders in (("--runs", runs), ("--pictures", pictures), ("--recipes", [arguments.recipes])):
        for folder in folders:
            if folder.exists() and not folder.is_dir():
                raise RecipeError(f"{option}: {folder} is no folder")
    for folder in arguments.pictures or []:
        if not folder.expanduser().is_dir():
            raise RecipeError(f"--pictures: {folder} does not exist. Name a folder that holds pictures")
    if arguments.port is not None and not 0 <= arguments.port <= 65535:
        raise RecipeError(f"--port: got {arguments.port}, needs a number from 0 to 65535")
    if arguments.max_upload < 1:
        raise RecipeError(f"--max-upload: got {arguments.max_upload}, needs 1 or more")
    return {
        "host": arguments.host,
        "port": arguments.port,
        "runs": [str(folder) for folder in runs],
        "pictures": [str(folder) for folder in pictures],
        "recipes": str(arguments.recipes.expanduser()),
        "queue": str(arguments.queue.expanduser() if arguments.queue is not None else runs[0] / "_queue"),
        "share": arguments.share,
        "user": arguments.user,
        "open_browser": arguments.open,
        "max_upload_mb": arguments.max_upload,
    }


def _own_pictures() -> list[Path]:
    """Return the current folder, unless it is too much to open to a page: the home folder, or one above it."""
    here = Path.cwd().resolve()
    return [] if Path.home().resolve().is_relative_to(here) else [here]
