"""The parent's side of one decoding process: starting it, asking it, and knowing why it ended.

It is a plain child with pipes, not one of `multiprocessing`'s: those import the parent's main module, with torch in it,
and talk in pickles. What it does is in `decoding_child`; many of them, and what to do when one dies, in `decoders`.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from imagesets.errors import DecoderError, PictureError
from imagesets.files import PictureBytes
from imagesets.opening.messages import MessageError, read_message, write_message

_PROGRAM = (
    "import json, sys; start = json.loads(sys.argv[1]); sys.path[:] = start['path']; "
    "from importlib import import_module; "
    "import_module(start['module']).main(start['memory_bytes'], start['cpu_seconds'])"
)
_START_SECONDS = 120.0
_GREETING_BYTES = 0
# A second thread would reserve address space for an arena of its own, and BLAS for a stack each core.
_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

FailureKind = Literal["time", "memory", "crash"]


@dataclass(frozen=True)
class DecodingLimits:
    """What one picture may cost.

    Attributes:
        memory_bytes: beyond what the libraries take.
        cpu_seconds: of processor time, which a busy machine does not use up.
        wall_seconds: until it is given up, whatever it waits for; reading the file counts.
        max_pixels: of the picture; no answer is longer than this many pixels.
    """

    memory_bytes: int
    cpu_seconds: float
    wall_seconds: float
    max_pixels: int

    @staticmethod
    def for_pixels(max_pixels: int) -> "DecodingLimits":
        """Return limits that every sound picture of up to so many pixels keeps to with room to spare."""
        cpu_seconds = 10.0 + max_pixels * 0.5e-6
        return DecodingLimits(384 * 2**20 + 32 * max_pixels, cpu_seconds, 10 * cpu_seconds, max_pixels)


@dataclass(frozen=True)
class Request:
    """One picture, and what to do with it.

    Attributes:
        message: what is asked, as `decoding_child` takes it.
        content: returns the picture's bytes, or raises a PictureError; None where the child reads the file itself.
    """

    message: dict[str, Any]
    content: PictureBytes | None = None


Answer = tuple[dict[str, Any], bytes]


class DecodingFailure(Exception):  # noqa: N818  # it is a finding about a file, turned into an error by `decoders`
    """The process ended, or had to be ended, over a picture.

    Attributes:
        kind: what it was.
        reason: for a person, to stand after the picture's name.
    """

    def __init__(self, kind: FailureKind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason

    @classmethod
    def by_nonsense(cls) -> "DecodingFailure":
        """Return that of a process whose answers make no sense."""
        return cls.by_crash("it talks nonsense")

    @classmethod
    def by_crash(cls, how: str) -> "DecodingFailure":
        """Return that of a process that ended."""
        return cls(
            "crash",
            f"decoding it ends the process that does so ({how}): it is damaged, or made to do harm. "
            "Save or download it again, or remove it",
        )


class DecodingProcess:
    """One child. It is used by one thread at a time; `check` and `interrupt` may be called from another."""

    def __init__(self, limits: DecodingLimits, module: str) -> None:
        """Start it and wait until it has loaded its libraries.

        Args:
            limits: what a picture may cost.
            module: whose `main` it runs.

        Raises:
            DecoderError: it does not start.
        """
        self._limits = limits
        self._ended_by: FailureKind | None = None
        self._deadline: float | None = None
        start = {"path": sys.path, "module": module, **_child_limits(limits)}
        with tempfile.TemporaryFile() as said:
            try:
                # Out of the terminal's process group, so that Ctrl-C reaches the parent alone.
                self._child = subprocess.Popen(
                    [sys.executable, "-P", "-c", _PROGRAM, json.dumps(start)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    env={**os.environ, **_ENVIRONMENT},
                    **_own_group(),
                )
            except OSError as error:
                raise DecoderError(f"pictures cannot be decoded: no process can be started: {error}") from error
            self.pid = self._child.pid
            try:
                self.enforced = self._greeting()
            except (OSError, EOFError, MessageError, KeyError) as error:
                self.kill()
                said.seek(0)
                lines = said.read().decode("utf-8", "replace").strip().splitlines() or [f"{type(error).__name__}"]
                raise DecoderError(
                    f"pictures cannot be decoded: the process for it does not start: {lines[-1]}"
                ) from error
            except BaseException:
                self.kill()
                raise

    def _greeting(self) -> dict[str, bool]:
        """Wait for the first message, and return which limits the kernel keeps there."""
        assert self._child.stdout is not None
        timer = threading.Timer(_START_SECONDS, self.interrupt)
        timer.start()
        try:
            return dict(read_message(self._child.stdout, _GREETING_BYTES)[0]["ready"])
        finally:
            timer.cancel()

    def answers(self, requests: Sequence[Request]) -> Iterator[Answer | PictureError]:
        """Ask, and yield what comes back, one for each request and in their order.

        Raises:
            DecodingFailure: the process is gone over the first request that has no answer yet.
        """
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        # What the child reads itself is asked all at once, so that it never waits for the next question.
        at_once = all(request.content is None for request in requests)
        try:
            if at_once:
                for request in requests:
                    write_message(self._child.stdin, request.message)
            for request in requests:
                if not at_once:
                    try:
                        content = b"" if request.content is None else request.content()
                    except PictureError as error:
                        yield error
                        continue
                    self._deadline = time.monotonic() + self._limits.wall_seconds
                    write_message(self._child.stdin, request.message, content)
                self._deadline = time.monotonic() + self._limits.wall_seconds
                message, pixels = read_message(self._child.stdout, 3 * self._limits.max_pixels)
                self._deadline = None
                if message.get("out_of_memory") is True:
                    self._ended_by = "memory"
                    raise self._failure()
                yield message, pixels
        except (OSError, EOFError, MessageError) as error:
            raise self._failure() from error

    def check(self, now: float) -> None:
        """End it where its picture takes too long, or, where the kernel does not see to it, too much memory."""
        deadline = self._deadline
        if deadline is None:
            return
        if now > deadline:
            self._ended_by = "time"
            self.interrupt()
        elif not self.enforced["memory"] and _resident_bytes(self.pid) > self._limits.memory_bytes:
            self._ended_by = "memory"
            self.interrupt()

    def has_ended(self) -> bool:
        """Whether it has ended by itself, as it does when it has had nothing to do for a while."""
        return self._child.poll() is not None

    def interrupt(self) -> None:
        """End it from another thread; the one that uses it meets a DecodingFailure and cleans up."""
        self._child.kill()

    def kill(self) -> None:
        """End it at once."""
        self._child.kill()
        self._close()

    def _close(self) -> None:
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            assert stream is not None
            # What was not yet written has no reader any more.
            with contextlib.suppress(OSError):
                stream.close()

    def _failure(self) -> DecodingFailure:
        """End it and say why it is no longer of use."""
        if self._ended_by is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(timeout=1.0)  # its own exit code tells more than a kill of ours leaves
        code = self._child.poll()
        self.kill()
        kind = self._ended_by
        if kind is None and sys.platform != "win32" and code == -signal.SIGPROF:
            kind = "time"
        limits = self._limits
        if kind == "time":
            return DecodingFailure(
                kind,
                f"decoding it takes more than {limits.cpu_seconds:g} seconds of work or {limits.wall_seconds:g} in "
                "all, as a file does that is made to hold a machine up: save it again as a plain PNG or JPEG",
            )
        if kind == "memory":
            return DecodingFailure(
                kind,
                f"decoding it takes more than {limits.memory_bytes / 2**20:.0f} MiB of memory: save it again as a "
                "plain PNG or JPEG, or make it smaller",
            )
        return DecodingFailure.by_nonsense() if code is None else DecodingFailure.by_crash(_how_it_ended(code))


def _child_limits(limits: DecodingLimits) -> dict[str, float]:
    return {"memory_bytes": limits.memory_bytes, "cpu_seconds": limits.cpu_seconds}


def _own_group() -> dict[str, Any]:
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"process_group": 0}


def _resident_bytes(pid: int) -> int:
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0  # it is gone, which its reader will notice


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
