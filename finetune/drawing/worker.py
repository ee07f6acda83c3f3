"""The generation worker: `python -m finetune.drawing.worker`. Requests come in on stdin, answers go out on stdout.

It is started by the page when pictures are asked for first, keeps the model open between requests, and ends by itself:
when nothing was asked for long, and when its stdin closes, which it does when the page dies, however it dies.
"""

import argparse
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import TextIO

from finetune.drawing.messages import (
    VERSION,
    Cancelled,
    CancelRequest,
    Done,
    Drawn,
    DrawRequest,
    Ended,
    Failed,
    Progress,
    Ready,
    parse_line,
)
from finetune.errors import AtelierError, RecipeError
from finetune.run.quiet import quiet_libraries

IDLE_SECONDS = 600.0
_PATIENCE_SECONDS = 20.0

Message = Ready | Progress | Drawn | Done | Cancelled | Failed | Ended


class Requests:
    """The lines that have come in, read in a thread: what is to be drawn, in order, and what no longer is."""

    def __init__(self, lines: Iterable[str], refuse: Callable[[Failed], None]) -> None:
        """Read `lines` until they end; `refuse` is told of those that cannot be read."""
        self._waiting: queue.Queue[DrawRequest | None] = queue.Queue()
        self._lock = threading.Lock()
        self._cancelled: set[str] = set()
        self._closed = threading.Event()
        threading.Thread(target=self._read, args=(lines, refuse), daemon=True).start()

    def next(self, idle_seconds: float) -> DrawRequest | None:
        """Return the next request, or None where the lines have ended.

        Raises:
            TimeoutError: none came for that long.
        """
        try:
            return self._waiting.get(timeout=idle_seconds)
        except queue.Empty as error:
            raise TimeoutError from error

    def is_cancelled(self, job: str) -> bool:
        """Whether a job is no longer wanted: it was cancelled, or nobody is there to see it."""
        with self._lock:
            return job in self._cancelled or self._closed.is_set()

    def _read(self, lines: Iterable[str], refuse: Callable[[Failed], None]) -> None:
        for line in lines:
            if not line.strip():
                continue
            try:
                asked = parse_line(line)
            except RecipeError as error:
                refuse(Failed(id=None, message=str(error), exit_code=error.exit_code))
                continue
            if isinstance(asked, CancelRequest):
                with self._lock:
                    self._cancelled.add(asked.id)
            else:
                self._waiting.put(asked)
        self._closed.set()
        self._waiting.put(None)
        time.sleep(_PATIENCE_SECONDS)  # a model that is being opened or downloaded asks nobody
        os._exit(1)


def serve(lines: Iterable[str], answer: Callable[[Message], None], idle_seconds: float) -> None:
    """Draw what the lines ask for until they end, or until none came for `idle_seconds`."""
    requests = Requests(lines, answer)
    answer(Ready(version=VERSION))
    from finetune.drawing.studio import DrawingCancelledError, Studio  # torch takes seconds; the page is answered first

    studio = Studio()
    while True:
        try:
            request = requests.next(idle_seconds)
        except TimeoutError:
            answer(Ended(reason=f"nothing was asked for {idle_seconds:.0f} seconds; the memory is free again"))
            return
        if request is None:
            return
        job = request.id
        try:
            answer(studio.draw(request, answer, lambda job=job: requests.is_cancelled(job)))  # type: ignore[misc]
        except DrawingCancelledError:
            answer(Cancelled(id=job))
        except AtelierError as error:
            answer(Failed(id=job, message=str(error), exit_code=error.exit_code))


def take_stdout() -> TextIO:
    """Return the process's stdout, and turn everything else that is printed, also from C, to stderr."""
    sys.stdout.flush()
    own = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return own


def main() -> int:
    """Run the worker in this process."""
    parser = argparse.ArgumentParser(description="Draw what is asked for on stdin, one JSON object a line.")
    parser.add_argument("--idle", type=float, default=IDLE_SECONDS, metavar="SECONDS", help="end after so long without")
    arguments = parser.parse_args()
    out = take_stdout()
    quiet_libraries()
    lock = threading.Lock()

    def answer(message: Message) -> None:
        with lock:
            out.write(message.model_dump_json() + "\n")
            out.flush()

    try:
        serve(sys.stdin, answer, arguments.idle)
    except BrokenPipeError:
        return 1  # nobody reads any more
    return 0


if __name__ == "__main__":
    sys.exit(main())
