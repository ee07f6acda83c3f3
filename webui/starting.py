"""Starts what a person would type, as processes of their own that outlive the page, and knows how they fare."""

import contextlib
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finetune.errors import RecipeError
from finetune.queue.items import PROGRAM
from finetune.run.durable import disk_errors

LOGS = "_page/logs"
"""Below the first folder of runs: what started commands print."""

_TAIL_BYTES = 16_384
_KEPT = 50


@dataclass(frozen=True)
class Started:
    """A command that was started.

    Attributes:
        words: what a person would type after `atelier`.
        process: the child; it is a session of its own, so that no signal meant for the page reaches it.
        log: what it prints.
        started_at: seconds since 1970.
        log_start: where in the log its own words begin.
        run: the key of the run that it trains, if any; its folder may not be there yet.
    """

    words: tuple[str, ...]
    process: "subprocess.Popen[bytes]"
    log: Path
    started_at: float
    log_start: int
    run: str = ""

    @property
    def line(self) -> str:
        """The line to type."""
        return shlex.join(["atelier", *self.words])

    def exit_code(self) -> int | None:
        """Return its exit code as a shell has it, or None while it runs."""
        code = self.process.poll()
        return code if code is None or code >= 0 else 128 - code

    def wait_for_end(self, seconds: float) -> None:
        """Return when it has ended, or after so many seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)

    def last_lines(self, count: int = 12) -> str:
        """Return the last lines that it printed: text, not markup."""
        try:
            with self.log.open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(self.log_start, end - _TAIL_BYTES))
                printed = file.read()
        except OSError:
            return ""
        return "\n".join(printed.decode("utf-8", "replace").splitlines()[-count:])


@dataclass
class Starter:
    """Starts commands and remembers the newest; one for a page, used by many threads."""

    folder: Path
    started: list[Started] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, words: Sequence[str], log_name: str, *, run: str = "") -> Started:
        """Start `atelier WORDS…` in the current folder.

        Args:
            words: as they would be typed; never put together to a shell's line.
            log_name: of its log, a plain name without ending; an older log is written on.
            run: the key of the run that it will train, if any.

        Raises:
            RecipeError: the run is being started already, by a click before or in another tab.
            DiskError: the log cannot be written.
        """
        with self._lock:
            return self._start(words, log_name, run)

    def _start(self, words: Sequence[str], log_name: str, run: str) -> Started:
        before = self.of_run(run) if run else None
        if before is not None and before.exit_code() is None:
            raise RecipeError(f"{run}: it was started already, here or in another tab. Give it a moment")
        assert "/" not in log_name, "a name, not a path"
        assert "\\" not in log_name, "a name, not a path"
        log = self.folder / LOGS / f"{log_name}.log"
        with disk_errors(log):
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as output:
                start = output.tell()
                output.write(f"$ {shlex.join(['atelier', *words])}\n".encode())
                output.flush()
                process = subprocess.Popen(
                    [*PROGRAM, *words],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    creationflags=_apart(),
                )
        started = Started(tuple(words), process, log, time.time(), start, run)
        self.started = [started, *self.started][:_KEPT]
        return started

    def of_run(self, key: str) -> Started | None:
        """Return the newest command that was to train a run."""
        return next((each for each in self.started if each.run == key), None)


def _apart() -> int:
    """Return the flags that keep a child apart from the page's console on Windows; nothing elsewhere."""
    if sys.platform != "win32":
        return 0
    return subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
