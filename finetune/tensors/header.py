"""A safetensors file's header, read and checked before anything else of the file is believed. Torch is not needed.

safetensors' own reader lets pass what one should not trust: names that stand twice (the last wins), space before the
header, tensors that share bytes or leave gaps, control characters in names. Here each of them is refused with the
reason; what the tensors mean is for others to see.
"""

import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from finetune.errors import AtelierError

MAX_HEADER_BYTES = 32 * 1024 * 1024
MAX_TENSORS = 20_000
"""The largest adapter of SDXL (986 + 264 modules, four tensors each) has about 5,000, and a header of 1 MB."""
MAX_NAME = 512

ITEM_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
"""Bytes of one number, for each kind that is read here."""

_MAX_DIMENSIONS = 8

_FETCH = "Fetch the file itself"
_PICKLE = "which can run code and is not read. Let the program it came from save it again as safetensors"
_OTHERS = (
    ((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), f"a pickle, {_PICKLE}"),
    ((b"pk\x03\x04",), f"a zip archive. torch saves pickles so, {_PICKLE}"),
    ((b"version ",), f"a pointer of Git LFS that stands for one. {_FETCH}: git lfs pull"),
    ((b"<!doctyp", b"<html"), f"a web page that was saved under its name. {_FETCH}"),
    ((b"gguf",), "a GGUF file, which holds a quantised model"),
)
"""What is often found under a LoRA's name, by its first eight bytes in small letters."""


@dataclass(frozen=True)
class TensorEntry:
    """What a header says of one tensor.

    Attributes:
        dtype: as safetensors names it, 'F16'.
        shape: its sizes.
        start, end: its bytes, counted from the file's beginning.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """A checked header.

    Attributes:
        path: the file.
        entries: by tensor name, in the order of their bytes.
        metadata: the file's strings.
        data_start: where the header ends and the tensors' bytes begin.
    """

    path: Path
    entries: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]
    data_start: int


def read_header(path: Path, *, max_tensors: int = MAX_TENSORS) -> Header:
    """Return a file's header.

    Args:
        path: a `.safetensors` file.
        max_tensors: how many tensors are believed.

    Raises:
        AtelierError: there is no such file, it is none of this kind, or its header cannot be trusted.
    """
    content, size = _content(path)
    try:
        raw = json.loads(content, object_pairs_hook=lambda pairs: _unique(path, pairs), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise AtelierError(f"{path}: is no safetensors file: its header is not JSON") from error
    if not isinstance(raw, dict) or not content.startswith(b"{"):
        raise AtelierError(f"{path}: is no safetensors file: its header is no JSON object")
    metadata = raw.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise AtelierError(f"{path}: its metadata are not strings")
    if len(raw) > max_tensors:
        raise AtelierError(f"{path}: {len(raw)} tensors; a LoRA of SDXL has at most some thousands")
    data_start = 8 + len(content)
    entries = {name: _entry(path, name, entry, data_start) for name, entry in raw.items()}
    entries = dict(sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)))
    _require_tight(path, entries, data_start, size)
    return Header(path, entries, metadata, data_start)


def read_metadata(path: Path) -> dict[str, str]:
    """Return a safetensors file's strings, after checking its header. Raises AtelierError."""
    return dict(read_header(path).metadata)


def shown(name: str) -> str:
    """Return a name from a file as it may be shown: on one line, in quotes, of bearable length."""
    return repr(name if len(name) <= 120 else name[:117] + "...")


def _content(path: Path) -> tuple[bytes, int]:
    """Return the header's bytes and the size of the file."""
    if not path.exists():
        raise AtelierError(f"{path}: there is no such file")
    if not path.is_file():
        raise AtelierError(f"{path}: is no plain file. Give a .safetensors file")
    if path.suffix != ".safetensors":
        raise AtelierError(f"{path}: only .safetensors files are read; others can hold code")
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if size < 8:
                raise AtelierError(f"{path}: is no safetensors file: it has {size} bytes. Fetch it again")
            if length > MAX_HEADER_BYTES:
                raise AtelierError(f"{path}: {_what_it_is(start, length)}")
            content = file.read(length)
    except OSError as error:
        raise AtelierError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) != length:
        raise AtelierError(f"{path}: is no safetensors file: its header is cut off")
    return content, size


def _what_it_is(start: bytes, length: int) -> str:
    """Tell by its first bytes what a file is that has no safetensors header."""
    for beginnings, told in _OTHERS:
        if start.lower().startswith(beginnings):
            return f"is no safetensors file, but {told}"
    return f"is no safetensors file, or its header ({length} bytes) is beyond reason"


def _unique(path: Path, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise AtelierError(f"{path}: a name stands twice in its header, so readers disagree on what it holds")
    return found


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def _entry(path: Path, name: str, entry: Any, data_start: int) -> TensorEntry:
    if not name or len(name) > MAX_NAME or any(unicodedata.category(letter).startswith("C") for letter in name):
        raise AtelierError(f"{path}: {shown(name)} is no tensor's name: empty, too long, or with control characters")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise AtelierError(f"{path}: {shown(name)}: its entry is not one of kind, shape and place")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise AtelierError(f"{path}: {shown(name)}: numbers of kind {dtype!r:.40} are not read here")
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS or not all(_is_size(size) for size in shape):
        raise AtelierError(f"{path}: {shown(name)}: its shape is none")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(offset) for offset in offsets):
        raise AtelierError(f"{path}: {shown(name)}: its place in the file is none")
    start, end = offsets
    if end - start != math.prod(shape) * ITEM_BYTES[dtype]:
        raise AtelierError(f"{path}: {shown(name)}: its shape and its bytes do not agree")
    return TensorEntry(dtype, tuple(shape), data_start + start, data_start + end)


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**48


def _require_tight(path: Path, entries: Mapping[str, TensorEntry], data_start: int, size: int) -> None:
    """Refuse tensors that share bytes, bytes that no tensor owns, and files that are cut off or go on behind."""
    places = [(data_start, data_start), *((entry.start, entry.end) for entry in entries.values())]
    for (_, end), (start, _) in pairwise(places):
        if start != end:
            raise AtelierError(f"{path}: its tensors overlap or leave gaps: what it holds is not told apart")
    if places[-1][1] != size:
        kind = "is cut off" if places[-1][1] > size else "goes on behind its last tensor"
        raise AtelierError(f"{path}: is no whole safetensors file: it {kind}")
