"""Opens pictures in child processes of bounded memory and time, so that no file can take its reader down.

A child that crashes, hangs or wants too much memory costs the one picture it was at, which is refused with the reason;
another child goes on. What ended a child other than by time is tried once more, alone in a fresh one: no picture is
refused for what another left behind. Which limits the system itself keeps to is in `decoding_process`; a child can
still read what its user can read: it is a fuse, not a prison.
"""

import functools
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from imagesets.colours import Colour
from imagesets.decoding import FORMATS
from imagesets.errors import PictureError
from imagesets.files import FileInFolder, PictureBytes, shown_name
from imagesets.framing import Frame, Size
from imagesets.masks import SampleMask
from imagesets.opening.decoding_process import Answer, DecodingFailure, DecodingLimits, DecodingProcess, Request
from imagesets.pictures import Levels, MaskFacts, PictureFacts, Pixels

_CHILD_MODULE = "imagesets.opening.decoding_child"
_WATCH_SECONDS = 0.1
_MAX_REASON = 1000

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Examined:
    """What is known of a picture that can be used.

    Attributes:
        sha256: of its bytes, in hexadecimal.
        facts: its size, colour mode and so on.
    """

    sha256: str
    facts: PictureFacts


@dataclass(frozen=True, slots=True)
class ExaminedMask:
    """What is known of a mask's file that can be used.

    Attributes:
        sha256: of its bytes, in hexadecimal.
        facts: its size and how much of it is white.
    """

    sha256: str
    facts: MaskFacts


class DecodersStopped(Exception):  # noqa: N818  # it is no error, but an end that was asked for
    """`stop` was called while pictures were being opened."""


class _Children:
    """The processes of one pool, and the thread that ends those that take too long and buries those that are done."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.stopped = False
        self._lock = threading.Lock()
        self._idle: list[DecodingProcess] = []
        self._busy: set[DecodingProcess] = set()
        self._watch: threading.Thread | None = None

    def take(self) -> DecodingProcess | None:
        """Return an idle one, which is busy from then on."""
        with self._lock:
            child = self._idle.pop() if self._idle else None
            if child is not None:
                self._busy.add(child)
            return child

    def add(self, child: DecodingProcess) -> None:
        """Count a new one among the busy."""
        with self._lock:
            self._busy.add(child)
            if self._watch is None:
                self._watch = threading.Thread(target=self._look_after, name="decoding watch", daemon=True)
                self._watch.start()

    def give_back(self, child: DecodingProcess) -> None:
        """Make a busy one idle."""
        with self._lock:
            self._busy.discard(child)
            if not self.stopped:
                self._idle.append(child)
                return
        child.kill()

    def drop(self, child: DecodingProcess) -> None:
        """Forget a busy one, which is gone."""
        with self._lock:
            self._busy.discard(child)

    def interrupt(self) -> None:
        """End all at once; those who use one meet a failure, and none is kept any more."""
        with self._lock:
            self.stopped = True
            idle, self._idle = self._idle, []
            for child in self._busy:
                child.interrupt()
        for child in idle:
            child.kill()

    def end(self) -> None:
        """End all when the pool is gone; a fork of its process leaves them alone."""
        if os.getpid() == self.owner:
            self.interrupt()

    def _look_after(self) -> None:
        while True:
            time.sleep(_WATCH_SECONDS)
            with self._lock:
                ended = [child for child in self._idle if child.has_ended()]
                self._idle = [child for child in self._idle if child not in ended]
                now = time.monotonic()
                for child in self._busy:
                    child.check(now)
                if not (self._idle or self._busy):
                    self._watch = None
                done = self._watch is None
            for child in ended:
                child.kill()
            if done:
                return


class Decoders:
    """A pool of decoding processes. Any number of threads may use it.

    A process is started when it is needed, and ends by itself when it has had nothing to do for a while. Used as a
    context manager, the pool ends them all at the end of the block, otherwise when it is no longer referred to.
    """

    def __init__(self, limits: DecodingLimits, num_processes: int | None = None, module: str = _CHILD_MODULE) -> None:
        """Prepare a pool; nothing is started yet.

        Args:
            limits: what one picture may cost.
            num_processes: at once, at most; None for one each core, as far as memory allows.
            module: whose `main` the processes run.
        """
        self.limits = limits
        self.num_processes = num_processes or _num_processes(limits)
        self._module = module
        self._places = threading.BoundedSemaphore(self.num_processes)
        self._children = _Children()
        self._finalizer = weakref.finalize(self, self._children.end)

    def __enter__(self) -> "Decoders":
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End its processes."""
        self.stop()

    def examine(
        self, files: Sequence[tuple[PictureBytes, str | None]], background: Colour, max_pixels: int
    ) -> list[Examined | PictureError]:
        """Open pictures whole, as training will, one after the other in one process, and say what they are.

        Args:
            files: what returns each picture's bytes, and its name's ending, to find mislabelled files.
            background: the colour under what is see-through.
            max_pixels: above this many, a picture is refused before a pixel is decoded.

        Returns:
            For each what it is, or why it cannot be used.

        Raises:
            DecoderError: no process can be started.
            DecodersStopped: `stop` was called meanwhile.
        """
        settings = {"do": "examine", "background": background, "max_pixels": max_pixels}
        requests = [_request(content, {**settings, "extension": extension}) for content, extension in files]
        return self._ask(requests, _examined)

    def load(self, content: PictureBytes, sha256: str, background: Colour, max_pixels: int) -> Image.Image:
        """Return a picture upright, in 8-bit sRGB.

        Args:
            content: what returns the picture's bytes.
            sha256: of its bytes, when they were last looked at.
            background: the colour under what is see-through.
            max_pixels: above this many, it is refused.

        Raises:
            PictureError: it cannot be used, or has changed.
            DecoderError: no process can be started.
        """
        settings = {"do": "load", "sha256": sha256, "background": background, "max_pixels": max_pixels}
        return Image.fromarray(self._array(content, settings, _pixels))

    def render(self, content: PictureBytes, sha256: str, background: Colour, max_pixels: int, frame: Frame) -> Pixels:
        """Return a picture's pixels in a frame, (H, W, 3), uint8.

        Args:
            content: what returns the picture's bytes.
            sha256: of its bytes, when they were last looked at.
            background: the colour under what is see-through.
            max_pixels: above this many, it is refused.
            frame: how it is resized, cut and mirrored.

        Raises:
            PictureError: it cannot be used, or has changed.
            DecoderError: no process can be started.
        """
        settings = {"do": "render", "sha256": sha256, "background": background, "max_pixels": max_pixels}
        return self._array(content, {**settings, "frame": asdict(frame)}, _of_size(_pixels, frame.target_size))

    def render_small(
        self, content: PictureBytes, sha256: str, background: Colour, max_pixels: int, size: Size
    ) -> Pixels:
        """Return a picture to be looked at: whole, at a (height, width) far below its own, (H, W, 3), uint8.

        Args:
            content: what returns the picture's bytes.
            sha256: of its bytes, when they were last looked at.
            background: the colour under what is see-through.
            max_pixels: above this many, it is refused.
            size: of what is returned.

        Raises:
            PictureError: it cannot be used, or has changed.
            DecoderError: no process can be started.
        """
        settings = {"do": "render_small", "sha256": sha256, "background": background, "max_pixels": max_pixels}
        return self._array(content, {**settings, "size": size}, _of_size(_pixels, size))

    def examine_masks(self, files: Sequence[PictureBytes], max_pixels: int) -> list[ExaminedMask | PictureError]:
        """Open the files of masks as `examine` does those of pictures.

        Raises:
            DecoderError: no process can be started.
            DecodersStopped: `stop` was called meanwhile.
        """
        settings = {"do": "examine_mask", "max_pixels": max_pixels}
        return self._ask([_request(content, settings) for content in files], _examined_mask)

    def render_mask(self, mask: SampleMask, max_pixels: int, frame: Frame) -> Levels:
        """Return a mask's pixels in its picture's frame, (H, W), uint8, before `weight_outside`.

        Args:
            mask: which file it is, or the picture's own transparency.
            max_pixels: above this many, it is refused.
            frame: how its picture is resized, cut and mirrored.

        Raises:
            PictureError: it cannot be used, or has changed.
            DecoderError: no process can be started.
        """
        settings = {"do": "render_mask", "sha256": mask.sha256, "is_alpha": mask.is_alpha, "max_pixels": max_pixels}
        return self._array(mask.read, {**settings, "frame": asdict(frame)}, _of_size(_levels, frame.target_size))

    def stop(self) -> None:
        """End all processes at once, whatever they do: whoever waits for one meets `DecodersStopped`."""
        self._renew().interrupt()

    def _renew(self) -> _Children:
        """Begin with no processes, and return those there were."""
        old, self._children = self._children, _Children()
        self._finalizer.detach()
        self._finalizer = weakref.finalize(self, self._children.end)
        return old

    def _array(self, content: PictureBytes, settings: dict[str, Any], read: Callable[[Answer], Pixels]) -> Pixels:
        (answer,) = self._ask([_request(content, settings)], read)
        if isinstance(answer, PictureError):
            raise answer
        return answer

    def _ask(self, requests: Sequence[Request], read: Callable[[Answer], _T]) -> list[_T | PictureError]:
        """Put requests to one process after the other, as long as there are some, and read the answers."""
        answers: list[_T | PictureError] = []
        again = False  # whether the next request has ended a process before
        while len(answers) < len(requests):
            rest = requests[len(answers) :]
            try:
                with self._child(fresh=again) as child:
                    for answer in child.answers(rest[:1] if again else rest):
                        answers.append(_understood(answer, read))  # noqa: PERF401  # what came before a failure stays
                again = False
            except DecodingFailure as failure:
                if again or failure.kind == "time":
                    answers.append(PictureError(failure.reason))
                    again = False
                else:
                    again = True
        return answers

    @contextmanager
    def _child(self, *, fresh: bool) -> Iterator[DecodingProcess]:
        """Lend a process; one over which something went wrong is not lent again."""
        if self._children.owner != os.getpid():
            # A fork has its parent's children, and must not talk with them; nor do its parent's threads live in it.
            self._renew()
            self._places = threading.BoundedSemaphore(self.num_processes)
        with self._places:
            children = self._children
            child = None if fresh else children.take()
            if child is None:
                child = DecodingProcess(self.limits, self._module)
                children.add(child)
            try:
                yield child
            except BaseException as error:
                children.drop(child)
                child.kill()
                if children.stopped and isinstance(error, DecodingFailure):
                    raise DecodersStopped from error
                raise
            children.give_back(child)


@functools.cache
def shared_decoders(max_pixels: int) -> Decoders:
    """Return the pool that all of this process shares who read pictures of up to so many pixels."""
    return Decoders(DecodingLimits.for_pixels(max_pixels))


def _request(content: PictureBytes, message: dict[str, Any]) -> Request:
    if isinstance(content, FileInFolder):
        return Request({**message, "file": (os.fspath(content.root.absolute()), content.name)})
    return Request({**message, "file": None}, content)


def _understood(answer: Answer | PictureError, read: Callable[[Answer], _T]) -> _T | PictureError:
    """Read an answer, and trust nothing in it: a picture may have taken over who gives it.

    Raises:
        DecodingFailure: it makes no sense.
    """
    if isinstance(answer, PictureError):
        return answer
    try:
        if "refused" in answer[0]:
            return PictureError(shown_name(str(answer[0]["refused"])[:_MAX_REASON]))
        return read(answer)
    except (KeyError, TypeError, ValueError) as error:
        raise DecodingFailure.by_nonsense() from error


def _examined(answer: Answer) -> Examined:
    sha256, facts = answer[0]["sha256"], PictureFacts(**{**answer[0]["facts"], "size": _size(answer[0]["facts"])})
    numbers = (facts.orientation, facts.num_frames)
    if not (
        _is_sha256(sha256)
        and facts.format in FORMATS
        and isinstance(facts.mode, str)
        and all(isinstance(number, int) and number > 0 for number in numbers)
        and isinstance(facts.has_alpha, bool)
        and _is_share(facts.opacity)
    ):
        raise ValueError("not what a picture is")
    return Examined(sha256, facts)


def _examined_mask(answer: Answer) -> ExaminedMask:
    sha256, facts = answer[0]["sha256"], MaskFacts(**{**answer[0]["facts"], "size": _size(answer[0]["facts"])})
    if not (_is_sha256(sha256) and _is_share(facts.share)):
        raise ValueError("not what a mask is")
    return ExaminedMask(sha256, facts)


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and len(bytes.fromhex(value)) == 32


def _is_share(value: Any) -> bool:
    return isinstance(value, float | int) and 0.0 <= value <= 1.0


def _pixels(answer: Answer) -> Pixels:
    height, width = _size(answer[0])
    return np.frombuffer(answer[1], np.uint8).reshape(height, width, 3).copy()


def _levels(answer: Answer) -> Levels:
    height, width = _size(answer[0])
    return np.frombuffer(answer[1], np.uint8).reshape(height, width).copy()


def _of_size(read: Callable[[Answer], Pixels], size: Size) -> Callable[[Answer], Pixels]:
    """Return what reads as `read` does, and takes no other size than was asked for."""

    def checked(answer: Answer) -> Pixels:
        array = read(answer)
        if array.shape[:2] != size:
            raise ValueError(f"{array.shape[:2]}, not {size}")
        return array

    return checked


def _size(values: dict[str, Any]) -> tuple[int, int]:
    height, width = values["size"]
    if not (isinstance(height, int) and isinstance(width, int) and min(height, width) > 0):
        raise ValueError("not a size")
    return height, width


def _num_processes(limits: DecodingLimits) -> int:
    """Return how many may decode at once: one each core, and no more than memory holds if all take what they may."""
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(psutil.virtual_memory().available) // limits.memory_bytes))
