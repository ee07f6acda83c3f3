"""Stores of tensors by key: on disk for all runs, or in memory for one. Both answer alike, to the bit."""

from collections.abc import Mapping
from typing import Protocol

import safetensors.torch
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.distributed import broadcast

from finetune.cache.folder import ShardFolder
from finetune.cache.shards import Part, RawValue

Value = Mapping[str, Tensor]
"""What is kept under one key: a few tensors by name, on the CPU."""

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class Store(Protocol):
    """Values by key."""

    def __contains__(self, key: str) -> bool:
        """Whether there is a value."""
        ...

    def get(self, key: str) -> Value | None:
        """Return a value, or None where there is no whole one."""
        ...

    def put(self, key: str, value: Value) -> None:
        """Take a value in."""
        ...

    def flush(self) -> None:
        """Let what was taken in last beyond this process."""
        ...

    def share(self, accelerator: Accelerator) -> None:
        """Let every process of the run have what each took in. All of them call it together."""
        ...


class DiskStore:
    """Values in a folder's shards. Tensors are read from the mapped file at each `get`; none is kept in memory."""

    def __init__(self, folder: ShardFolder) -> None:
        self.folder = folder

    def __contains__(self, key: str) -> bool:
        """Whether there is a value."""
        return key in self.folder

    def get(self, key: str) -> Value | None:
        """Return a value after checking it, or None where there is none, or no whole one."""
        raw = self.folder.get(key)
        return None if raw is None else to_tensors(raw)

    def put(self, key: str, value: Value) -> None:
        """Take a value in. Raises DiskError."""
        self.folder.put(key, to_raw(value))

    def flush(self) -> None:
        """Write what waits. Raises DiskError."""
        self.folder.flush()

    def share(self, accelerator: Accelerator) -> None:
        """Wait until every process has written its part, then look what is there."""
        self.flush()
        accelerator.wait_for_everyone()
        self.folder.refresh()


class MemoryStore:
    """Values in this process's memory."""

    def __init__(self) -> None:
        self._values: dict[str, Value] = {}
        self._own: dict[str, Value] = {}

    def __contains__(self, key: str) -> bool:
        """Whether there is a value."""
        return key in self._values

    def get(self, key: str) -> Value | None:
        """Return a value, or None."""
        return self._values.get(key)

    def put(self, key: str, value: Value) -> None:
        """Take a value in."""
        self._values[key] = self._own[key] = value

    def flush(self) -> None:
        """Do nothing: memory lasts no longer than the process."""

    def share(self, accelerator: Accelerator) -> None:
        """Send every process what this one took in since the last time, and take in what the others did."""
        own, self._own = self._own, {}
        if accelerator.num_processes == 1:
            return
        for source in range(accelerator.num_processes):
            sent = _packed(own) if source == accelerator.process_index else b""
            self._values |= _unpacked(_broadcast(sent, source, accelerator.device))


def to_raw(value: Value) -> RawValue:
    """Return a value as its bytes."""
    layout = tuple(Part(name, _NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in value.items())
    data = b"".join(
        tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes() for tensor in value.values()
    )
    return RawValue(layout, data)


def to_tensors(raw: RawValue) -> dict[str, Tensor]:
    """Return a value's tensors, which share the memory of its bytes."""
    begin, tensors = 0, {}
    data = raw.data if isinstance(raw.data, bytearray) else bytearray(raw.data)
    for part in raw.layout:
        count = part.num_bytes // _DTYPES[part.dtype].itemsize
        tensors[part.name] = torch.frombuffer(data, dtype=_DTYPES[part.dtype], count=count, offset=begin).view(
            part.shape
        )
        begin += part.num_bytes
    return tensors


def _packed(values: Mapping[str, Value]) -> bytes:
    """Return values as a safetensors file, which no pickle is needed for."""
    tensors = {f"{key}.{name}": tensor.clone() for key, value in values.items() for name, tensor in value.items()}
    return safetensors.torch.save(tensors)


def _unpacked(content: bytes) -> dict[str, Value]:
    values: dict[str, dict[str, Tensor]] = {}
    for full_name, tensor in safetensors.torch.load(content).items():
        key, _, name = full_name.rpartition(".")
        values.setdefault(key, {})[name] = tensor
    return dict(values)


def _broadcast(content: bytes, source: int, device: torch.device) -> bytes:
    """Send bytes from one process to all; the length goes first."""
    length = torch.tensor([len(content)], dtype=torch.int64, device=device)
    broadcast(length, source)
    data = torch.empty(int(length), dtype=torch.uint8)
    if content:
        data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    data = data.to(device)
    broadcast(data, source)
    return data.cpu().numpy().tobytes()
