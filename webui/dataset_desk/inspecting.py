"""Inspections as processes: the command that a person would type, how far it is, what came of it. It decodes nothing.

What an inspection leaves lies in the page's own folder, and goes when the same folder is inspected again.
"""

import atexit
import re
import shlex
import shutil
import subprocess
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from finetune.cli.data_inspect import source_meant
from finetune.queue.items import PROGRAM
from webui.dataset_desk.errors import EditError
from webui.dataset_desk.report import Report, read_report

State = Literal["none", "running", "done", "failed", "cancelled"]
Key = tuple[Path, str]
"""A folder, and the ending of its caption files."""

MAX_RUNNING = 2
_KEPT = 6
_DONE_CODES = (0, 3)
"""3 says that something is wrong with the pictures: with a report, or where there is nothing to report on without."""
_PATIENCE_SECONDS = 3.0
_PROGRESS = re.compile(r"(?P<stage>[a-z]+) (?P<done>[0-9]+)/(?P<total>[0-9]+)", re.ASCII)
_TAIL_BYTES = 8192
_STAGES = {"reading": "Reading the pictures", "looking": "Looking for what is alike"}


@dataclass(frozen=True)
class Look:
    """How an inspection is.

    Attributes:
        state: how; 'none' where there was none.
        words: to be read by a person: how far it is, or what went wrong.
        done: pictures of this stage; total: how many there are, 0 where nobody knows.
        number: of the inspection, so that a new one is known.
    """

    state: State = "none"
    words: str = ""
    done: int = 0
    total: int = 0
    number: int = 0


@dataclass
class _Job:
    process: "subprocess.Popen[bytes]"
    folder: Path
    number: int
    report: Report | None = None
    failure: str = ""
    is_cancelled: bool = False
    before: Path | None = None
    """Where the inspection before this one lies."""
    lock: threading.Lock = field(default_factory=threading.Lock)


class Inspector:
    """Starts inspections, one of a folder at a time, and keeps the reports of the last few."""

    def __init__(self, scratch: Path) -> None:
        """Write below `scratch`, a folder of the page's own."""
        self.scratch = scratch
        self._jobs: OrderedDict[Key, _Job] = OrderedDict()
        self._lock = threading.Lock()
        self._number = 0
        atexit.register(self.stop)

    def start(self, folder: Path, extension: str) -> None:
        """Inspect a folder; one that is being inspected goes on.

        Raises:
            EditError: it cannot be, or too many are.
        """
        words = words_for(folder, extension)
        with self._lock:
            key = (folder, extension)
            if key in self._jobs and self._jobs[key].process.poll() is None:
                return
            if sum(job.process.poll() is None for job in self._jobs.values()) >= MAX_RUNNING:
                raise EditError(f"{MAX_RUNNING} folders are being inspected. Wait until one is done, or cancel it")
            self._number += 1
            place = self.scratch / f"{self._number:04d}"
            place.mkdir(parents=True)
            with (place / "report.json").open("wb") as out, (place / "said.txt").open("wb") as said:
                process = subprocess.Popen(
                    [*PROGRAM, *words, "--json", "--thumbnails", str(place / "small")],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=said,
                    start_new_session=True,
                )
            older = self._jobs.pop(key, None)
            self._jobs[key] = _Job(process, place, self._number)
            forgotten = []
            if older is not None:
                # The last report's small pictures are looked at until this one is done, and in other tabs: they stay.
                kept, gone = (older.before, older.folder) if older.is_cancelled else (older.folder, older.before)
                self._jobs[key].before = kept
                forgotten += [] if gone is None else [gone]
            while len(self._jobs) > _KEPT:
                oldest = self._jobs.popitem(last=False)[1]
                _end(oldest)
                forgotten += [each for each in (oldest.before, oldest.folder) if each is not None]
        for folder_of_old in forgotten:
            shutil.rmtree(folder_of_old, ignore_errors=True)

    def look(self, folder: Path, extension: str) -> Look:
        """Return how the newest inspection of a folder is."""
        job = self._jobs.get((folder, extension))
        if job is None:
            return Look()
        code = job.process.poll()
        if job.is_cancelled:
            return Look("cancelled", "The inspection was cancelled.", number=job.number)
        if code is None:
            words, done, total = _progress(_tail(job.folder / "said.txt"))
            return Look("running", words, done, total, job.number)
        if code not in _DONE_CODES or not (job.folder / "report.json").stat().st_size:
            said = _tail(job.folder / "said.txt").strip().splitlines()
            lines = [line for line in said if _PROGRESS.fullmatch(line) is None][-4:]
            words = "\n".join(lines).removeprefix("atelier: ") or f"The inspection ended with code {code}."
            return Look("failed", words, number=job.number)
        return Look("done", number=job.number)

    def report(self, folder: Path, extension: str) -> Report | None:
        """Return what the newest inspection of a folder found, once it is done.

        Raises:
            DataError: it has left no whole report.
        """
        job = self._jobs.get((folder, extension))
        if job is None or job.is_cancelled or job.process.poll() not in _DONE_CODES:
            return None
        with job.lock:
            if job.report is None:
                job.report = read_report((job.folder / "report.json").read_bytes(), job.folder / "small")
            return job.report

    def cancel(self, folder: Path, extension: str) -> None:
        """End an inspection that is running."""
        job = self._jobs.get((folder, extension))
        if job is not None and job.process.poll() is None:
            job.is_cancelled = True
            _end(job)

    def stop(self) -> None:
        """End all that is running, as the page ends."""
        for job in self._jobs.values():
            _end(job)


def words_for(folder: Path, extension: str) -> list[str]:
    """Return what a person would type after `atelier` to inspect a folder.

    Raises:
        EditError: it is a run's folder, whose recipe names pictures elsewhere.
    """
    source = source_meant(str(folder))
    if source is None:
        raise EditError(f"{folder}: holds a recipe.yaml, as the folder of a run does. Choose a folder of pictures")
    takes_extension = source["kind"] == "folder" and extension != ".txt"
    setting = [f"data.sources.0.caption_extension={extension}"] if takes_extension else []
    return ["data", "inspect", str(folder), *setting]


def line_for(folder: Path, extension: str, name: str = "") -> str:
    """Return the line to type that does the same; a sample that ships is called by its own name."""
    data, inspect, path, *setting = words_for(folder, extension)
    return shlex.join(["atelier", data, inspect, name if name.startswith("sample:") else path, *setting])


def _progress(said: str) -> tuple[str, int, int]:
    found = [match for match in map(_PROGRESS.fullmatch, said.splitlines()) if match is not None]
    if not found:
        return "Inspecting …", 0, 0
    stage, done, total = found[-1].group("stage", "done", "total")
    return f"{_STAGES.get(stage, stage.capitalize())}: {int(done):,} of {int(total):,}", int(done), int(total)


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _end(job: _Job) -> None:
    """End a job's process; its children end with it, as they read from it."""
    ask: Callable[[], None]
    for ask in (job.process.terminate, job.process.kill):
        if job.process.poll() is not None:
            return
        ask()
        try:
            job.process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            continue
