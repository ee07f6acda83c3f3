"""Write a safetensors file from memory, whole and readable by others, and make sure of what was written."""

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor

from finetune.errors import AtelierError
from finetune.run.durable import disk_errors, write_bytes
from finetune.tensors.header import read_header


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
    header = read_header(path)
    written = {name: entry.shape for name, entry in header.entries.items()}
    if path.stat().st_size != len(data) or written != {name: tuple(tensor.shape) for name, tensor in tensors.items()}:
        raise AtelierError(f"{path}: the disk did not keep what was written. Export again, to another disk.")
