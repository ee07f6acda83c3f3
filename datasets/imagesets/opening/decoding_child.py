"""What a decoding process does: it opens one picture after the other, as its parent asks, within its limits.

It imports numpy and Pillow, never torch. `decoding_process` is its parent's side. The limits are the kernel's, set once
the libraries are loaded: address space, processor time for each picture, no file written, no core dump. What is asked
after the parent is gone is not done: the process ends with it.
"""

import contextlib
import hashlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any

from imagesets.errors import PictureError
from imagesets.files import MAX_FILE_BYTES, FileInFolder
from imagesets.framing import Frame
from imagesets.opening.messages import MessageError, read_message, write_message
from imagesets.pictures import (
    examine_mask,
    examine_picture,
    open_mask,
    open_picture,
    open_transparency,
    render,
    render_mask,
    render_small,
)

IDLE_SECONDS = 15.0
"""A process that has nothing to do for so long ends; its parent starts another when there is something."""

Request = Mapping[str, Any]
Reply = tuple[dict[str, Any], bytes]


def main(memory_bytes: int, cpu_seconds: float) -> None:
    """Answer requests from standard input on standard output, until it ends or none has come for a while.

    Args:
        memory_bytes: what decoding may take beyond what the libraries take.
        cpu_seconds: of processor time, for each picture.
    """
    serve(answer, memory_bytes, cpu_seconds)


def serve(answer: Callable[[Request, bytes], Reply], memory_bytes: int, cpu_seconds: float) -> None:
    """Do for any kind of request what `main` does for pictures."""
    # A library that prints must not break into the answers.
    inward, outward = (os.fdopen(os.dup(handle), mode) for handle, mode in ((0, "rb"), (1, "wb")))
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    waiting: SimpleQueue[tuple[dict[str, Any], bytes]] = SimpleQueue()
    threading.Thread(target=_receive, args=(inward, waiting), daemon=True).start()
    limits = {"memory": _limit_memory(memory_bytes), "cpu": hasattr(signal, "setitimer")}
    write_message(outward, {"ready": limits})
    os.dup2(nothing, 2)
    while True:
        try:
            request, payload = waiting.get(timeout=IDLE_SECONDS)
        except Empty:
            return
        with _limited_time(cpu_seconds):
            reply, pixels = answer(request, payload)
        write_message(outward, reply, pixels)


def answer(request: Request, payload: bytes) -> Reply:
    """Do what is asked; a picture that cannot be used is an answer, too."""
    try:
        return _answer(request, payload)
    except PictureError as error:
        return {"refused": str(error)}, b""
    except MemoryError:
        return {"out_of_memory": True}, b""


def _answer(request: Request, payload: bytes) -> Reply:
    try:
        content = payload if request["file"] is None else _read(*request["file"])
        return _ANSWERS[request["do"]](request, content)
    except (PictureError, MemoryError):
        raise
    # A stranger's file makes libraries stumble in any way; none of them is this process's end.
    except Exception as error:
        said = str(error).strip().partition("\n")[0]
        raise PictureError(f"it cannot be opened: {type(error).__name__}{f': {said}' if said else ''}") from error


def _read(root: str, name: str) -> bytes:
    return FileInFolder(Path(root), name)()


def _examine(request: Request, content: bytes) -> Reply:
    facts = examine_picture(content, request["max_pixels"], request["extension"], tuple(request["background"]))
    return {"sha256": hashlib.sha256(content).hexdigest(), "facts": asdict(facts)}, b""


def _load(request: Request, content: bytes) -> Reply:
    _require_unchanged(content, request["sha256"])
    picture = open_picture(content, tuple(request["background"]), request["max_pixels"])
    return {"size": (picture.height, picture.width)}, picture.tobytes()


def _render(request: Request, content: bytes) -> Reply:
    _require_unchanged(content, request["sha256"])
    frame = _frame(request["frame"])
    pixels = render(open_picture(content, tuple(request["background"]), request["max_pixels"]), frame)
    return {"size": pixels.shape[:2]}, pixels.tobytes()


def _render_small(request: Request, content: bytes) -> Reply:
    _require_unchanged(content, request["sha256"])
    height, width = request["size"]
    pixels = render_small(content, tuple(request["background"]), request["max_pixels"], (height, width))
    return {"size": pixels.shape[:2]}, pixels.tobytes()


def _examine_mask(request: Request, content: bytes) -> Reply:
    facts = examine_mask(content, request["max_pixels"])
    return {"sha256": hashlib.sha256(content).hexdigest(), "facts": asdict(facts)}, b""


def _render_mask(request: Request, content: bytes) -> Reply:
    _require_unchanged(content, request["sha256"])
    open_levels = open_transparency if request["is_alpha"] else open_mask
    levels = render_mask(open_levels(content, request["max_pixels"]), _frame(request["frame"]))
    return {"size": levels.shape}, levels.tobytes()


def _frame(values: Mapping[str, Any]) -> Frame:
    """Return the frame that was written as JSON, which knows no tuples."""
    sizes = {name: (size[0], size[1]) for name, size in values.items() if name != "flipped"}
    return Frame(**sizes, flipped=values["flipped"])


def _require_unchanged(content: bytes, sha256: str) -> None:
    if hashlib.sha256(content).hexdigest() != sha256:
        raise PictureError("it was changed since it was scanned. Start again")


_ANSWERS: dict[str, Callable[[Request, bytes], Reply]] = {
    "examine": _examine,
    "examine_mask": _examine_mask,
    "load": _load,
    "render": _render,
    "render_mask": _render_mask,
    "render_small": _render_small,
}


def _receive(stream: IO[bytes], waiting: "SimpleQueue[tuple[dict[str, Any], bytes]]") -> None:
    """Hand on what the parent asks; its end of the pipe closes when it is gone, however it went."""
    while True:
        try:
            waiting.put(read_message(stream, MAX_FILE_BYTES))
        except (EOFError, OSError, MessageError):
            os._exit(0)


def _limit_memory(memory_bytes: int) -> bool:
    """Bound the address space; return whether the system keeps to it. The first to go where memory runs out is this."""
    if sys.platform == "win32":
        return False
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if sys.platform != "linux":
        return False  # macOS accepts a limit and does not keep to it
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + memory_bytes
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return True


@contextlib.contextmanager
def _limited_time(cpu_seconds: float) -> Iterator[None]:
    """Let the kernel end this process where a picture takes too much processor time, with or without a parent."""
    if sys.platform == "win32":
        yield
        return
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
