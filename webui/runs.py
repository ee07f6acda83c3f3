"""The runs that lie below some folders, newest first, with what a list shows of each. It opens no picture.

Of a long log only its beginning and its end are read, so that a list of many runs is there at once; the whole of one
run is `webui.run_reader`. No link is followed on the way down, and nothing outside the given folders is read.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from finetune.run.events import Event, read_events_of
from finetune.run.folder import RunFolder
from webui.paths import file_inside, open_plain
from webui.run_reader import is_locked
from webui.run_state import RunState, RunStatus, fold

_MAX_DEPTH = 6
_MAX_FOLDERS = 20_000
_END_BYTES = 1 << 17
_STEP_FOLDER = re.compile(r"step-(?P<step>[0-9]{6,9})", re.ASCII)
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class RunSummary:
    """A run in a list.

    Attributes:
        path: its folder, with no link in it.
        name: as its log says, or its folder's name: text from a file, not markup.
        status: how it is.
        step: optimizer steps done; total_steps: how many there will be, where the log's ends tell.
        loss: of the last step; loss_smoothed: its running mean over what was read.
        preview: the newest picture, a plain file in the run's folder, or None.
        updated_at: of the last event, seconds since 1970; where there is none, of the newest file of the run.
    """

    path: Path
    name: str
    status: RunStatus
    step: int
    total_steps: int | None
    loss: float | None
    loss_smoothed: float | None
    preview: Path | None
    updated_at: float


class RunList:
    """The runs below some folders; a log that has not changed is not read again."""

    def __init__(self, roots: Iterable[Path]) -> None:
        """Watch the folders `roots`, which may be links themselves and need not be there yet."""
        self.roots = tuple(Path(root) for root in roots)
        # By inode, size and time of change of the log.
        self._known: dict[Path, tuple[tuple[int, ...], RunState]] = {}

    def look(self) -> list[RunSummary]:
        """Return every run that is there now, the one that was written to last first."""
        found: dict[Path, RunSummary] = {}
        for path in find_runs(self.roots):
            if path in found:
                continue
            try:
                state = self._state_of(RunFolder(path))
                locked = state.log_status in ("new", "running") and is_locked(RunFolder(path))
                if state.log_status == "running" and not locked:
                    # Between the reading and the look at the lock the run may have ended, and said so.
                    state = self._state_of(RunFolder(path))
                found[path] = _summarize(RunFolder(path), state, locked=locked)
            except OSError:
                continue  # it was removed while it was read, or may not be read
        self._known = {path: held for path, held in self._known.items() if path in found}
        return sorted(found.values(), key=lambda run: (-run.updated_at, str(run.path)))

    def _state_of(self, run: RunFolder) -> RunState:
        """Return what the log's ends amount to."""
        file = open_plain(run.events)
        if file is None:
            return RunState()
        with file:
            status = os.fstat(file.fileno())
            mark = (status.st_ino, status.st_size, status.st_mtime_ns)
            held = self._known.get(run.path)
            if held is not None and held[0] == mark:
                return held[1]
            events, end = read_events_of(file, run.events.name, 0, _END_BYTES)
            if status.st_size - end > _END_BYTES:
                # Somewhere inside a line; the rest of that line is passed over.
                file.seek(status.st_size - _END_BYTES)
                file.readline()
                end = file.tell()
            later: list[Event] = []
            while True:
                more, next_end = read_events_of(file, run.events.name, end, _END_BYTES)
                if next_end == end:
                    break
                later, end = later + more, next_end
        state = fold(RunState(), events + later)
        self._known[run.path] = (mark, state)
        return state


def find_runs(roots: Iterable[Path]) -> Iterator[Path]:
    """Yield the folder of every run below `roots`, each root's own links resolved, and no link followed below it.

    What is marked as a cache (https://bford.info/cachedir), as ours are, is passed over.
    """
    for root in roots:
        try:
            start = Path(root).resolve(strict=True)
        except (OSError, RuntimeError):
            continue
        left = _MAX_FOLDERS
        waiting = [(start, 0)]
        while waiting and left > 0:
            folder, depth = waiting.pop()
            left -= 1
            names = _plain_entries(folder)
            if any(names.get(name) is False for name in ("recipe.yaml", "events.jsonl")):
                yield folder
            elif depth < _MAX_DEPTH and "CACHEDIR.TAG" not in names:
                inside = (name for name, is_folder in names.items() if is_folder and not name.startswith("."))
                waiting.extend((folder / name, depth + 1) for name in inside)


def newest_preview(run: RunFolder) -> Path | None:
    """Return the wall of the newest previews, or their first picture; None where there is none."""
    folders = [(int(match["step"]), name) for name, is_folder in _plain_entries(run.previews).items()
               if is_folder and (match := _STEP_FOLDER.fullmatch(name))]  # fmt: skip
    for _, name in sorted(folders, reverse=True):
        entries = _plain_entries(run.previews / name)
        pictures = sorted(entry for entry, is_folder in entries.items() if not is_folder and _is_picture(entry))
        if pictures:
            chosen = "wall.png" if "wall.png" in pictures else pictures[0]
            return file_inside(run.path, f"{run.previews.name}/{name}/{chosen}")
    return None


def _is_picture(name: str) -> bool:
    return name.lower().endswith(_PICTURES) and not name.startswith(".")


def _plain_entries(folder: Path) -> dict[str, bool]:
    """Return the names in a folder that are folders (True) or plain files (False), links and pipes left out."""
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            return {}
        with os.scandir(folder) as entries:
            return {
                entry.name: entry.is_dir(follow_symlinks=False)
                for entry in entries
                if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)
            }
    except OSError:
        return {}


def _summarize(run: RunFolder, state: RunState, *, locked: bool) -> RunSummary:
    updated_at = state.updated_at
    if updated_at is None:
        updated_at = max(path.lstat().st_mtime for path in (run.recipe, run.events) if path.exists())
    return RunSummary(
        path=run.path,
        name=state.name or run.path.name,
        status=state.status(locked=locked),
        step=state.step,
        total_steps=state.total_steps,
        loss=state.loss,
        loss_smoothed=state.loss_smoothed,
        preview=newest_preview(run),
        updated_at=updated_at,
    )
