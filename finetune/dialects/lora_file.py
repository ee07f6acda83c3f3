"""Read a LoRA file, in kohya's or diffusers' format, back into the neutral form.

Files come from strangers, too. Only safetensors are read, after `finetune.tensors.header` has checked the header. Keys
that belong to no module of SDXL, factors that do not fit together and numbers that are not finite are refused. Whether
the shapes fit a model is seen where it is loaded into one. One module is read at a time: what is held is what is used.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from finetune.adapters.weights import LoraModule
from finetune.errors import AtelierError
from finetune.naming.components import COMPONENTS, Component
from finetune.naming.keys import SDXL_BASE_LAYOUT, STEM_PREFIXES, UNetLayout, module_of_stem
from finetune.tensors.header import Header, read_header
from finetune.tensors.reading import TensorFile

_KOHYA_PARTS = ("lora_down.weight", "lora_up.weight", "alpha", "dora_scale")
# peft itself leaves the last `.weight` away.
_PEFT_PARTS = ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector", "lora_magnitude_vector.weight")

ModuleName = tuple[Component, str]


class LoraFile:
    """An open LoRA file: the names of its modules at once, their weights one at a time. Use it as a context.

    Attributes:
        path: the file.
        metadata: its strings.
    """

    def __init__(self, path: Path, layout: UNetLayout = SDXL_BASE_LAYOUT) -> None:
        """Open a file.

        Args:
            path: a `.safetensors` file in kohya's format (original layout) or in that of diffusers.
            layout: the block structure of the U-Net the file was made for; names in kohya's format depend on it.

        Raises:
            AtelierError: it is no such file, or holds what must not be trusted.
        """
        header = read_header(path)
        self.path, self.metadata = path, dict(header.metadata)
        is_kohya = all(name.startswith(tuple(STEM_PREFIXES.values())) for name in header.entries)
        self._is_kohya = is_kohya
        groups = _group(header, _KOHYA_PARTS if is_kohya else _PEFT_PARTS)
        self._parts: dict[ModuleName, dict[str, str]] = {}
        for stem, parts in sorted(groups.items()):
            name = _module_of_stem(path, stem, layout) if is_kohya else _module_of_path(path, stem)
            self._parts[name] = parts
        self._configs = {} if is_kohya else _configs(path, header.metadata)
        self._file = TensorFile(header)

    @property
    def names(self) -> Sequence[ModuleName]:
        """Component and path of every module, in the order of the file's stems."""
        return tuple(self._parts)

    def __enter__(self) -> Self:
        """Return the file."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self._file.close()

    def load(self, name: ModuleName) -> LoraModule:
        """Return one module in float32.

        Raises:
            AtelierError: its tensors are missing, do not fit together or are not finite.
        """
        component, module = name
        parts = {part: self._file.floats(key) for part, key in self._parts[name].items()}
        stem = f"{component}.{module}"
        if self._is_kohya:
            down, up = _factors(self.path, stem, parts, "lora_down.weight", "lora_up.weight")
            alpha = parts.get("alpha")
            if alpha is not None and alpha.numel() != 1:
                raise AtelierError(f"{self.path}: {stem}.alpha holds {alpha.numel()} numbers, not one")
            scale = 1.0 if alpha is None else alpha.item() / down.shape[0]
            magnitude = parts.get("dora_scale")
        else:
            down, up = _factors(self.path, stem, parts, "lora_A.weight", "lora_B.weight")
            scale = _peft_scale(self.path, self._configs, component, module, down.shape[0])
            magnitude = parts.get("lora_magnitude_vector.weight", parts.get("lora_magnitude_vector"))
        return LoraModule(component, module, down, up, scale, _magnitude(self.path, stem, up, magnitude))

    def modules(self) -> Iterator[LoraModule]:
        """Yield every module, one at a time."""
        return (self.load(name) for name in self._parts)


def read_lora(path: Path, layout: UNetLayout = SDXL_BASE_LAYOUT) -> list[LoraModule]:
    """Return all modules of a LoRA file at once, in the order of their names. Arguments and errors as LoraFile's."""
    with LoraFile(path, layout) as file:
        return list(file.modules())


def _configs(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        configs = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except (ValueError, RecursionError) as error:
        raise AtelierError(f"{path}: its lora_adapter_metadata is not JSON") from error
    if not isinstance(configs, dict):
        raise AtelierError(f"{path}: its lora_adapter_metadata is no JSON object")
    return configs


def _module_of_stem(path: Path, stem: str, layout: UNetLayout) -> ModuleName:
    try:
        return module_of_stem(stem, layout)
    except AtelierError as error:
        raise AtelierError(f"{path}: {error}") from error


def _module_of_path(path: Path, stem: str) -> ModuleName:
    component = next((name for name in COMPONENTS if stem.startswith(f"{name}.")), None)
    if component is None:
        raise AtelierError(f"{path}: {stem!r} belongs to none of {', '.join(COMPONENTS)}")
    module = stem.removeprefix(f"{component}.")
    if component != "unet" and not module.startswith("text_model."):
        module = f"text_model.{module}"
    return component, module


def _group(header: Header, known: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return stem → part → the tensor's name."""
    groups: dict[str, dict[str, str]] = {}
    for name in header.entries:
        part = next((part for part in known if name.endswith(f".{part}")), None)
        if part is None:
            raise AtelierError(f"{header.path}: {name!r} is no part of a LoRA. Known parts: {', '.join(known)}")
        groups.setdefault(name.removesuffix(f".{part}"), {})[part] = name
    if not groups:
        raise AtelierError(f"{header.path}: holds no tensors")
    return groups


def _factors(path: Path, stem: str, parts: Mapping[str, Tensor], down_name: str, up_name: str) -> tuple[Tensor, Tensor]:
    missing = [name for name in (down_name, up_name) if name not in parts]
    if missing:
        raise AtelierError(f"{path}: {stem}.{missing[0]} is missing")
    down, up = parts[down_name].float(), parts[up_name].float()
    # Either two dimensions each, or four each with the second factor a 1 by 1 convolution.
    fits = (down.dim(), up.dim()) == (2, 2) or (down.dim() == up.dim() == 4 and up.shape[2:] == (1, 1))
    if not fits or down.shape[0] != up.shape[1] or 0 in (*down.shape, *up.shape):
        raise AtelierError(
            f"{path}: {stem}: the factors do not fit together: {tuple(down.shape)} and {tuple(up.shape)}"
        )
    return down, up


def _magnitude(path: Path, stem: str, up: Tensor, magnitude: Tensor | None) -> Tensor | None:
    if magnitude is None:
        return None
    if magnitude.numel() != up.shape[0]:
        raise AtelierError(
            f"{path}: {stem}: its DoRA magnitude has {magnitude.numel()} numbers, "
            f"not one for each of the {up.shape[0]} outputs"
        )
    return magnitude.float().flatten()


def _peft_scale(path: Path, configs: Mapping[str, Any], component: Component, module: str, rank: int) -> float:
    """Return what the product is multiplied by; without a config diffusers takes alpha to be the rank."""
    if f"{component}.lora_alpha" not in configs:
        return 1.0
    patterns = configs.get(f"{component}.alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise AtelierError(f"{path}: alpha_pattern of {component} is no JSON object")
    matching = (alpha for pattern, alpha in patterns.items() if _ends_with(module, pattern))
    alpha = next(matching, configs[f"{component}.lora_alpha"])
    if not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
        raise AtelierError(f"{path}: lora_alpha of {component} is {alpha!r}, not a number")
    return float(alpha) / (rank**0.5 if configs.get(f"{component}.use_rslora") else rank)


def _ends_with(module: str, pattern: str) -> bool:
    """Match as peft does for plain paths; patterns from strangers are not run as regular expressions."""
    plain = re.sub(r"^\^|\$$", "", pattern).replace("\\.", ".")
    return module == plain or module.endswith(f".{plain}")
