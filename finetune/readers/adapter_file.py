"""A LoRA file as readers see it before they read its tensors: names, shapes, strings, and the single numbers.

A file in one of the formats of one file, or peft's folders: one with `adapter_config.json`, or a folder of such folders
named after the components. The names of a folder's tensors are told apart by `<component>/` before them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from finetune.errors import AtelierError
from finetune.naming.components import COMPONENTS, Component
from finetune.tensors.header import Header, TensorEntry, read_header, shown

Shape = tuple[int, ...]

PEFT_WEIGHTS = "adapter_model.safetensors"
PEFT_CONFIG = "adapter_config.json"
DIFFUSERS_WEIGHTS = "pytorch_lora_weights.safetensors"

_SINGLE = (".alpha", ".scale")
_MAX_CONFIG_BYTES = 1 << 20
_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1", "U8": "<u1"}


@dataclass(frozen=True)
class AdapterFile:
    """What can be known of a LoRA file without its tensors.

    Attributes:
        path: the file or folder.
        shapes: of the tensors, by name.
        dtypes: of the tensors, as safetensors names them.
        numbers: the values of the single numbers among them, `….alpha` and `….scale`.
        metadata: the file's strings.
        configs: what `adapter_config.json` says for a component, for peft's folders.
    """

    path: Path
    shapes: Mapping[str, Shape]
    dtypes: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    configs: Mapping[Component, Mapping[str, Any]] = field(default_factory=dict)


def read_adapter_file(path: Path) -> AdapterFile:
    """Read what a LoRA file or folder says of itself.

    Raises:
        AtelierError: there is none, it holds what must not be trusted, or numbers that are not finite for a scale.
    """
    if not path.is_dir():
        header = read_header(path)
        return AdapterFile(path, *_contents(header), metadata=header.metadata)
    if (path / PEFT_CONFIG).exists():
        return _peft_folder(path, {_component_of_folder(path): path})
    if (path / DIFFUSERS_WEIGHTS).exists():
        return read_adapter_file(path / DIFFUSERS_WEIGHTS)
    folders: dict[Component, Path] = {
        component: path / component for component in COMPONENTS if (path / component / PEFT_CONFIG).exists()
    }
    if not folders:
        raise AtelierError(
            f"{path}: holds no LoRA that is known: neither {PEFT_CONFIG} (peft) nor {DIFFUSERS_WEIGHTS} (diffusers). "
            + _files_to_give(path)
        )
    return _peft_folder(path, folders)


def _files_to_give(path: Path) -> str:
    """Name the files that may be meant by a folder; a run keeps them in `exports`."""
    files = [str(file) for folder in (path, path / "exports") for file in sorted(folder.glob("*.safetensors"))]
    return f"Give one of its files: {', '.join(files[:3])}" if files else "Give the .safetensors file itself"


def _contents(header: Header) -> tuple[dict[str, Shape], dict[str, str], dict[str, float]]:
    shapes = {name: entry.shape for name, entry in header.entries.items()}
    dtypes = {name: entry.dtype for name, entry in header.entries.items()}
    single = {
        name: entry
        for name, entry in header.entries.items()
        if name.endswith(_SINGLE) and entry.dtype in (*_NUMPY, "BF16") and shape_size(entry.shape) == 1
    }
    return shapes, dtypes, _numbers(header.path, single)


def _numbers(path: Path, entries: Mapping[str, TensorEntry]) -> dict[str, float]:
    """Read tensors of one number each."""
    numbers = {}
    with path.open("rb") as file:
        for name, entry in entries.items():
            file.seek(entry.start)
            content = file.read(entry.end - entry.start)
            if len(content) != entry.end - entry.start:
                raise AtelierError(f"{path}: is shorter than it was when it was opened")
            numbers[name] = _number(content, entry.dtype)
            if not np.isfinite(numbers[name]):
                raise AtelierError(f"{path}: {shown(name)} is not a finite number, so no scale can be made of it")
    return numbers


def _number(content: bytes, dtype: str) -> float:
    if dtype == "BF16":  # the upper half of a float32
        return float(np.frombuffer(b"\0\0" + content, dtype="<f4")[0])
    return float(np.frombuffer(content, dtype=_NUMPY[dtype])[0])


def shape_size(shape: Shape) -> int:
    """Return how many numbers a tensor of that shape has."""
    size = 1
    for length in shape:
        size *= length
    return size


def _peft_folder(path: Path, folders: Mapping[Component, Path]) -> AdapterFile:
    shapes: dict[str, Shape] = {}
    dtypes: dict[str, str] = {}
    numbers: dict[str, float] = {}
    configs: dict[Component, Mapping[str, Any]] = {}
    metadata: dict[str, str] = {}
    for component, folder in folders.items():
        if not (folder / PEFT_WEIGHTS).exists():
            raise AtelierError(
                f"{folder}: has no {PEFT_WEIGHTS}; adapter_model.bin is a pickle, which can run code and is not read. "
                "Let the program it came from save it again with safetensors"
            )
        header = read_header(folder / PEFT_WEIGHTS)
        own_shapes, own_dtypes, own_numbers = _contents(header)
        shapes |= {f"{component}/{name}": shape for name, shape in own_shapes.items()}
        dtypes |= {f"{component}/{name}": dtype for name, dtype in own_dtypes.items()}
        numbers |= {f"{component}/{name}": number for name, number in own_numbers.items()}
        metadata |= header.metadata
        configs[component] = _config(folder / PEFT_CONFIG)
    return AdapterFile(path, shapes, dtypes, numbers, metadata, configs)


def _config(path: Path) -> Mapping[str, Any]:
    if path.stat().st_size > _MAX_CONFIG_BYTES:
        raise AtelierError(f"{path}: is larger than any adapter's settings")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise AtelierError(f"{path}: is not JSON") from error
    if not isinstance(config, dict):
        raise AtelierError(f"{path}: is no JSON object")
    return config


def _component_of_folder(path: Path) -> Component:
    """Tell which component a folder of peft's is for: by its name, else by what its tensors are called and how wide."""
    for component in COMPONENTS:
        if path.resolve().name == component:
            return component
    weights = path / PEFT_WEIGHTS
    if weights.exists():
        header = read_header(weights)
        for name, entry in header.entries.items():
            if "layers." in name and "blocks" not in name:
                return "text_encoder" if 768 in entry.shape else "text_encoder_2"
    return "unet"
