"""Reading files that others have laid into a folder: plain ones only, of a bounded size, and none outside the folder.

Links are followed to their end before a path is judged, and a pipe or a device is never waited for.
"""

import os
import stat
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from imagesets.errors import PictureError

MAX_FILE_BYTES = 512 * 2**20

PictureBytes = Callable[[], bytes]
"""Returns a picture's bytes, or raises a PictureError. Where it is a `FileInFolder`, a decoding process reads it."""

# Windows knows neither links to refuse nor pipes that block, but text mode.
_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))


@dataclass(frozen=True, slots=True)
class FileInFolder:
    """A file that is read when it is called; as a plain value, another process can be told to read it.

    Attributes:
        root: the folder it must lie in.
        name: its path below the folder, with forward slashes.
    """

    root: Path
    name: str

    def __call__(self) -> bytes:
        """Return its bytes.

        Raises:
            PictureError: as `read_file` does.
        """
        return read_file(self.root / self.name, self.root)


@dataclass(frozen=True, slots=True)
class HeldBytes:
    """A picture's bytes in memory.

    Attributes:
        content: the bytes.
    """

    content: bytes = field(repr=False)

    def __call__(self) -> bytes:
        """Return the bytes."""
        return self.content


def read_file(path: Path, root: Path, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Return the bytes of a plain file that lies, all links followed, inside `root`.

    Raises:
        PictureError: it lies outside, is no plain file, is larger than `max_bytes`, or cannot be read.
    """
    try:
        # As text: a Path for each of a million files takes longer than reading them.
        place, top = os.path.realpath(path, strict=True), os.path.realpath(root)
        if place != top and not place.startswith(top.rstrip(os.sep) + os.sep):
            raise PictureError("it leads out of the folder: copy the file into it")
        handle = os.open(place, _FLAGS)
        try:
            return _read_plain(handle, max_bytes)
        finally:
            os.close(handle)
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise PictureError(f"it cannot be read: {said}") from error


def _read_plain(handle: int, max_bytes: int) -> bytes:
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        raise PictureError(f"it is {kind_of_file(status.st_mode)}, not a plain file: remove it")
    if status.st_size > max_bytes:
        raise PictureError(f"the file has {status.st_size} bytes; at most {max_bytes} are read")
    with os.fdopen(handle, "rb", closefd=False) as stream:
        return stream.read(status.st_size)


def kind_of_file(mode: int) -> str:
    """Name what a path is by its mode, with an article."""
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFLNK: "a link to nothing",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def name_problem(name: str) -> str | None:
    """Say why a file's name cannot stand in a log or a manifest; None where it can."""
    if name.isascii() and name.isprintable():
        return None
    if any(unicodedata.category(character) == "Cs" for character in name):
        return "its name is not valid UTF-8: rename it"
    if any(unicodedata.category(character) in {"Cc", "Zl", "Zp"} for character in name):
        return "its name holds a line break or another control character: rename it"
    return None


def shown_name(name: str) -> str:
    """Return a name that is safe to print: control characters and broken bytes are written out."""
    return name if name_problem(name) is None else ascii(name)[1:-1]
