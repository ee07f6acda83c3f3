"""Which folders of pictures there are to choose from: a short look around, without links and not far down."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from finetune.recipe.shipped import samples_folder
from imagesets.decoding import PICTURE_LIKE
from imagesets.reading.kohya import looks_like_kohyas

_MAX_DEPTH = 4
_MAX_LOOKED_AT = 2000
_MAX_LISTED = 200
_MAX_ENTRIES = 20_000
_NOT_ENTERED = ("recipe.yaml", "events.jsonl", "CACHEDIR.TAG")
"""A run's folder, and a cache."""


@dataclass(frozen=True)
class PictureFolder:
    """A folder to choose.

    Attributes:
        name: as the page's places take it.
        label: what a person reads.
    """

    name: str
    label: str


def find_folders(roots: tuple[Path, ...]) -> list[PictureFolder]:
    """Return the folders below some that hold pictures, nearest first, and the samples that ship.

    Args:
        roots: without links in their paths; what lies in the first is named relative to it.
    """
    found: list[PictureFolder] = []
    for place, root in enumerate(roots):
        for path, num_pictures in _walk(root):
            if len(found) >= _MAX_LISTED:
                break
            below = path.relative_to(root).as_posix()
            name = below if place == 0 else str(path)
            shown = str(path) if below == "." else name
            many = f"{num_pictures:,} picture{'' if num_pictures == 1 else 's'}" if num_pictures else "numbered folders"
            found.append(PictureFolder(name, f"{shown} ({many})"))
    samples = samples_folder()
    names = sorted(path.name for path in samples.iterdir() if path.is_dir()) if samples.is_dir() else []
    return [*found, *(PictureFolder(f"sample:{name}", f"sample:{name} (ships with Atelier)")
                      for name in names if not name.startswith(("_", ".")))]  # fmt: skip


def _walk(root: Path) -> Iterator[tuple[Path, int]]:
    """Yield folders with pictures and how many, each before those in it; of kohya's only the one around them."""
    waiting, looked_at = [(root, 0)], 0
    while waiting and looked_at < _MAX_LOOKED_AT:
        folder, depth = waiting.pop(0)
        looked_at += 1
        folders, num_pictures, is_entered = _entries(folder)
        if not is_entered:
            continue
        if not num_pictures and looks_like_kohyas(folder):
            yield folder, 0
            continue
        if num_pictures:
            yield folder, num_pictures
        if depth < _MAX_DEPTH:
            waiting.extend((folder / name, depth + 1) for name in sorted(folders))


def _entries(folder: Path) -> tuple[list[str], int, bool]:
    """Return the names of folders in a folder, the number of pictures, and whether it is one to be entered."""
    folders, num_pictures = [], 0
    try:
        for count, entry in enumerate(folder.iterdir()):
            if entry.name in _NOT_ENTERED or count > _MAX_ENTRIES:
                return [], num_pictures, entry.name not in _NOT_ENTERED
            if entry.name.startswith((".", "__")) or entry.is_symlink():
                continue
            if PurePath(entry.name).suffix.lower() in PICTURE_LIKE:
                num_pictures += entry.is_file()
            elif entry.is_dir():
                folders.append(entry.name)
    except OSError:
        return [], 0, False
    return folders, num_pictures, True
