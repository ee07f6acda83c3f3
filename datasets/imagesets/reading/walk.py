"""Goes through a folder and sorts out what lies in it: pictures, other files, what cannot be used. It reads no file.

Nothing outside the folder is entered or followed: links that lead out are named, not taken.
"""

import os
import stat
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from imagesets.decoding import PICTURE_LIKE
from imagesets.errors import NoPicturesError
from imagesets.files import kind_of_file

_SYSTEM_NAMES = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})


@dataclass
class Found:
    """What a walk has found, by path below the root with forward slashes.

    Attributes:
        pictures: plain files whose names end as pictures' do, sorted.
        others: other plain files.
        outside: those of them that are links which lead out.
        odd: folders, pipes and devices whose names do not end as pictures' do.
        problems: what cannot be used, with the reason.
        ignored: what was passed over.
    """

    pictures: list[str] = field(default_factory=list)
    others: set[str] = field(default_factory=set)
    outside: set[str] = field(default_factory=set)
    odd: set[str] = field(default_factory=set)
    problems: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)

    @cached_property
    def picture_names(self) -> frozenset[str]:
        """The pictures again, to look one up; to be asked for once the walk has ended."""
        return frozenset(self.pictures)

    @property
    def num_passed_over(self) -> int:
        """How much is there beside pictures."""
        return len(self.ignored) + len(self.others) + len(self.odd)


def walk(root: Path, *, recursive: bool, kind: str = "pictures") -> Found:
    """Sort out everything below a folder. Links to folders are not entered, so that a walk always ends.

    Args:
        root: the folder.
        recursive: whether folders in it are entered.
        kind: what it is a folder of, for messages.

    Raises:
        NoPicturesError: there is no such folder, or it cannot be read.
    """
    found = Found()
    try:
        resolved = root.resolve(strict=True)
        waiting = [(entry, "") for entry in os.scandir(resolved)]
    except (OSError, RuntimeError) as error:
        said = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        if isinstance(error, FileNotFoundError):
            said = "does not exist"
        elif isinstance(error, NotADirectoryError):
            said = "is a file, not a folder"
        raise NoPicturesError(
            f"the folder of {kind} {root.absolute()} {said}. Give a folder that holds them"
        ) from error
    while waiting:
        entry, above = waiting.pop()
        name = above + entry.name
        if _sort_out(entry, name, resolved, found) and recursive:
            try:
                waiting += [(below, f"{name}/") for below in os.scandir(entry.path)]
            except OSError as error:
                found.problems[name] = f"the folder cannot be read: {error.strerror or error}"
    found.pictures.sort()
    return found


def _sort_out(entry: "os.DirEntry[str]", name: str, root: Path, found: Found) -> bool:
    """Put one thing where it belongs; return whether it is a folder to enter."""
    picture_like = PurePosixPath(entry.name).suffix.lower() in PICTURE_LIKE
    if entry.name.startswith(".") or entry.name in _SYSTEM_NAMES:
        found.ignored.append(name)
        return False
    try:
        mode = entry.stat().st_mode
        inside = not entry.is_symlink() or Path(entry.path).resolve().is_relative_to(root)
    except (OSError, RuntimeError):
        mode, inside = stat.S_IFLNK, True  # to nothing, or to itself
    if not inside and (picture_like or stat.S_ISDIR(mode)):
        found.problems[name] = "it is a link that leads out of the folder: copy what it points to into the folder"
    elif stat.S_ISREG(mode):
        # A link that leads out stays known by its name, so that as a caption it is refused rather than missed.
        (found.pictures.append if picture_like else found.others.add)(name)
        if not inside:
            found.outside.add(name)
    elif not picture_like:
        found.odd.add(name)
        return stat.S_ISDIR(mode) and not entry.is_symlink()
    elif stat.S_ISDIR(mode):
        found.problems[name] = "it is a folder with a picture's name: rename it"
    else:
        found.problems[name] = f"it is {kind_of_file(mode)}, not a plain file: remove it"
    return False
