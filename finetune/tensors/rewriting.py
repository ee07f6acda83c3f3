"""Write a safetensors file again with some of its tensors changed: everything else is copied, byte for byte.

Kinds and shapes stay, so every tensor keeps its place and the file is read and written once, from the front to the
back, with one tensor in memory. (`finetune.tensors.spool` makes files whose tensors are not known beforehand.)
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from finetune.run.durable import write_chunks
from finetune.tensors.header import Header
from finetune.tensors.reading import TensorFile

_CHUNK_BYTES = 8 * 1024 * 1024

Change = Callable[[Tensor], Tensor]


def rewrite(source: TensorFile, target: Path, changes: Mapping[str, Change], metadata: Mapping[str, str]) -> None:
    """Write `source` as `target`, whole or not at all.

    Args:
        source: the file, open.
        target: the new one; not the source.
        changes: by tensor name, what returns its new numbers from the old ones, in the same kind and shape.
        metadata: the new file's strings.

    Raises:
        DiskError: the disk refuses.
    """
    assert changes.keys() <= source.header.entries.keys(), "there are no such tensors"
    write_chunks(target, _chunks(source, changes, metadata))


def _chunks(
    source: TensorFile, changes: Mapping[str, Change], metadata: Mapping[str, str]
) -> Iterator[bytes | bytearray]:
    yield _header(source.header, metadata)
    with source.header.path.open("rb", buffering=0) as file:
        for name, entry in source.header.entries.items():
            if name in changes:
                before = source.raw(name)
                kind, shape = before.dtype, before.shape  # the change may be made in place
                after = changes[name](before)
                assert (after.dtype, after.shape) == (kind, shape), f"{name} changed its kind or shape"
                yield bytearray(after.contiguous().reshape(-1).view(torch.uint8).numpy().data)
                continue
            file.seek(entry.start)
            left = entry.end - entry.start
            while left:
                chunk = file.read(min(left, _CHUNK_BYTES))
                assert chunk, "the file became shorter"
                left -= len(chunk)
                yield chunk


def _header(header: Header, metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    for name, entry in header.entries.items():
        entries[name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [entry.start - header.data_start, entry.end - header.data_start],
        }
    content = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    content += b" " * (-len(content) % 8)
    return len(content).to_bytes(8, "little") + content
