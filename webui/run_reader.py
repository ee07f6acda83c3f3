"""Follows the log of a run: reads on where it stopped, and folds what is new. It writes nothing and holds no lock.

Any number of readers may follow one run, beside its trainer or long after it. A last line that is only half written is
left for the next time; one that is damaged is passed over and told as a warning.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from finetune.run.events import read_events_of
from finetune.run.folder import RunFolder
from webui.paths import open_plain
from webui.run_state import RunState, RunStatus, fold

# Few enough events that they stay in the processor's cache, and enough of them that a column is worth making.
_CHUNK_BYTES = 1 << 17

# What is remembered of a log to know it again: its first event's time, and the last one's, lie within.
_HEAD_BYTES = 256
_TAIL_BYTES = 512


@dataclass(frozen=True)
class Seen:
    """A run as it was just seen.

    Attributes:
        state: what its log amounts to.
        status: how it is.
        replaced: the log is not the one that was read before, so that everything was read anew.
    """

    state: RunState
    status: RunStatus
    replaced: bool = False


class RunReader:
    """One reader of a run's log."""

    def __init__(self, run: Path | RunFolder) -> None:
        """Follow the run at a folder. The log need not be there yet."""
        self.run = run if isinstance(run, RunFolder) else RunFolder(run)
        self.state = RunState()
        self._offset = 0
        self._head = b""
        self._tail = b""

    def update(self) -> Seen:
        """Read what is new and return how the run is.

        Raises:
            PermissionError: the log may not be read.
        """
        replaced = self._read()
        if self.state.log_status not in ("new", "running"):
            return Seen(self.state, self.state.status(locked=False), replaced)
        locked = is_locked(self.run)
        if not locked:
            # Between the reading and the look at the lock the run may have ended, and said so.
            replaced = self._read() or replaced
        return Seen(self.state, self.state.status(locked=locked), replaced)

    def _read(self) -> bool:
        """Fold what is new; return whether the log was another than before."""
        file = open_plain(self.run.events)
        if file is None:
            replaced = self._offset > 0
            self._forget()
            return replaced
        with file:
            replaced = not self._is_known(file)
            if replaced:
                self._forget()
            while True:
                events, end = read_events_of(file, self.run.events.name, self._offset, _CHUNK_BYTES)
                if end == self._offset:
                    break
                self.state = fold(self.state, events)
                self._offset = end
            self._remember(file)
        return replaced

    def _forget(self) -> None:
        self.state, self._offset, self._head, self._tail = RunState(), 0, b"", b""

    def _remember(self, file: BinaryIO) -> None:
        self._head = _bytes_at(file, 0, min(_HEAD_BYTES, self._offset))
        start = max(0, self._offset - _TAIL_BYTES)
        self._tail = _bytes_at(file, start, self._offset - start)

    def _is_known(self, file: BinaryIO) -> bool:
        """Whether the file still has what was read; a shorter one, or another in its place, has not."""
        start = self._offset - len(self._tail)
        return _bytes_at(file, 0, len(self._head)) == self._head and (
            _bytes_at(file, start, len(self._tail)) == self._tail
        )


def is_locked(run: RunFolder) -> bool:
    """Whether a process is writing the run; where the lock may not be tried, as on a read-only disk, none is."""
    try:
        return run.is_locked()
    except OSError:
        return False


def _bytes_at(file: BinaryIO, start: int, count: int) -> bytes:
    file.seek(start)
    return file.read(count)
