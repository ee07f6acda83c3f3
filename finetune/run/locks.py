"""One process at a time: locks in files, which end with the process that holds them, however that ends."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import filelock

from finetune.errors import AtelierError
from finetune.run.durable import disk_errors


@contextlib.contextmanager
def held(path: Path, patience_seconds: float, refusal: str) -> Iterator[None]:
    """Hold a lock for the length of the block.

    Args:
        path: its file, in a folder that is there.
        patience_seconds: how long another holder is waited for; who asks `is_held` holds it for an instant.
        refusal: what is said where another process keeps it.

    Raises:
        AtelierError: another process holds it.
        DiskError: the file cannot be made.
    """
    with disk_errors(path.parent):
        lock = filelock.FileLock(path)
        try:
            lock.acquire(timeout=patience_seconds)
        except filelock.Timeout as error:
            raise AtelierError(refusal) from error
    try:
        yield
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Whether a process holds the lock now."""
    if path.is_symlink() or not path.is_file():
        return False  # opening a lock empties it: a link in a stranger's folder may lead to what is not ours
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    lock.release()
    return False
