"""The generation worker seen from the page: started when it is needed, spoken to in lines, ended with the page."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel

from finetune.drawing.messages import Cancelled, Done, Drawn, Ended, Failed, Progress, Ready, parse_answer
from finetune.errors import RecipeError

COMMAND = (sys.executable, "-m", "finetune.drawing.worker")

_ENDING_SECONDS = 5.0
_LOG_BYTES = 4096

Answer = Ready | Progress | Drawn | Done | Cancelled | Failed | Ended


class Worker:
    """One process. Its answers are handed over from a thread; the last call tells that it has ended."""

    def __init__(
        self,
        log: Path,
        on_answer: Callable[["Worker", Answer], None],
        on_end: Callable[["Worker", str], None],
        command: Sequence[str] = COMMAND,
    ) -> None:
        """Start it.

        Args:
            log: the file that takes what it prints besides its answers.
            on_answer: told of each answer.
            on_end: told once that it has ended, with its last words.
            command: what is started.

        Raises:
            OSError: it cannot be started.
        """
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [*command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                # A process group of its own: Ctrl-C on the page's terminal is the page's, which then closes stdin.
                start_new_session=os.name != "nt",
                encoding="utf-8",
            )
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._read, args=(on_answer, on_end), daemon=True)
        self._thread.start()

    def say(self, line: BaseModel) -> bool:
        """Send a line; False where the worker is there no more."""
        assert self._process.stdin is not None
        try:
            with self._lock:
                self._process.stdin.write(line.model_dump_json() + "\n")
                self._process.stdin.flush()
        except (OSError, ValueError):  # a broken pipe, or closed here already
            return False
        return True

    def close(self) -> None:
        """End the process: it is asked first, by closing its stdin."""
        self._close_stdin()
        try:
            self._process.wait(_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if threading.current_thread() is not self._thread:
            self._thread.join(_ENDING_SECONDS)

    def _read(self, on_answer: Callable[["Worker", Answer], None], on_end: Callable[["Worker", str], None]) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                try:
                    answer = parse_answer(line)
                except RecipeError:
                    self._process.kill()  # it speaks another language: what it says next cannot be trusted either
                    break
                on_answer(self, answer)
        code = self._process.wait()
        self._close_stdin()
        on_end(self, self._last_words(code))

    def _close_stdin(self) -> None:
        assert self._process.stdin is not None
        with self._lock, contextlib.suppress(OSError):  # it may have ended before the last line was taken
            self._process.stdin.close()

    def _last_words(self, code: int) -> str:
        """Return why it ended: the last line it printed, or how the system ended it."""
        if code == 0:
            return ""
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - _LOG_BYTES))
            lines = file.read().decode("utf-8", "replace").split("\n")
        spoken = [line.strip() for line in lines if line.strip()]
        if code in (-9, 137):
            return "the system ended it, as it does when memory runs out"
        return spoken[-1][:500] if spoken else f"exit code {code}"
