"""Undo and redo of changes to the captions of one folder, kept on the disk in the page's own folder.

A change is written down before the first file is touched. What was changed elsewhere since is never written over: then
nothing is undone at all. One writer at a time.
"""

import base64
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import AtelierError
from finetune.run.durable import write_bytes
from webui.dataset_desk.captions import Put, write_puts
from webui.dataset_desk.errors import ConflictError, EditError
from webui.dataset_desk.slots import Raw, Slot

MAX_CHANGES = 100


@dataclass(frozen=True)
class Step:
    """A change that can be undone or redone: what it was, in words, and how many captions it concerned."""

    what: str
    num_captions: int


class History:
    """The changes of one folder's captions, made through it."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        """Begin, or go on with what lies in `scratch`, which is made.

        Args:
            folder: of pictures.
            scratch: of this history alone.
        """
        self.folder, self.scratch = folder, scratch
        self._lock = threading.Lock()
        scratch.mkdir(parents=True, exist_ok=True)
        for path in scratch.glob("*.pending"):
            path.unlink()  # of a page that ended in the midst of writing: files were put back, or hold either version

    def apply(self, what: str, puts: Sequence[Put]) -> None:
        """Write captions, and remember how they were; what could be redone no longer can.

        Raises:
            EditError: nothing was changed; a `ConflictError` where something else changed them.
        """
        if not puts:
            return
        with self._lock:
            done, undone = self._names("done"), self._names("undone")
            number = 1 + max([0, *(int(path.stem) for path in done)])
            pending = self.scratch / f"{number:06d}.pending"
            write_bytes(pending, _packed(what, puts), flush=False)
            try:
                write_puts(self.folder, puts)
            except (AtelierError, OSError):
                pending.unlink()
                raise
            for path in (*undone, *done[: len(done) + 1 - MAX_CHANGES]):
                path.unlink()
            pending.replace(pending.with_suffix(".done"))

    def undo(self) -> Step:
        """Put back what the last change changed; return what it was.

        Raises:
            EditError: there is none, or a file was changed since; then nothing is undone.
        """
        with self._lock:
            done = self._names("done")
            if not done:
                raise EditError("There is nothing to undo")
            return self._turn(done[-1], "undone", backwards=True)

    def redo(self) -> Step:
        """Do again what was undone last; return what it was.

        Raises:
            EditError: there is none, or a file was changed since; then nothing is redone.
        """
        with self._lock:
            undone = self._names("undone")
            if not undone:
                raise EditError("There is nothing to redo")
            return self._turn(undone[0], "done", backwards=False)

    def next_undo(self) -> Step | None:
        """Return what `undo` would undo."""
        done = self._names("done")
        return _unpacked(done[-1])[0] if done else None

    def next_redo(self) -> Step | None:
        """Return what `redo` would do again."""
        undone = self._names("undone")
        return _unpacked(undone[0])[0] if undone else None

    def _turn(self, path: Path, suffix: str, *, backwards: bool) -> Step:
        step, puts = _unpacked(path)
        try:
            write_puts(self.folder, [put.reversed() for put in puts] if backwards else puts)
        except ConflictError as error:
            word = "undo" if backwards else "redo"
            raise ConflictError(error.names, f"It is all or nothing: put them back to {word} '{step.what}'") from error
        path.replace(path.with_suffix(f".{suffix}"))
        return step

    def _names(self, suffix: str) -> list[Path]:
        return sorted(self.scratch.glob(f"*.{suffix}"))


def _packed(what: str, puts: Sequence[Put]) -> bytes:
    """Return a change as JSON."""
    return json.dumps({
        "what": what,
        "puts": [
            {"file": put.slot.file, "kind": put.slot.kind, "key": put.slot.key,
             "before": _as_text(put.before), "after": _as_text(put.after)}
            for put in puts
        ],
    }).encode()  # fmt: skip


def _unpacked(path: Path) -> tuple[Step, list[Put]]:
    data: dict[str, Any] = json.loads(path.read_bytes())
    puts = [
        Put(Slot(each["file"], each["kind"], each["key"]), _as_bytes(each["before"]), _as_bytes(each["after"]))
        for each in data["puts"]
    ]
    return Step(data["what"], len(puts)), puts


def _as_text(raw: Raw) -> str | None:
    return None if raw is None else base64.b64encode(raw).decode("ascii")


def _as_bytes(text: str | None) -> Raw:
    return None if text is None else base64.b64decode(text)
