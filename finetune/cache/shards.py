"""One shard of the cache: a safetensors file of many values, with the checksum of each in its own header.

A shard is written once, under a temporary name, and never changed. Its index is its header, so the two cannot come
apart: a shard is there with its index or not at all. Which values belong together, and what they mean, is not known
here; nor is torch, so that shards can be checked and copied without it.
"""

import json
import math
import mmap
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from finetune.run.durable import write_chunks

FORMAT = "atelier-cache-1"
"""Stands in every shard's header. A shard with another word there is another program's or version's: left alone."""

ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}
"""Bytes of one number of each of safetensors' types that may stand in a shard."""

_MAX_HEADER_BYTES = 64 * 2**20
_MAX_MAPPED = 32


class DamagedShardError(Exception):
    """A shard, or a value in it, is not what was written."""


class ForeignShardError(Exception):
    """A shard was written by another version; it is whole as far as can be seen."""


@dataclass(frozen=True, slots=True)
class Part:
    """One tensor of a value: its name, safetensors' word for its type, its shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes it takes."""
        return ITEM_BYTES[self.dtype] * math.prod(self.shape)


Layout = tuple[Part, ...]
"""The parts of a value, in the order of their bytes."""


@dataclass(frozen=True, slots=True)
class RawValue:
    """A value as its bytes.

    Attributes:
        layout: its parts.
        data: their bytes, one part after the other.
    """

    layout: Layout
    data: bytes | bytearray

    def checksum(self) -> str:
        """Return 32 hexadecimal digits that depend on every byte and on the layout."""
        digest = xxhash.xxh3_128()
        for part in self.layout:
            digest.update(f"{part.name}:{part.dtype}:{part.shape};".encode())
        digest.update(self.data)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value lies in its shard.

    Attributes:
        layout: its parts.
        begin: the place of its first byte in the file.
        checksum: what its bytes must give.
    """

    layout: Layout
    begin: int
    checksum: str

    @property
    def num_bytes(self) -> int:
        """Bytes it takes."""
        return sum(part.num_bytes for part in self.layout)


@dataclass(frozen=True)
class ShardIndex:
    """What a shard holds.

    Attributes:
        places: where each value lies, by its key.
        num_bytes: the size of the file.
    """

    places: dict[str, Place]
    num_bytes: int


def write_shard(path: Path, values: Mapping[str, RawValue]) -> ShardIndex:
    """Write values as a new shard, whole or not at all, and return its index.

    It is not flushed to the disk: what a power cut tears is found by its length or checksum, and encoded again.

    Raises:
        DiskError: the disk is full or cannot be written.
    """
    header: dict[str, Any] = {"__metadata__": {"format": FORMAT}}
    places: dict[str, Place] = {}
    end = 0
    for key, value in values.items():
        places[key] = Place(value.layout, end, value.checksum())
        header["__metadata__"][key] = places[key].checksum
        for part in value.layout:
            begin, end = end, end + part.num_bytes
            header[f"{key}.{part.name}"] = {"dtype": part.dtype, "shape": part.shape, "data_offsets": [begin, end]}
        assert end - places[key].begin == len(value.data), "a value is as long as its parts"
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)  # the tensors begin at a multiple of 8, as safetensors' own writer has it
    start = 8 + len(encoded)
    chunks = (len(encoded).to_bytes(8, "little"), encoded, *(value.data for value in values.values()))
    write_chunks(path, chunks, flush=False)
    moved = {key: Place(place.layout, start + place.begin, place.checksum) for key, place in places.items()}
    return ShardIndex(moved, start + end)


def read_index(path: Path, layouts: dict[Layout, Layout]) -> ShardIndex:
    """Read what a shard holds, and check that the file is as long as it should be. Values are checked as they are read.

    Args:
        path: the shard.
        layouts: layouts met so far, which values of many shards share.

    Raises:
        DamagedShardError: it is cut short, or its header is not one of ours.
        ForeignShardError: it is another version's.
        FileNotFoundError: it is no longer there.
    """
    header, start = read_header(path)
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not str(metadata.get("format", "")).startswith("atelier-cache-"):
        raise DamagedShardError("its header is not one of the cache's")
    if metadata.pop("format") != FORMAT:
        raise ForeignShardError
    places, end = _places(header, metadata, start, layouts)
    size = path.stat().st_size
    if size != end:
        raise DamagedShardError(f"it has {size} bytes of {end}")
    return ShardIndex(places, size)


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return a safetensors file's header, and the place where the tensors' bytes begin.

    Raises:
        DamagedShardError: there is no such header.
        FileNotFoundError: the file is not there.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(_MAX_HEADER_BYTES, path.stat().st_size):
            raise DamagedShardError("it is cut short, or its header is not one of safetensors'")
        content = file.read(length)
    try:
        header = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedShardError(f"its header is damaged ({error})") from error
    if not isinstance(header, dict):
        raise DamagedShardError("its header is not one of safetensors'")
    return header, 8 + length


def _places(
    header: Mapping[str, Any], checksums: Mapping[str, Any], start: int, layouts: dict[Layout, Layout]
) -> tuple[dict[str, Place], int]:
    """Return the place of each value and where the last one ends; names and offsets must leave nothing open."""
    parts: dict[str, list[Part]] = {}
    begins: dict[str, int] = {}
    end, last = 0, ""
    try:
        for name, entry in header.items():
            key, _, part_name = name.rpartition(".")
            begin, stop = entry["data_offsets"]
            part = Part(part_name, entry["dtype"], tuple(entry["shape"]))
            if begin != end or stop - begin != part.num_bytes or (key in parts and key != last):
                raise DamagedShardError("its header is damaged (places)")
            parts.setdefault(key, []).append(part)
            begins.setdefault(key, start + begin)
            last, end = key, stop
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedShardError(f"its header is damaged ({error!r})") from error
    if parts.keys() != checksums.keys():
        raise DamagedShardError("its header is damaged (names)")
    places = {}
    for key, own in parts.items():
        layout = tuple(own)
        places[key] = Place(layouts.setdefault(layout, layout), begins[key], str(checksums[key]))
    return places, start + end


class MappedShards:
    """Reads values out of memory-mapped shards, of which a few are kept open.

    Pages are given back to the system after each read: what was read does not stay in the process's memory.
    """

    def __init__(self, max_mapped: int = _MAX_MAPPED) -> None:
        self._max_mapped = max_mapped
        self._maps: OrderedDict[Path, mmap.mmap] = OrderedDict()

    def read(self, path: Path, num_bytes: int, place: Place) -> RawValue:
        """Return a value after checking it.

        Args:
            path: the shard.
            num_bytes: the size it must have.
            place: where the value lies.

        Raises:
            DamagedShardError: the bytes are not what was written.
            FileNotFoundError: the shard is no longer there.
        """
        mapped = self._map(path, num_bytes)
        begin, end = place.begin, place.begin + place.num_bytes
        if hasattr(mmap, "MADV_WILLNEED"):
            page = begin - begin % mmap.PAGESIZE
            mapped.madvise(mmap.MADV_WILLNEED, page, end - page)
        with memoryview(mapped) as view:
            value = RawValue(place.layout, bytearray(view[begin:end]))
        if hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)
        if value.checksum() != place.checksum:
            raise DamagedShardError("a value's checksum differs")
        return value

    def forget(self, path: Path) -> None:
        """Close a shard."""
        mapped = self._maps.pop(path, None)
        if mapped is not None:
            mapped.close()

    def close(self) -> None:
        """Close every shard; the next read opens what it needs."""
        for path in list(self._maps):
            self.forget(path)

    def _map(self, path: Path, num_bytes: int) -> mmap.mmap:
        is_mapped = path in self._maps
        try:
            size = path.stat().st_size  # each time: to read beyond the end of a file that was cut ends the process
        except FileNotFoundError:
            if is_mapped:
                return self._maps[path]  # its name is gone, its bytes stay as long as they are mapped
            raise
        if size != num_bytes:
            self.forget(path)
            raise DamagedShardError(f"it has {size} bytes of {num_bytes}")
        if is_mapped:
            self._maps.move_to_end(path)
            return self._maps[path]
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._maps[path] = mapped
        while len(self._maps) > self._max_mapped:
            self.forget(next(iter(self._maps)))
        return mapped
