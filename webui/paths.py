"""Which files the page may open: those that lie inside a folder once every link is followed. Nothing is written."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

_OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
)


def file_inside(folder: Path, relative: str) -> Path | None:
    """Return the plain file that a log's `relative` path names in `folder`, or None where it is not one to be shown.

    Absolute paths, `..`, links that lead out of the folder, folders, pipes and what is not there are all None: a log is
    written by a run of ours, but a run folder may come from a stranger.
    """
    try:
        root = folder.resolve(strict=True)
        path = (root / relative).resolve(strict=True)
        inside = path.is_relative_to(root) and stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError, RuntimeError):
        return None
    return path if inside and not Path(relative).is_absolute() and ".." not in Path(relative).parts else None


def open_plain(path: Path) -> BinaryIO | None:
    """Open a plain file for reading; None where there is none. A link is not followed, and a pipe not waited for.

    Raises:
        PermissionError: it may not be read.
    """
    if not hasattr(os, "O_NOFOLLOW") and path.is_symlink():
        return None
    try:
        descriptor = os.open(path, _OPEN_FLAGS)
    except PermissionError:
        raise
    except OSError:
        return None  # not there, a link, or a socket
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb")
