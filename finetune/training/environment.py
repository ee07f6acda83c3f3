"""What a resumed run must share with the first part of it to be equal bit for bit."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

_PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors", "numpy", "pillow",
             "bitsandbytes", "prodigyopt")  # fmt: skip


def environment_of(device: torch.device, num_processes: int) -> dict[str, Any]:
    """Return versions, device and thread count: a CPU result with one thread differs from one with two."""
    return {
        **{package: _version(package) for package in _PACKAGES},
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "processes": num_processes,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return what differs, each as 'threads: 2 then, 1 now'."""
    return [f"{key}: {then.get(key)} then, {now.get(key)} now" for key in differing(then, now)]


def differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the keys whose values differ."""
    return [key for key in sorted(then.keys() | now.keys()) if then.get(key) != now.get(key)]
