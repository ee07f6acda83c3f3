"""Lists tar shards in WebDataset's form: members that lie together and share a name up to its first dot are one sample.

The pictures stay where they are: an entry knows its place in the shard. Shards come from strangers: a member is never
unpacked, links and devices are passed over, and no header is read that is larger than a header has to be.
"""

import json
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import IO, Any

from imagesets.captions import MAX_CAPTION_BYTES, caption_of, decode_caption
from imagesets.decoding import EXTENSIONS, PICTURE_LIKE
from imagesets.errors import CaptionError, PictureError, SourceError
from imagesets.files import MAX_FILE_BYTES, HeldBytes, name_problem, shown_name
from imagesets.reading.addresses import FilePart, expand, name_of, open_address, shown_address
from imagesets.sources import Entry, Listing, WebDatasetSource

MAX_HEADER_BYTES = 2**20
MAX_JSON_BYTES = 2**20

_BLOCK = tarfile.BLOCKSIZE
SHARD_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
"""Of shards; all but the first are compressed, and refused by name rather than passed over."""
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True, slots=True)
class Member:
    """One plain file of a shard.

    Attributes:
        key: its path up to the first dot of its name.
        extension: what follows that dot, in lower case.
        part: its place in the shard.
    """

    key: str
    extension: str
    part: FilePart


@dataclass(slots=True)
class _Group:
    """The members of one sample."""

    key: str
    members: list[Member] = field(default_factory=list)


def list_shards(source: WebDatasetSource) -> Listing:
    """List all samples of all shards, in the order they lie in.

    Raises:
        SourceError: there is no shard, one cannot be opened, or none holds a picture.
    """
    entries: list[Entry] = []
    unused: list[str] = []
    for address in shard_addresses(source):
        for entry in shard_entries(address, source):
            if entry.read is None and entry.problem is None:
                unused.append(entry.name)
            else:
                entries.append(entry)
    if not entries:
        raise SourceError(f"the shards {shown_address(source.path)!r} hold no JPEG, PNG or WebP picture")
    return Listing(tuple(entries), unused_captions=tuple(unused))


def shard_addresses(source: WebDatasetSource) -> list[str]:
    """Return the path or address of every shard.

    Raises:
        SourceError: there is none, or a name is not a tar file's.
    """
    addresses = expand(source.path, SHARD_ENDINGS)
    for address in addresses:
        name = name_of(address)
        if name.endswith(SHARD_ENDINGS[1:]):
            raise SourceError(
                f"{shown_address(address)} is compressed, which keeps it from being read at any place; pictures are "
                "compressed already. Unpack the shard: gunzip, bunzip2, unxz or zstd -d"
            )
    return addresses


def stream_shard(address: str, source: WebDatasetSource, holds: Callable[[], bool]) -> Iterator[Entry | None]:
    """Yield the samples of one shard in their order, with their pictures' bytes, reading it once from end to end.

    Args:
        address: of the shard.
        source: which it belongs to.
        holds: asked for each sample; where it says no, its bytes are not read, and None is yielded.

    Raises:
        SourceError: the shard cannot be opened.
    """
    with open_address(address) as file:
        for entry in _entries(address, file, source):
            if entry.read is None and entry.problem is None:
                continue  # words without a picture
            yield _held(entry, file) if holds() else None


def shard_entries(address: str, source: WebDatasetSource) -> Iterator[Entry]:
    """Yield the samples of one shard in their order; one without a picture has neither bytes nor a problem.

    A shard that is cut off or damaged yields, last, an entry with that problem.

    Raises:
        SourceError: the shard cannot be opened.
    """
    with open_address(address) as file:
        yield from _entries(address, file, source)


def _entries(address: str, file: IO[bytes], source: WebDatasetSource) -> Iterator[Entry]:
    shard = name_of(address)
    group: _Group | None = None
    for found in _members(address, file):
        if isinstance(found, str):
            if group is not None:
                yield _entry(shard, group, file, source)
            yield Entry(shown_name(shard), problem=found)
            return
        if group is None or group.key != found.key:
            if group is not None:
                yield _entry(shard, group, file, source)
            group = _Group(found.key)
        group.members.append(found)
    if group is not None:
        yield _entry(shard, group, file, source)


def _held(entry: Entry, file: IO[bytes]) -> Entry:
    """Return the entry with its picture's bytes, out of the shard that is open."""
    part = entry.read
    if not isinstance(part, FilePart):
        return entry
    try:
        file.seek(part.offset)
        content = bytes(file.read(part.size))
    except (OSError, ValueError) as error:
        return replace(entry, read=None, problem=f"it cannot be read: {error}")
    if len(content) != part.size:
        return replace(entry, read=None, problem="it is cut off")
    return replace(entry, read=HeldBytes(content))


class _ShortReads:
    """A file of which nothing large is read at once: a header that claims to be larger is not a header."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """Return bytes, as a file does."""
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place, as a file does."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place, as a file does."""
        return self._file.tell()


def _members(address: str, file: IO[bytes]) -> Iterator[Member | str]:
    """Yield a shard's plain files in order; where it is damaged, what is wrong, and no more."""
    place = 0
    try:
        length = file.seek(0, os.SEEK_END)
        file.seek(0)
        beginning = file.read(max(map(len, _COMPRESSED)))
        kind = next((kind for start, kind in _COMPRESSED.items() if beginning.startswith(start)), None)
        if kind is not None:
            yield f"is compressed ({kind}), whatever its name says, and cannot be read at any place: unpack it"
            return
        file.seek(0)
        with tarfile.open(fileobj=_ShortReads(file), mode="r:") as tar:  # type: ignore[call-overload]
            while (member := tar.next()) is not None:
                tar.members.clear()  # it would keep them all
                place = tar.offset
                end = member.offset_data + member.size
                if end > length:
                    name = shown_name(member.name)
                    yield f"is cut off: it has {length} bytes, and its {name} ends at byte {end}. Get it again"
                    return
                found = _member(address, member)
                if found is not None:
                    yield found
            place = tar.offset
            file.seek(place)
            mark = file.read(_BLOCK)
            if len(mark) < _BLOCK or any(mark):  # tarfile takes a damaged header for the end
                yield f"ends at byte {place} without a tar file's end: it was cut off or damaged there. Get it again"
    # A damaged header makes tarfile stumble over numbers and text, too.
    except (tarfile.TarError, EOFError, ValueError, IndexError, OverflowError) as error:
        said = str(error).partition("\n")[0] or type(error).__name__
        where = f"is damaged at byte {place}" if place else "is no tar file, or is damaged from the start"
        yield f"{where}: {said}. Get it again"
    except OSError as error:
        yield f"cannot be read at byte {place}: {error.strerror or error}"


def _member(address: str, member: tarfile.TarInfo) -> Member | None:
    """Return what a header says, or None of what is no plain file with a name of WebDataset's form."""
    path = PurePosixPath(member.name)
    stem, dot, extension = path.name.partition(".")
    if not member.isreg() or member.issparse() or not stem or not dot:
        return None
    folder = "" if str(path.parent) == "." else f"{path.parent}/"
    return Member(folder + stem, extension.lower(), FilePart(address, member.offset_data, member.size))


def _entry(shard: str, group: _Group, file: IO[bytes], source: WebDatasetSource) -> Entry:
    name = f"{shard}/{group.key}"
    pictures = [member for member in group.members if f".{member.extension}" in PICTURE_LIKE]
    if not pictures:
        return Entry(shown_name(f"{name}.{group.members[0].extension}"))
    picture, extension = pictures[0], f".{pictures[0].extension}"
    shown = shown_name(name + extension)
    problem = name_problem(name)
    if problem is None and len(pictures) > 1:
        problem = f"there are {len(pictures)} pictures of this name: {', '.join(each.extension for each in pictures)}"
    if problem is None and extension not in EXTENSIONS:
        problem = f"{extension} files are not read: convert it to PNG, JPEG or WebP"
    if problem is None and picture.part.size > MAX_FILE_BYTES:
        problem = f"it has {picture.part.size} bytes; at most {MAX_FILE_BYTES} are read"
    if problem is not None:
        return Entry(shown, problem=problem)
    try:
        caption, score = _words(group, file, source)
    except (CaptionError, PictureError) as error:
        return Entry(shown, problem=str(error))
    return Entry(shown, caption, None, score, extension, picture.part)


def _words(group: _Group, file: IO[bytes], source: WebDatasetSource) -> tuple[str | None, float | None]:
    """Return a sample's caption and aesthetic score, None where it has none.

    Raises:
        CaptionError: they cannot be used.
    """
    members = {member.extension: member for member in reversed(group.members)}
    caption = score = None
    about = members.get("json")
    if about is not None:
        values = _json(about, file)
        caption = caption_of(values.get(source.json_field), keep_lines=source.keeps_lines)
        score = values.get("aesthetic_score")
        is_number = isinstance(score, int | float) and not isinstance(score, bool)
        if score is not None and not (is_number and 0 <= score <= 10):
            raise CaptionError(f'its "aesthetic_score" is {score!r:.40}: needs a number from 0 to 10')
    text = members.get(source.caption_extension.removeprefix("."))
    if text is not None:
        content = _read(text, file, MAX_CAPTION_BYTES)
        caption = decode_caption(content, f"{group.key}.{text.extension}", keep_lines=source.keeps_lines)
    return caption, None if score is None else float(score)


def _json(member: Member, file: IO[bytes]) -> dict[str, Any]:
    try:
        values = json.loads(_read(member, file, MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        raise CaptionError(f"its {member.extension} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise CaptionError(f"its {member.extension} holds no names with values")
    return values


def _read(member: Member, file: IO[bytes], most: int) -> bytes:
    """Return a small member's bytes from the shard that is open."""
    if member.part.size > most:
        raise CaptionError(f"its {member.extension} has {member.part.size} bytes; at most {most} are read")
    file.seek(member.part.offset)
    content = file.read(member.part.size)
    if len(content) != member.part.size:
        raise CaptionError(f"its {member.extension} is cut off")
    return content
