"""A decoding process whose decoder has flaws: pictures that hold certain words make it crash, hang, eat or babble.

No decoder's real flaw stays a flaw, so the ways in which one can fail are played. It also finds some files
locked, which a test that runs as root cannot make.
"""

import contextlib
import ctypes
import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path

from imagesets.opening import decoding_child
from imagesets.opening.decoding_child import Reply, Request
from imagesets.pictures import MaskFacts, PictureFacts


def spin() -> None:
    while True:
        pass


def eat() -> None:
    eaten = []
    while True:
        eaten.append(bytearray(2**24))


def stumble() -> None:
    raise LookupError("of a kind no decoder should raise")


def babble() -> None:
    """Write nonsense where the answers go."""
    for handle in range(3, 10):
        with contextlib.suppress(OSError):
            if stat.S_ISFIFO(os.fstat(handle).st_mode):
                os.write(handle, b"\xff" * 4096)


def break_later() -> None:
    """Leave something behind that ends the process over the next picture."""
    FLAWS[b"IHDR"] = os.abort


FLAWS: dict[bytes, Callable[[], object]] = {
    b"flaw: spin": spin,
    b"flaw: wait": lambda: time.sleep(3600),
    b"flaw: stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    b"flaw: eat": eat,
    b"flaw: segfault": lambda: ctypes.string_at(0),
    b"flaw: abort": os.abort,
    b"flaw: killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    b"flaw: exit": lambda: os._exit(3),
    b"flaw: stumble": stumble,
    b"flaw: babble": babble,
    b"flaw: lie": lambda: PictureFacts((-5, 10**9), "EXE", "RGB", 1, has_alpha=False, num_frames=1),
    b"flaw: later": break_later,
}


def _shrinking(sound: Callable[[Request, bytes], Reply]) -> Callable[[Request, bytes], Reply]:
    """Return what gives a single pixel of some pictures, whatever it is asked for."""

    def answer(request: Request, content: bytes) -> Reply:
        if b"flaw: shrink" in content:
            return {"size": [1, 1]}, b"abc" if request["do"] == "render" else b"a"
        return sound(request, content)

    return answer


def _played(content: bytes) -> PictureFacts | None:
    """Play the flaws that a file names; return what is to be said of it where that is the flaw."""
    for word, flaw in list(FLAWS.items()):
        said = flaw() if word in content else None
        if isinstance(said, PictureFacts):
            return said
    return None


def main(memory_bytes: int, cpu_seconds: float) -> None:
    sound, sound_mask, opens = decoding_child.examine_picture, decoding_child.examine_mask, os.open

    def examine(content: bytes, *settings: object) -> PictureFacts:
        return _played(content) or sound(content, *settings)  # type: ignore[arg-type]

    def examine_mask(content: bytes, max_pixels: int) -> MaskFacts:
        said = _played(content)
        return sound_mask(content, max_pixels) if said is None else MaskFacts(said.size, share=-1.0)

    def refusing(path: "str | Path", flags: int, mode: int = 0o777) -> int:
        if Path(path).name == "locked.png":
            raise PermissionError(13, "Permission denied", str(path))
        return opens(path, flags, mode)

    for name in ("render", "render_mask"):
        decoding_child._ANSWERS[name] = _shrinking(decoding_child._ANSWERS[name])
    decoding_child.examine_picture = examine
    decoding_child.examine_mask = examine_mask
    os.open = refusing  # type: ignore[assignment]
    decoding_child.main(memory_bytes, cpu_seconds)
