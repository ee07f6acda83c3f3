"""Lists a folder of pictures: every picture with its caption, and everything that looks like one with its problem.

Nothing outside the folder is read: links, metadata and captions that lead out are listed, not followed.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Literal

from imagesets.errors import CaptionError, NoPicturesError, SourceError
from imagesets.files import shown_name
from imagesets.reading.beside import CaptionFiles, caption_name, entry_of, read_captions
from imagesets.reading.folder_metadata import metadata_names, read_metadata
from imagesets.reading.metadata import METADATA_FILES, MetadataLine
from imagesets.reading.walk import Found, walk
from imagesets.reading.webdataset import SHARD_ENDINGS
from imagesets.sources import Entry, FolderSource, Listing

OtherKind = Literal["webdataset", "huggingface"]


def list_folder(source: FolderSource) -> Listing:
    """List a folder's pictures in the order of their paths.

    Raises:
        NoPicturesError: there is no such folder, it cannot be read, or it holds nothing that looks like a picture.
        SourceError: what is said of its pictures elsewhere cannot be read.
    """
    root = source.path
    found = walk(root, recursive=source.recursive)
    lines, problems = read_metadata(source, found)
    extensions = (source.caption_extension, *source.more_caption_extensions)
    beside = CaptionFiles(() if source.captions == "metadata" else extensions, source.keeps_lines)
    pictures = [name for name in found.pictures if name in lines] if source.only_named else found.pictures
    entries = [_entry(source, name, found, beside, lines.get(name)) for name in pictures]
    entries += [Entry(shown_name(name), problem=reason) for name, reason in (found.problems | problems).items()]
    if not entries:
        _require_no_other_kind(root, found)
        raise NoPicturesError(
            f"the folder of pictures {root.absolute()} holds no JPEG, PNG or WebP file "
            f"({found.num_passed_over} other things in it were passed over"
            f"{'' if source.recursive else ', folders in it are not read: recursive is false'})"
        )
    unread = _unread(source, pictures, found, lines)
    others = found.others - beside.found(found) - metadata_names(source, found) - {file for _, file in unread}
    unnamed = set(found.pictures).difference(pictures)
    return Listing(
        entries=tuple(sorted(entries, key=lambda entry: entry.name)),
        ignored=tuple(sorted(map(shown_name, [*found.ignored, *others, *unnamed]))),
        unused_captions=beside.unused(found, found.pictures),
        unread_captions=tuple((shown_name(picture), shown_name(file)) for picture, file in unread),
    )


def _require_no_other_kind(root: Path, found: Found) -> None:
    """Say how what lies in a folder without pictures is read, where it is known.

    Raises:
        SourceError: it holds what another kind of source reads.
    """
    kind = other_kind(found)
    if kind is not None:
        what, setting = {"webdataset": ("tar shards", "path"), "huggingface": ("a dataset in tables", "name")}[kind]
        raise SourceError(
            f"the folder of pictures {root.absolute()} holds no pictures, but {what}: take the kind of source that "
            f"reads them, {{kind: {kind}, {setting}: {root}}}"
        )


def other_kind(found: Found) -> OtherKind | None:
    """Return the kind of source that reads a folder without pictures, by the endings of what lies in it."""
    names = [name for name in found.others if PurePosixPath(name).name not in METADATA_FILES]
    if found.pictures or found.problems:
        return None
    if any(name.lower().endswith(SHARD_ENDINGS) for name in names):
        return "webdataset"
    return "huggingface" if any(name.lower().endswith((".parquet", ".arrow")) for name in names) else None


def _unread(
    source: FolderSource, pictures: Iterable[str], found: Found, lines: Mapping[str, MetadataLine]
) -> list[tuple[str, str]]:
    """Return pictures with caption files beside them that nobody may know are not read, as metadata goes before.

    A metadata file that the source names was chosen in their place. Of captions: metadata so was all that it says.
    """
    if source.captions == "files" or source.metadata_file is not None or not lines:
        return []
    unread = []
    for name in pictures:
        written = None if name not in lines else lines[name].caption
        if (written is None) != (source.captions == "metadata"):
            continue
        for extension in (source.caption_extension, *source.more_caption_extensions):
            file = caption_name(name, extension)
            if file in found.others and not _says(source, name, found, extension, written):
                unread.append((name, file))
    return unread


def _says(source: FolderSource, name: str, found: Found, extension: str, caption: str | None) -> bool:
    """Whether a file beside a picture says the same as its caption."""
    try:
        return read_captions(source.path, name, found, CaptionFiles((extension,), source.keeps_lines)) == caption
    except CaptionError:
        return False


def _entry(source: FolderSource, name: str, found: Found, beside: CaptionFiles, line: MetadataLine | None) -> Entry:
    return entry_of(
        source.path,
        name,
        found,
        beside,
        caption=None if line is None else line.caption,
        otherwise=source.caption_otherwise,
        aesthetic_score=None if line is None else line.aesthetic_score,
    )
