"""Write a safetensors file whole, readable by others, and make sure of what was written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from finetune.errors import AtelierError
from finetune.run.durable import disk_errors, write_bytes


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and header strings to `path`, whole or not at all; the folder is made when it is missing.

    The file has the permissions of any other file of the user (safetensors' own writer gives 0600).

    Raises:
        DiskError: it cannot be written.
        AtelierError: what lies on the disk afterwards is not what was to be written.
    """
    assert all(isinstance(value, str) for value in metadata.values()), "safetensors metadata are strings"
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    data = safetensors.torch.save(dict(tensors), dict(metadata))
    write_bytes(path, data)
    header, size = read_header(path)
    written = {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    if size != len(data) or written != {name: tuple(tensor.shape) for name, tensor in tensors.items()}:
        raise AtelierError(f"{path}: the disk did not keep what was written. Export again, to another disk.")


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return a safetensors file's header and the file's size in bytes. Only for files we just wrote: see `read`."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length)), path.stat().st_size
