"""Orders to a running trainer, left as files: save, preview, stop.

A sender (the page, a person's script) puts `commands/0003-save.json` there under a temporary name and renames it. The
trainer polls once per optimizer step, carries each out in the order of their numbers, and moves the file to
`commands/done`. A file that cannot be understood is moved to `commands/refused` beside a `.reason.txt`; it never stops
the run, and is never carried out in part. Nothing here does what a command asks.
"""

import json
import os
import re
import stat
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import filelock

from finetune.run.durable import disk_errors, rename, write_json, write_text
from finetune.run.folder import RunFolder

CommandKind = Literal["save", "preview", "stop"]

COMMAND_KINDS: tuple[CommandKind, ...] = get_args(CommandKind)

# A command is an order and a few values; anything larger is no command of ours.
_MAX_BYTES = 64 * 1024

_NAME = re.compile(r"(?P<number>[0-9]{4,9})-(?P<kind>[a-z]+)\.json", re.ASCII)


@dataclass(frozen=True)
class Command:
    """One order to the trainer.

    Attributes:
        id: the file's stem, `0003-save`.
        kind: what to do.
        data: what the order adds, plain data.
        path: the file, until `finish_command` moves it.
    """

    id: str
    kind: CommandKind
    data: dict[str, Any] = field(default_factory=dict)
    path: Path = Path()


def send_command(run: RunFolder, kind: CommandKind, **data: Any) -> str:
    """Leave a command for the trainer of `run`, and return its id. Any process may send.

    Raises:
        DiskError: it cannot be written.
    """
    assert kind in COMMAND_KINDS, f"unknown command {kind!r}"
    run.commands.mkdir(exist_ok=True)
    # Two senders must not take one number; the lock is theirs alone and the trainer never waits for it.
    with disk_errors(run.commands), filelock.FileLock(run.commands / ".lock", timeout=10):
        command_id = f"{_last_number(run) + 1:04d}-{kind}"
        content = {"id": command_id, "kind": kind, "time": round(time.time(), 3), "data": data}
        write_json(run.commands / f"{command_id}.json", content)
    return command_id


def poll_commands(run: RunFolder, on_refused: Callable[[str], None] | None = None) -> list[Command]:
    """Return the waiting commands in the order of their numbers, without carrying them out.

    Args:
        run: the trainer's own run.
        on_refused: called with a message for each file that was set aside.
    """
    commands = []
    for path in _waiting(run):
        problem = _problem_of_file(path)
        command = _parse(path) if problem is None else problem
        if isinstance(command, Command):
            commands.append(command)
            continue
        _set_aside(run, path, command)
        if on_refused is not None:
            on_refused(f"commands/{path.name}: set aside: {command}")
    return commands


def finish_command(run: RunFolder, command: Command) -> None:
    """Move a command that has been carried out to `commands/done`. The trainer emits `command_done` after it."""
    done = run.commands / "done"
    done.mkdir(exist_ok=True)
    rename(command.path, done / command.path.name)


def discard_commands(run: RunFolder, reason: str) -> list[str]:
    """Set every waiting command aside with `reason` and return their names.

    A trainer does this as it starts: a `stop` meant for the process before it must not end this one.
    """
    names = []
    for path in _waiting(run):
        _set_aside(run, path, reason)
        names.append(path.name)
    return names


def _waiting(run: RunFolder) -> list[Path]:
    """Every entry that is not a folder of ours or a hidden file, lower numbers first."""
    try:
        names = os.listdir(run.commands)  # noqa: PTH208 - names alone: this runs every step
    except FileNotFoundError:
        return []
    visible = [name for name in names if not name.startswith(".") and name not in ("done", "refused")]
    return [run.commands / name for name in sorted(visible, key=_order)]


def _order(name: str) -> tuple[int, str]:
    match = _NAME.fullmatch(name)
    return (int(match["number"]) if match else 0, name)


def _problem_of_file(path: Path) -> str | None:
    """Say what keeps the file from being opened as a command: a FIFO would block and a link may lead anywhere."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        return "a command's file is named like 0003-save.json"
    if match["kind"] not in COMMAND_KINDS:
        return f"unknown command {match['kind']!r}. Known: {', '.join(COMMAND_KINDS)}"
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        return "not a plain file"
    if status.st_size > _MAX_BYTES:
        return f"{status.st_size} bytes; a command has at most {_MAX_BYTES}"
    return None


def _parse(path: Path) -> Command | str:
    """Return the command in a file, or what is wrong with it."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return "not JSON"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not isinstance(content, dict):
        return "not a JSON object"
    kind, data = content.get("kind"), content.get("data", {})
    if kind != path.stem.partition("-")[2]:
        return f"the name and the kind {kind!r} inside do not agree"
    if not isinstance(data, dict):
        return "'data' is not a JSON object"
    return Command(id=path.stem, kind=kind, data=data, path=path)


def _set_aside(run: RunFolder, path: Path, reason: str) -> None:
    refused = run.commands / "refused"
    refused.mkdir(exist_ok=True)
    target = refused / path.name
    if target.exists() or target.is_symlink():
        target = refused / f"{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}"
    rename(path, target)
    write_text(refused / f"{target.name}.reason.txt", reason + "\n")


def _last_number(run: RunFolder) -> int:
    """Return the highest number that was ever given, waiting, done or refused."""
    highest = 0
    for folder in (run.commands, run.commands / "done", run.commands / "refused"):
        if folder.is_dir():
            highest = max([highest, *(_order(path.name)[0] for path in folder.iterdir())])
    return highest
