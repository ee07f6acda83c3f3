"""The page's own files: a folder that lives as long as its process. What killed pages have left is cleared away."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune.run.locks import held, is_held

_PREFIX = "atelier-ui-"
_LOCK = ".lock"
_YOUNG_SECONDS = 60.0
"""A folder may be that old without its lock: its page is only just beginning."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield an empty folder, which is gone with everything in it when the block ends."""
    clear_away(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name:
        folder = Path(name)
        with held(folder / _LOCK, 1.0, f"{folder}: another process has taken it"):
            yield folder


def clear_away(folder: Path) -> None:
    """Remove what pages that were killed have left in `folder`: plain folders of this user's, held by no process."""
    for left in folder.glob(f"{_PREFIX}*"):
        try:
            status = left.lstat()
            is_ours = left.is_dir() and not left.is_symlink() and (os.name == "nt" or status.st_uid == os.getuid())
            if is_ours and time.time() - status.st_mtime > _YOUNG_SECONDS and not is_held(left / _LOCK):
                shutil.rmtree(left)
        except OSError:
            continue  # another page clears it away, or it may not be
