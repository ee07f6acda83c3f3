"""Devices and number formats by their names in a recipe."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from finetune.errors import RecipeError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def choose_device(name: str) -> torch.device:
    """Return the device a recipe names; `auto` takes CUDA, else MPS, else the CPU.

    Raises:
        RecipeError: the named device is not here.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if available[kind])
    if not available[name]:
        here = ", ".join(kind for kind, there in available.items() if there)
        raise RecipeError(
            f"training.device: {name!r} is not available here; there is: {here}. "
            "See what torch finds with: atelier doctor"
        )
    return torch.device(name)


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the base's precision.

    Raises:
        RecipeError: the device cannot compute in it.
    """
    if device.type == "cuda" and precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise RecipeError("training.precision: this card has no bf16. Set training.precision=fp16")
    return DTYPES[precision]


def autocast_for(dtype: torch.dtype, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """Return a maker of contexts in which matrix products run in `dtype`; float32 needs none."""
    if dtype == torch.float32:
        return nullcontext
    return lambda: torch.autocast(device.type, dtype)
