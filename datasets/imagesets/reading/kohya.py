"""Lists the folders of kohya's trainers: each sub-folder `N_name` holds pictures that are seen N times.

What follows the number is the caption of a picture that has none of its own. A caption's file ends in `.txt` or
`.caption`. What does not fit this layout is told by name and never passed over where it holds pictures.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from imagesets.captions import clean_caption
from imagesets.decoding import PICTURE_LIKE
from imagesets.errors import CaptionError, SourceError
from imagesets.files import shown_name
from imagesets.reading.beside import CaptionFiles, entry_of
from imagesets.reading.walk import Found, walk
from imagesets.sources import Entry, KohyaSource, Listing

CAPTION_EXTENSIONS = (".txt", ".caption")
MAX_REPEATS = 1000
"""More is no number of repeats: `2026_beach` begins with a year."""

REGULARISATION_FOLDER = "reg"
"""What such trainers call the folder of regularisation pictures, whose own layout is the same."""

_NUMBERED = re.compile(r"([0-9]+)(?:_(.*))?", re.DOTALL)
_EXAMPLE = "10_zrkx cat: ten times, and what has no caption is captioned 'zrkx cat'"


@dataclass(frozen=True)
class _Group:
    """One sub-folder: how often its pictures are seen, and how those without a caption are captioned."""

    repeats: int
    caption: str | None
    problem: str | None = None


def list_kohya(source: KohyaSource) -> Listing:
    """List the pictures of all numbered sub-folders in the order of their paths.

    Raises:
        SourceError: there is no such folder, or none of its sub-folders has a number and pictures.
    """
    root = source.path
    found = walk(root, recursive=True)
    by_folder: dict[str, list[str]] = {}
    for name in found.pictures:
        by_folder.setdefault(name.rpartition("/")[0], []).append(name)
    groups = {folder: _read_name(folder) for folder in _top_folders(found, by_folder) if is_numbered(folder)}
    if groups.keys().isdisjoint(by_folder):
        raise SourceError(_nothing_here(root, found, by_folder))
    beside = CaptionFiles(CAPTION_EXTENSIONS, source.keeps_lines)
    entries: list[Entry] = []
    problems = dict(found.problems)
    ignored = [*found.ignored, *(found.others - beside.found(found))]
    for folder, names in by_folder.items():
        group = groups.get(folder)
        if group is not None and group.problem is None:
            entries += [
                entry_of(root, name, found, beside, otherwise=group.caption, repeats=group.repeats) for name in names
            ]
        elif folder.partition("/")[0] == REGULARISATION_FOLDER:
            ignored += names
        elif folder:
            problems[folder] = _misplaced(folder, len(names), groups)
        else:
            problems |= dict.fromkeys(names, f"it lies in no numbered folder: move it into one, as {_EXAMPLE}")
    tops = {folder.partition("/")[0] for folder in by_folder}
    for folder in groups.keys() - tops - problems.keys():
        problems[folder] = "it holds no JPEG, PNG or WebP file: put pictures into it, or remove it"
    entries += [Entry(shown_name(name), problem=reason) for name, reason in problems.items()]
    return Listing(
        entries=tuple(sorted(entries, key=lambda entry: entry.name)),
        ignored=tuple(sorted(map(shown_name, ignored))),
        unused_captions=beside.unused(found, found.pictures),
    )


def looks_like_kohyas(root: Path) -> bool:
    """Whether a folder's pictures lie, as far as a glance tells, in folders `N_name`, its own or those of its `img`."""
    return any(_holds_numbered(folder) for folder in (root, root / "img"))


def _holds_numbered(root: Path) -> bool:
    try:
        entries = sorted(root.iterdir())
        if any(entry.suffix.lower() in PICTURE_LIKE for entry in entries):
            return False
        # A number alone may count albums.
        named = [entry for entry in entries if is_numbered(entry.name) and _read_name(entry.name).caption]
        return any(inner.suffix.lower() in PICTURE_LIKE for entry in named for inner in entry.iterdir())
    except OSError:
        return False


def is_numbered(name: str) -> bool:
    """Whether a folder's name is a number of repeats, or begins with one and `_`."""
    return _NUMBERED.fullmatch(name) is not None


def _top_folders(found: Found, by_folder: Iterable[str]) -> list[str]:
    """Return the names of the folders right below the root, with and without pictures."""
    holding = {folder.partition("/")[0] for folder in by_folder if folder}
    return sorted(holding | {name for name in found.odd if "/" not in name})


def _read_name(folder: str) -> _Group:
    match = _NUMBERED.fullmatch(folder)
    assert match is not None, "only numbered ones are asked for"
    repeats, name = int(match[1]), match[2] or ""
    if repeats < 1:
        problem = f"its name says that its pictures are seen {repeats} times: begin it with 1 or more, or move it out"
        return _Group(repeats, None, problem)
    if repeats > MAX_REPEATS:
        problem = (
            f"its name says that its pictures are seen {repeats} times, more than {MAX_REPEATS}: if {match[1]} is a "
            f"year or a date, put a number before it, as 1_{folder}"
        )
        return _Group(repeats, None, problem)
    try:
        return _Group(repeats, clean_caption(name) or None)
    except CaptionError:
        return _Group(repeats, None, "its name is not valid UTF-8: rename it")


def _misplaced(folder: str, num_pictures: int, groups: dict[str, _Group]) -> str:
    """Say why the pictures of a folder are not read."""
    top, _, inner = folder.partition("/")
    group = groups.get(top)
    if group is not None and group.problem is not None:
        return group.problem
    holds = f"it holds {num_pictures} {'picture' if num_pictures == 1 else 'pictures'}"
    if group is not None:
        return f"{holds} and lies inside a numbered folder, where folders are not read: move them up into {top}"
    if inner:
        return f"{holds} and lies in {top}, which has no number: give {top} one, as 1_{top}, or move it out"
    return f"{holds}, and its name does not begin with how often they are seen: call it 1_{top}, or move it out"


def _nothing_here(root: Path, found: Found, by_folder: Iterable[str]) -> str:
    """Say what is wrong where no numbered folder holds a picture, and where one does."""
    said = f"the folder {root.absolute()} holds no folder of pictures whose name begins with how often they are seen"
    parts = [folder.split("/") for folder in by_folder]
    below = sorted({names[0] for names in parts if len(names) > 1 and is_numbered(names[1])})
    trained = [name for name in below if name != REGULARISATION_FOLDER] or below
    if trained:
        return f"{said}. Its folder {shown_name(trained[0])} does: give {root.absolute() / shown_name(trained[0])}"
    if is_numbered(root.name) and [""] in parts:
        return f"{said}. It is such a folder itself: give the one it lies in, {root.absolute().parent}"
    if found.pictures:
        return f"{said}. Call them as {_EXAMPLE}; or take kind: folder, which reads pictures as they lie"
    return f"{said}, nor any JPEG, PNG or WebP file ({found.num_passed_over} other things were passed over)"
