"""Files that are whole or absent, and disk trouble as one readable error.

A file is written under a temporary name in its own folder, flushed to the disk, renamed, and the rename is flushed too:
a reader, or a run resumed after a power cut, sees the old file or the new one and never half of either. Nothing here
knows what the files mean.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from finetune.errors import DiskError

# What the disk can refuse, and what to tell the person about it.
_DISK_TROUBLE = {
    errno.ENOSPC: "the disk is full. Free some space, or set output_dir to another disk",
    errno.EDQUOT: "the disk quota is used up. Free some space, or set output_dir to another disk",
    errno.EFBIG: "the file is larger than the system allows here (see `ulimit -f`)",
    errno.EROFS: "the disk is mounted read-only. Set output_dir to a disk that can be written",
    errno.ENAMETOOLONG: "the name is too long for this disk. Give a shorter one",
    errno.EIO: "the disk reported an input/output error",
    errno.EACCES: "permission denied. Set output_dir to a folder that you may write",
    errno.EPERM: "the operation is not permitted. Set output_dir to a folder that you may write",
}

_OPEN_FLAGS = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors about space and permission into a DiskError that names `path`.

    Every other OSError (a missing folder, say) passes through: it is a slip of ours, not the disk's.
    """
    try:
        yield
    except OSError as error:
        reason = _DISK_TROUBLE.get(error.errno or 0)
        if reason is None:
            raise
        raise DiskError(f"{path}: cannot be written: {reason}. What was whole before is still whole.") from error


def fsync_path(path: Path) -> None:
    """Flush a file's content, or a folder's list of names, to the disk.

    Windows cannot flush a folder; there the call does nothing for one.
    """
    if os.name == "nt" and path.is_dir():
        return
    flags = os.O_RDWR if os.name == "nt" else os.O_RDONLY
    with disk_errors(path):
        descriptor = os.open(path, flags | _OPEN_FLAGS)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def rename(source: Path, target: Path) -> None:
    """Rename a file or folder, replacing a file of the target's name, and flush the rename to the disk."""
    with disk_errors(target):
        source.replace(target)
        fsync_path(target.parent)
        if source.parent != target.parent:
            fsync_path(source.parent)


@contextlib.contextmanager
def whole_file(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well, its content becomes `path` in one step.

    The block may write the temporary file or replace it, as safetensors does. The result is readable by others:
    mode 0666 less the process's umask. When the block fails, the temporary file is removed and `path` is as it was.

    Args:
        path: the file.
        flush: wait until the disk has it. Without, a kill still leaves it whole or absent, but a power cut may tear it:
            for what can be made again and is checked when it is read.

    Raises:
        DiskError: the disk is full, read-only or over its quota.
    """
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:12]}.tmp"
    try:
        with disk_errors(path):
            # Creating it here lets the kernel apply the umask, which a process cannot read without changing it.
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN_FLAGS, 0o666)
            mode = os.fstat(descriptor).st_mode & 0o777
            os.close(descriptor)
            yield temporary
            temporary.chmod(mode)
            if flush:
                fsync_path(temporary)
                rename(temporary, path)
            else:
                temporary.replace(path)
    finally:
        with disk_errors(path):  # a name that is too long cannot be taken away either
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`; when the block ends well, it becomes `path`, replacing an older folder.

    Everything in it is flushed to the disk first. When the block fails, the temporary folder is removed and `path` is
    as it was. A folder cannot be replaced in one step: for an instant between two renames there is none.

    Raises:
        DiskError: the disk is full, read-only or over its quota.
    """
    mark = uuid.uuid4().hex[:12]
    temporary, older = path.parent / f".{path.name}.{mark}.tmp", path.parent / f".{path.name}.{mark}.old"
    try:
        with disk_errors(path):
            temporary.mkdir(parents=True)
            yield temporary
            for inside in sorted(temporary.rglob("*")):
                fsync_path(inside)
            fsync_path(temporary)
            if path.exists():
                path.replace(older)
            rename(temporary, path)
    except BaseException:
        if older.exists() and not path.exists():
            older.replace(path)
        raise
    finally:
        for left in (temporary, older):
            shutil.rmtree(left, ignore_errors=True)


def os_error_in(error: Exception) -> Exception:
    """Find the operating system's error number in safetensors' message, which has no errno of its own."""
    text = str(error)
    found = re.search(r"os error (\d+)", text)
    return error if found is None else OSError(int(found[1]), text)


def write_bytes(path: Path, data: bytes, *, flush: bool = True) -> None:
    """Write `data` as the whole content of `path`, or leave `path` as it was; `flush` as `whole_file`'s.

    Raises DiskError.
    """
    write_chunks(path, [data], flush=flush)


def write_chunks(path: Path, chunks: Iterable[bytes | bytearray], *, flush: bool = True) -> None:
    """Write chunks one behind the other as `write_bytes` writes one. Raises DiskError."""
    # Unbuffered, so that a full disk is met here and not when a buffer is emptied on close.
    with whole_file(path, flush=flush) as temporary, temporary.open("wb", buffering=0) as file:
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                view = view[file.write(view) :]


def write_text(path: Path, text: str) -> None:
    r"""Write `text` as UTF-8 with `\n` line ends, whole or not at all. Raises DiskError."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write texts that bring their line ends, as `write_text` would all of them, without holding them all at once.

    Raises:
        DiskError: the disk is full, read-only or over its quota.
    """
    with whole_file(path) as temporary, temporary.open("wb") as file:
        for line in lines:
            file.write(line.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any, indent: int | None = 2, *, flush: bool = True) -> None:
    """Write a JSON document, whole or not at all; numbers that are not finite become null. Raises DiskError."""
    write_bytes(path, json_bytes(value, indent=indent) + b"\n", flush=flush)


def json_bytes(value: Any, indent: int | None = None) -> bytes:
    """Encode plain data as JSON (UTF-8, no trailing newline); numbers that are not finite become null.

    JSON has no NaN, and readers differ in what they make of Python's. Paths become strings with forward slashes.

    Raises:
        TypeError: something in `value` is not plain data.
    """
    text = json.dumps(plain_data(value), indent=indent, ensure_ascii=False, allow_nan=False)
    # A file name that is not valid Unicode holds lone surrogates; the backslash form of one is also JSON's.
    return text.encode("utf-8", "backslashreplace")


def plain_data(value: Any) -> Any:
    """Return `value` as JSON knows it: tuples become lists, paths strings, numbers that are not finite None."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_data(item) for item in value]
    if isinstance(value, os.PathLike):
        return Path(value).as_posix()
    raise TypeError(f"{type(value).__name__} is not plain data: {value!r}")


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's content as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
