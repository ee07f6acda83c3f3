"""Write a safetensors file tensor by tensor, whole or not at all, without holding it in memory.

A header says where every tensor lies and comes first, so the tensors go to a temporary file beside the target as they
are made; when all are there the header is known, and the file is put together. It is the file that safetensors' own
writer makes of the same tensors: wide numbers first, then by name.
"""

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from finetune.run.durable import disk_errors, whole_file
from finetune.tensors.header import ITEM_BYTES

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
# safetensors orders by this, widest first.
_ORDER = ("I64", "F64", "F32", "I32", "BF16", "F16", "I16", "F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL")
_CHUNK_BYTES = 8 * 1024 * 1024
_LEGACY_START, _LEGACY_BYTES = 0x100000, 0x10000


@dataclass(frozen=True)
class _Piece:
    dtype: str
    shape: tuple[int, ...]
    position: int
    num_bytes: int


class SpooledFile:
    """A safetensors file in the making: add its tensors, then finish it. Made by `spooled_file`."""

    def __init__(self, data: IO[bytes]) -> None:
        """Gather tensors in `data`."""
        self._data = data
        self._pieces: dict[str, _Piece] = {}
        self.metadata: dict[str, str] | None = None
        self.with_hashes = False

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of what was added, by name."""
        return {name: piece.shape for name, piece in self._pieces.items()}

    def add(self, name: str, tensor: Tensor) -> None:
        """Write a tensor down; it need not be kept."""
        assert name not in self._pieces, f"{name} stands twice"
        tensor = tensor.detach().to("cpu").contiguous()
        content = tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else memoryview(b"")
        self._pieces[name] = _Piece(_NAMES[tensor.dtype], tuple(tensor.shape), self._data.tell(), len(content))
        self._data.write(content)

    def finish(self, metadata: Mapping[str, str], *, with_hashes: bool = False) -> None:
        """Say what the file's strings are; it is put together when the block of `spooled_file` ends.

        Args:
            metadata: the strings.
            with_hashes: add kohya's two hashes and ModelSpec's, see `finetune.export.metadata`.
        """
        assert all(isinstance(value, str) for value in metadata.values()), "safetensors metadata are strings"
        self.metadata, self.with_hashes = dict(metadata), with_hashes

    def write_to(self, path: Path) -> None:
        """Put the file together at `path`."""
        assert self.metadata is not None, "finish() was not called"
        names = sorted(self._pieces, key=lambda name: (_ORDER.index(self._pieces[name].dtype), name))
        metadata = self.metadata
        if self.with_hashes:
            metadata = metadata | self._hashes(names, metadata)
        with path.open("wb", buffering=0) as file:
            write_all(file, self._header(names, metadata))
            for chunk in self._chunks(names):
                write_all(file, chunk)

    def _header(self, names: list[str], metadata: Mapping[str, str]) -> bytes:
        entries: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
        position = 0
        for name in names:
            piece = self._pieces[name]
            assert piece.num_bytes % ITEM_BYTES[piece.dtype] == 0
            entries[name] = {
                "dtype": piece.dtype,
                "shape": list(piece.shape),
                "data_offsets": [position, position + piece.num_bytes],
            }
            position += piece.num_bytes
        content = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
        content += b" " * (-len(content) % 8)
        return len(content).to_bytes(8, "little") + content

    def _chunks(self, names: list[str]) -> Iterator[bytes]:
        """Yield the tensors' bytes in the order of the names."""
        for name in names:
            piece = self._pieces[name]
            self._data.seek(piece.position)
            left = piece.num_bytes
            while left:
                chunk = self._data.read(min(left, _CHUNK_BYTES))
                left -= len(chunk)
                yield chunk

    def _hashes(self, names: list[str], metadata: Mapping[str, str]) -> dict[str, str]:
        """Return the hashes of the file that has the `ss_` strings alone as its metadata, as sd-scripts takes them.

        `sshs_model_hash` is the sha256 of the bytes behind the header, `sshs_legacy_hash` the first eight digits of
        that of the bytes 0x100000 to 0x110000 (`train_util.precalculate_safetensors_hashes`).
        """
        whole, legacy = hashlib.sha256(), hashlib.sha256()
        header = self._header(names, {key: value for key, value in metadata.items() if key.startswith("ss_")})
        position = len(header)
        _update_slice(legacy, header, 0)
        for chunk in self._chunks(names):
            whole.update(chunk)
            _update_slice(legacy, chunk, position)
            position += len(chunk)
        digest = whole.hexdigest()
        return {
            "sshs_model_hash": digest,
            "sshs_legacy_hash": legacy.hexdigest()[:8],
            "modelspec.hash_sha256": f"0x{digest}",
        }


@contextlib.contextmanager
def spooled_file(path: Path) -> Iterator[SpooledFile]:
    """Give a file to add tensors to; when the block ends well it becomes `path`, readable by others.

    Twice its size is needed on the disk while it is put together.

    Raises:
        DiskError: the disk refuses. What was at `path` is as it was.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent) as data:
            spool = SpooledFile(data)
            yield spool
            with whole_file(path) as temporary:
                spool.write_to(temporary)


def write_all(file: IO[bytes], content: bytes | memoryview) -> None:
    """Write all of it to a file without a buffer, which may take less at once."""
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]


def _update_slice(digest: "hashlib._Hash", content: bytes, position: int) -> None:
    """Add what of `content`, which begins at `position`, lies in the bytes of the legacy hash."""
    start = max(_LEGACY_START - position, 0)
    end = _LEGACY_START + _LEGACY_BYTES - position
    if start < len(content) and end > 0:
        digest.update(content[start:end])
