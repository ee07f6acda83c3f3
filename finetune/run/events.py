"""The run's log: one JSON object a line, appended by one writer, read by any number of readers.

An event has `seq` (1, 2, 3 … over the whole life of the run, resumed or not), `time` (seconds since 1970), `kind`,
`step` (optimizer steps done, or null) and its own data:

    run_started   name, total_steps, resumed_from (step or null), and whatever else identifies the run
    stage         name ('captions', 'latents', 'train', 'export' …), done and total where it has a length;
                  'cache' counts the values that are there, and has its folder, or null where it is in memory
    step          loss, learning_rates {group: number}, and measurements (grad_norm, epoch, samples, memory_bytes …);
                  prior_loss where the base is asked what is to stay
    preview       pictures: paths relative to the run folder
    checkpoint    path relative to the run folder
    warning       message
    command_done  id, command, message
    run_finished  status ('finished', 'stopped' or 'failed'), message, exports

A line is one `os.write` to a file opened for appending, so a reader never sees two lines mixed; it may see the last one
torn, when the writer was killed or the disk was full, and then leaves it. The log decides nothing: what the events
amount to is for whoever reads them.
"""

import json
import math
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self, TypeAlias, get_args

import orjson

from finetune.run.durable import disk_errors, fsync_path, json_bytes

EventKind = Literal["run_started", "stage", "step", "preview", "checkpoint", "warning", "command_done", "run_finished"]

EVENT_KINDS: tuple[EventKind, ...] = get_args(EventKind)

Event: TypeAlias = dict[str, Any]

# Rare events that a power cut should not take away; a step's line may wait for the next of these.
_FLUSHED_KINDS = frozenset({"run_started", "checkpoint", "command_done", "run_finished"})


class EventLog:
    """The writing end of `events.jsonl`. Hold the run folder's lock while one is open.

    Opening it cuts a torn last line off and goes on counting after the last whole one.
    """

    def __init__(self, path: Path) -> None:
        """Open the log at `path`, making it when it is not there. Raises DiskError."""
        self.path = path
        with disk_errors(path):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
            is_new = not path.exists()
            self._descriptor = os.open(path, flags, 0o666)
            try:
                self._seq = self._mend()
                if is_new:
                    fsync_path(path.parent)
            except BaseException:
                os.close(self._descriptor)
                raise

    def emit(self, kind: EventKind, step: int | None = None, **data: Any) -> Event:
        """Append one event and return it as readers will see it: numbers that are not finite are None.

        Args:
            kind: one of EVENT_KINDS.
            step: the number of optimizer steps done, where the event belongs to one.
            data: plain data (see `finetune.run.durable.plain_data`).

        Raises:
            DiskError: the line could not be written whole. The log is then as it was before the call.
        """
        assert kind in EVENT_KINDS, f"unknown event kind {kind!r}"
        assert not data.keys() & {"seq", "time"}, "seq and time are the log's own"
        event = {"seq": self._seq + 1, "time": round(time.time(), 3), "kind": kind, "step": step, **data}
        line = json_bytes(event)
        self._append(line + b"\n")
        self._seq += 1
        if kind in _FLUSHED_KINDS:
            self.sync()
        return json.loads(line)

    def sync(self) -> None:
        """Flush what has been written to the disk. Raises DiskError."""
        with disk_errors(self.path):
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file. The log cannot be written after it."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _append(self, line: bytes) -> None:
        with disk_errors(self.path):
            size = os.fstat(self._descriptor).st_size
            try:
                written = os.write(self._descriptor, line)
                if written < len(line):
                    # The space ended inside the line; the rest of it brings the error that says why.
                    rest = os.write(self._descriptor, line[written:])
                    assert written + rest == len(line), "a regular file took a line in more than two pieces"
            except OSError:
                os.ftruncate(self._descriptor, size)
                raise

    def _mend(self) -> int:
        """Cut off everything after the last whole line, and return the last event's seq."""
        events, end = read_events(self.path)
        if end < os.fstat(self._descriptor).st_size:
            os.ftruncate(self._descriptor, end)
        return max((event["seq"] for event in events if event["seq"] is not None), default=0)


def read_events(path: Path, offset: int = 0) -> tuple[list[Event], int]:
    """Return the whole events from byte `offset` on, and the offset to ask with next time.

    A torn last line is left for the next call. A damaged line in the middle (a disk's fault) comes back as a warning
    event with `seq` None. A log that does not exist yet is empty; one shorter than `offset` is another log, and is read
    from its start.
    """
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < offset:
                offset = 0
            return read_events_of(file, path.name, offset)
    except FileNotFoundError:
        return [], 0


def read_events_of(file: BinaryIO, name: str, offset: int, max_bytes: int = -1) -> tuple[list[Event], int]:
    """Return the whole events of an open log from byte `offset` on, as `read_events` does, and the offset behind them.

    Args:
        file: the log, open for reading.
        name: what messages call it.
        offset: where a line begins.
        max_bytes: read about that much at a time, at least a line; -1 reads all there is. Nothing more is there when
            the offset that comes back is the one that was given.
    """
    file.seek(offset)
    content = file.read(max_bytes)
    if 0 <= max_bytes <= len(content) and not content.endswith(b"\n"):
        content += file.readline()
    whole, newline, _torn = content.rpartition(b"\n")
    if not newline:
        return [], offset
    events = []
    position = offset
    for line in whole.split(b"\n"):
        events.append(parse_event(line) or _damage(name, position))
        position += len(line) + 1
    return events, position


def parse_event(line: bytes) -> Event | None:
    """Return the event a line holds, or None when it holds none."""
    try:
        event = orjson.loads(line)  # in a quarter of json's time: a page opens runs of a hundred thousand lines
    except orjson.JSONDecodeError:
        event = _parsed_patiently(line)
    if not isinstance(event, dict) or not isinstance(event.get("kind"), str):
        return None
    return event if type(event.get("seq")) is int else None


def _parsed_patiently(line: bytes) -> object:
    """Return what `json` reads in a line that orjson refuses: names of files that are no Unicode, and long numbers."""
    try:
        return json.loads(line.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        return None


def finite_number(value: object) -> float | None:
    """Return a number of an event; None for what is none, or not finite, as a damaged log may hold."""
    if type(value) is not float and type(value) is not int:
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _damage(name: str, position: int) -> Event:
    message = f"{name}: the line at byte {position} is damaged and was passed over"
    return {"seq": None, "time": None, "kind": "warning", "step": None, "message": message}
