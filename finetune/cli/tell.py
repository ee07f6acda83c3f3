"""`atelier tell`: ask a run that trains now to save, to draw its previews, or to save and stop."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.cli.arguments import add_json_argument
from finetune.cli.output import print_json
from finetune.errors import RecipeError

if TYPE_CHECKING:
    from finetune.run.folder import RunFolder

_DONE = {
    "save": "it saves after the step it is at",
    "preview": "it draws its previews after the step it is at",
    "stop": "it saves after the step it is at, and stops",
}


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "tell",
        help="ask a run that trains now to save, preview or stop",
        description="Leave an order for the process that trains a run: it is looked for once a step.",
    )
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="a run's folder")
    parser.add_argument("order", metavar="ORDER", choices=tuple(_DONE), help="save, preview or stop")
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Leave the order."""
    from finetune.run.commands import send_command
    from finetune.run.folder import RunFolder

    run_folder = RunFolder.open(arguments.run_folder)
    require_running(run_folder)
    command_id = send_command(run_folder, arguments.order)
    if arguments.json:
        print_json({"id": command_id})
    else:
        print(f"{command_id}: {_DONE[arguments.order]}")
    return 0


def require_running(run_folder: "RunFolder") -> None:
    """Refuse to tell a run something that no process would hear.

    Raises:
        RecipeError: nothing trains there now.
    """
    if not run_folder.is_locked():
        raise RecipeError(
            f"{run_folder.path}: nothing trains there now. Go on with it: atelier train {run_folder.path} --resume"
        )
