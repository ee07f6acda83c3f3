"""Read a LoRA file, in kohya's or diffusers' format, back into the neutral form.

Files come from strangers, too. Only safetensors are read; the header is checked first, for what safetensors' own reader
lets pass: names that stand twice, a header or a number of tensors beyond reason. Keys that belong to no module of
SDXL, factors that do not fit together and numbers that are not finite are refused. Whether the shapes fit a model is
seen where it is loaded into one.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from finetune.adapters.weights import COMPONENTS, Component, LoraModule
from finetune.errors import AtelierError
from finetune.export.keys import SDXL_BASE_LAYOUT, STEM_PREFIXES, UNetLayout, module_of_stem

# The largest adapter of SDXL (986 + 264 modules, four tensors each) has about 5,000 tensors and a header of 1 MB.
_MAX_HEADER_BYTES = 32 * 1024 * 1024
_MAX_TENSORS = 20_000

_KOHYA_PARTS = ("lora_down.weight", "lora_up.weight", "alpha", "dora_scale")
# peft itself leaves the last `.weight` away.
_PEFT_PARTS = ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector", "lora_magnitude_vector.weight")


def read_lora(path: Path, layout: UNetLayout = SDXL_BASE_LAYOUT) -> list[LoraModule]:
    """Return the modules of a LoRA file in float32, in the order of their names.

    Args:
        path: a `.safetensors` file in kohya's format (original layout) or in that of diffusers.
        layout: the block structure of the U-Net the file was made for; names in kohya's format depend on it.

    Raises:
        AtelierError: it is no such file, or holds what must not be trusted.
    """
    metadata = read_metadata(path)
    try:
        tensors = safetensors.torch.load_file(path, device="cpu")
    except safetensors.SafetensorError as error:
        raise AtelierError(f"{path}: is no whole safetensors file ({error})") from error
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
            raise AtelierError(f"{path}: {name!r} holds something else than finite numbers")
    if all(name.startswith(tuple(STEM_PREFIXES.values())) for name in tensors):
        return _read_kohya(path, tensors, layout)
    return _read_diffusers(path, tensors, metadata)


def read_metadata(path: Path) -> dict[str, str]:
    """Return a safetensors file's strings, after checking its header. Raises AtelierError."""
    header = _header(path)
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise AtelierError(f"{path}: its metadata are not strings")
    if len(header) > _MAX_TENSORS:
        raise AtelierError(f"{path}: {len(header)} tensors; a LoRA of SDXL has at most some thousands")
    return metadata


def _header(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise AtelierError(f"{path}: there is no such file")
    if path.suffix != ".safetensors":
        raise AtelierError(f"{path}: only .safetensors files are read; others can hold code")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _MAX_HEADER_BYTES:
            raise AtelierError(f"{path}: is no safetensors file, or its header ({length} bytes) is beyond reason")
        content = file.read(length)
    try:
        header = json.loads(content, object_pairs_hook=lambda pairs: _unique(path, pairs))
    except (ValueError, RecursionError) as error:
        raise AtelierError(f"{path}: is no safetensors file: its header is not JSON") from error
    if len(content) != length or not isinstance(header, dict) or not content.startswith(b"{"):
        raise AtelierError(f"{path}: is no safetensors file: its header is cut off or no JSON object")
    return header


def _unique(path: Path, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise AtelierError(f"{path}: a name stands twice in its header, so readers disagree on what it holds")
    return found


def _read_kohya(path: Path, tensors: Mapping[str, Tensor], layout: UNetLayout) -> list[LoraModule]:
    modules = []
    for stem, parts in sorted(_group(path, tensors, _KOHYA_PARTS).items()):
        down, up = _factors(path, stem, parts, "lora_down.weight", "lora_up.weight")
        component, module = module_of_stem(stem, layout)
        alpha = parts.get("alpha")
        if alpha is not None and alpha.numel() != 1:
            raise AtelierError(f"{path}: {stem}.alpha holds {alpha.numel()} numbers, not one")
        scale = 1.0 if alpha is None else alpha.item() / down.shape[0]
        magnitude = _magnitude(path, stem, up, parts.get("dora_scale"))
        modules.append(LoraModule(component, module, down, up, scale, magnitude))
    return modules


def _read_diffusers(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> list[LoraModule]:
    try:
        configs = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except (ValueError, RecursionError) as error:
        raise AtelierError(f"{path}: its lora_adapter_metadata is not JSON") from error
    if not isinstance(configs, dict):
        raise AtelierError(f"{path}: its lora_adapter_metadata is no JSON object")
    modules = []
    for stem, parts in sorted(_group(path, tensors, _PEFT_PARTS).items()):
        component = next((name for name in COMPONENTS if stem.startswith(f"{name}.")), None)
        if component is None:
            raise AtelierError(f"{path}: {stem!r} belongs to none of {', '.join(COMPONENTS)}")
        module = stem.removeprefix(f"{component}.")
        if component != "unet" and not module.startswith("text_model."):
            module = f"text_model.{module}"
        down, up = _factors(path, stem, parts, "lora_A.weight", "lora_B.weight")
        scale = _peft_scale(path, configs, component, module, down.shape[0])
        magnitude = parts.get("lora_magnitude_vector.weight", parts.get("lora_magnitude_vector"))
        modules.append(LoraModule(component, module, down, up, scale, _magnitude(path, stem, up, magnitude)))
    return modules


def _group(path: Path, tensors: Mapping[str, Tensor], known: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    """Return stem → part → tensor."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part = next((part for part in known if name.endswith(f".{part}")), None)
        if part is None:
            raise AtelierError(f"{path}: {name!r} is no part of a LoRA. Known parts: {', '.join(known)}")
        groups.setdefault(name.removesuffix(f".{part}"), {})[part] = tensor
    if not groups:
        raise AtelierError(f"{path}: holds no tensors")
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
