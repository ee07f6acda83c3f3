"""Jobs of the playground: one is drawn at a time, a few wait, and what came of each lies on the disk."""

import atexit
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from finetune.drawing.messages import (
    Cancelled,
    CancelRequest,
    Done,
    Drawn,
    DrawRequest,
    Ended,
    Failed,
    Progress,
    words_of,
)
from finetune.errors import RecipeError
from finetune.run.durable import write_json
from webui.playground.worker import COMMAND, Answer, Worker

MOST_WAITING = 3
"""Jobs that may wait behind the one that is drawn."""

Status = Literal["waiting", "drawing", "done", "cancelled", "failed"]


@dataclass(frozen=True)
class Job:
    """What is known of a job.

    Attributes:
        request: as it was asked.
        status: how it is.
        progress: the last that was heard of it, or None.
        pictures: those that are written, oldest first.
        grid: all of them in one file, or None.
        words: why it failed, or what is drawn otherwise than meant: text, not markup.
        version: counts the changes, so that a page need not look twice.
    """

    request: DrawRequest
    status: Status = "waiting"
    progress: Progress | None = None
    pictures: tuple[Drawn, ...] = ()
    grid: str | None = None
    words: str = ""
    version: int = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it."""
        return self.status in ("done", "cancelled", "failed")


class Playground:
    """Takes jobs, has them drawn by a worker that it starts when there is something to draw, and remembers them."""

    def __init__(self, folder: Path, command: Sequence[str] = COMMAND) -> None:
        """Keep jobs and pictures below `folder`, which need not be there yet; start the worker with `command`."""
        self.folder = folder
        self._command = tuple(command)
        self._lock = threading.RLock()
        self._jobs: dict[str, Job] = {}
        self._waiting: list[str] = []
        self._current: str | None = None
        self._worker: Worker | None = None
        self._closed = False
        atexit.register(self.close)

    def ask(self, settings: dict[str, Any]) -> str:
        """Take a job and return its name.

        Args:
            settings: of a `DrawRequest`, without its id and folder.

        Raises:
            RecipeError: it cannot be drawn so, or too many wait already.
        """
        with self._lock:
            if len(self._waiting) >= MOST_WAITING:
                raise RecipeError(f"{MOST_WAITING} jobs wait already. Wait for one, or cancel one")
            number = 1 + max((int(path.name) for path in self.folder.glob("*") if path.name.isdecimal()), default=0)
            name = f"{number:04d}"
            folder = self.folder / name
            try:
                request = DrawRequest(**settings, id=name, folder=str(folder))
            except ValidationError as error:
                raise RecipeError(words_of(error)) from error
            folder.mkdir(parents=True)
            self._keep(Job(request))
            self._waiting.append(name)
            self._go_on()
            return name

    def look(self, name: str) -> Job | None:
        """Return what is known of a job, or None where there is none of that name."""
        with self._lock:
            return self._jobs.get(name)

    def newest(self) -> str | None:
        """Return the job that was asked for last."""
        with self._lock:
            return max(self._jobs, default=None)

    def ahead_of(self, name: str) -> int:
        """Return how many jobs are drawn before this one."""
        with self._lock:
            return self._waiting.index(name) + (self._current is not None) if name in self._waiting else 0

    def cancel(self, name: str) -> None:
        """Stop a job; what it has drawn stays."""
        with self._lock:
            if name in self._waiting:
                self._waiting.remove(name)
                self._change(name, status="cancelled")
            elif name == self._current and self._worker is not None:
                self._worker.say(CancelRequest(id=name))

    def close(self) -> None:
        """End the worker; nothing is drawn any more."""
        with self._lock:
            self._closed = True
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()
        atexit.unregister(self.close)

    def _go_on(self) -> None:
        """Give the worker the next job, if it has none; start it if it is not there."""
        if self._current is not None or not self._waiting or self._closed:
            return
        name = self._waiting[0]
        if self._worker is None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._worker = Worker(self.folder / "worker.log", self._hear, self._end, self._command)
            except OSError as error:
                self._waiting.remove(name)
                self._change(name, status="failed", words=f"the drawing process cannot be started: {error}")
                return
        if self._worker.say(self._jobs[name].request):
            self._current = self._waiting.pop(0)
            starting = Progress(id=name, stage="starting", pictures=self._jobs[name].request.count())
            self._change(name, status="drawing", progress=starting)
        # else it is about to tell that it has ended, and the job is given to the next one

    def _hear(self, worker: Worker, answer: Answer) -> None:
        with self._lock:
            if worker is not self._worker:
                return
            match answer:
                case Progress(id=name) if name in self._jobs:
                    self._change(name, progress=answer)
                case Drawn(id=name) if name in self._jobs:
                    self._change(name, pictures=(*self._jobs[name].pictures, answer))
                case Done(id=name):
                    self._finish(name, "done", "\n".join(answer.warnings), answer.grid)
                case Cancelled(id=name):
                    self._finish(name, "cancelled", "")
                case Failed(id=name):
                    self._finish(name or self._current or "", "failed", answer.message)
                case Ended():
                    self._worker = None
                    if self._current is not None:  # asked for as it was ending: it is for the next one
                        self._waiting.insert(0, self._current)
                        self._change(self._current, status="waiting", progress=None)
                        self._current = None
                    self._go_on()

    def _end(self, worker: Worker, last_words: str) -> None:
        with self._lock:
            if worker is not self._worker:
                return
            self._worker = None
            if self._current is not None:
                why = f"the drawing process ended: {last_words or 'without a word'}. "
                self._finish(self._current, "failed", why + "It starts anew with the next picture")
            self._go_on()

    def _finish(self, name: str, status: Status, words: str, grid: str | None = None) -> None:
        if name in self._jobs:
            self._change(name, status=status, words=words, grid=grid)
        if name == self._current:
            self._current = None
        self._go_on()

    def _change(self, name: str, **changes: Any) -> None:
        job = self._jobs[name]
        self._keep(replace(job, **changes, version=job.version + 1))

    def _keep(self, job: Job) -> None:
        self._jobs[job.request.id] = job
        if job.is_over or not job.version:
            write_record(job)


def write_record(job: Job) -> None:
    """Write a job beside its pictures, for people and for other programs."""
    record = {
        "request": job.request.model_dump(mode="json"),
        "status": job.status,
        "pictures": [picture.model_dump(mode="json") for picture in job.pictures],
        "grid": job.grid,
        "words": job.words,
    }
    write_json(Path(job.request.folder) / "job.json", record)
