"""Tensors out of a checked file, one at a time: what is held is what was asked for, however large the file."""

from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor

from finetune.errors import AtelierError
from finetune.tensors.finite import all_finite
from finetune.tensors.header import Header, shown

_DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class TensorFile:
    """An open safetensors file whose header was checked. Use it as a context, or close it."""

    def __init__(self, header: Header) -> None:
        """Open the file of `header` (see `finetune.tensors.header.read_header`)."""
        self.header = header
        self._file = header.path.open("rb", buffering=0)

    def __enter__(self) -> Self:
        """Return the file."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __contains__(self, name: str) -> bool:
        """Whether there is a tensor of that name."""
        return name in self.header.entries

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape without reading it."""
        return self.header.entries[name].shape

    def raw(self, name: str) -> Tensor:
        """Return a tensor in the numbers of the file, in memory of its own.

        Raises:
            AtelierError: the file is shorter than it was.
        """
        entry = self.header.entries[name]
        content = np.empty(entry.end - entry.start, dtype=np.uint8)
        view = content.data
        self._file.seek(entry.start)
        while view:
            count = self._file.readinto(view)
            if not count:
                raise AtelierError(f"{self.header.path}: is shorter than it was when it was opened")
            view = view[count:]
        if not content.size:
            return torch.empty(entry.shape, dtype=_DTYPES[entry.dtype])
        return torch.from_numpy(content).view(_DTYPES[entry.dtype]).reshape(entry.shape)

    def floats(self, name: str) -> Tensor:
        """Return a tensor in float32.

        Raises:
            AtelierError: it holds whole numbers, or one that is not finite.
        """
        tensor = self.raw(name)
        if not tensor.is_floating_point():
            raise AtelierError(f"{self.header.path}: {shown(name)} holds something else than finite numbers")
        tensor = tensor.float()
        if not all_finite(tensor):
            raise AtelierError(f"{self.header.path}: {shown(name)} holds something else than finite numbers")
        return tensor
