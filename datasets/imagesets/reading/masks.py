"""Finds the masks of a listing's pictures in files, so that none of them is taken for a picture itself."""

from dataclasses import replace
from pathlib import Path

from imagesets.errors import NoPicturesError, SourceError
from imagesets.files import FileInFolder, shown_name
from imagesets.masks import FileMask
from imagesets.reading.walk import walk
from imagesets.sources import Entry, Listing


def with_masks(listing: Listing, root: Path, mask: FileMask) -> Listing:
    """Give a folder's pictures their masks, and take the masks out from among them.

    Args:
        listing: of the folder; files that are masks are listed as pictures in it.
        root: the folder.
        mask: where masks are and how they are called.

    Raises:
        SourceError: the folder of masks cannot be read.
    """
    if mask.folder is None:
        masks = {entry.name: entry for entry in listing.entries if mask.may_name(entry.name)}
        pictures = [entry for entry in listing.entries if entry.name not in masks]
    else:
        masks = _masks_in(mask.folder)
        within = _place_within(mask.folder, root)
        pictures = [entry for entry in listing.entries if within is None or not entry.name.startswith(within)]
    names = {entry.name: mask.name_for(entry.name) for entry in pictures}
    return replace(
        listing,
        entries=tuple(_with_mask(entry, masks.get(names[entry.name])) for entry in pictures),
        unused_masks=tuple(sorted(masks.keys() - set(names.values()))),
    )


def _with_mask(entry: Entry, mask: Entry | None) -> Entry:
    if mask is None or entry.problem is not None:
        return entry
    if mask.problem is not None or not isinstance(mask.read, FileInFolder):
        return replace(entry, problem=f"its mask {mask.name}: {mask.problem or 'it is not a file'}")
    return replace(entry, mask=mask.read)


def _masks_in(folder: Path) -> dict[str, Entry]:
    """Return what looks like a picture in a folder of masks, by name."""
    try:
        found = walk(folder, recursive=True, kind="masks")
    except NoPicturesError as error:
        raise SourceError(str(error)) from error
    read = {name: Entry(shown_name(name), read=FileInFolder(folder, name)) for name in found.pictures}
    return read | {name: Entry(shown_name(name), problem=reason) for name, reason in found.problems.items()}


def _place_within(folder: Path, root: Path) -> str | None:
    """Return where a folder of masks lies in that of the pictures, with a slash behind; None where outside.

    Raises:
        SourceError: they are the same folder.
    """
    try:
        place = folder.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return None
    if place == ".":
        raise SourceError(
            f"masks: {folder.absolute()} is the folder of the pictures itself. Leave mask.folder out, and give "
            "mask.ending where the masks' names do not end in -masklabel.png"
        )
    return f"{place}/"
