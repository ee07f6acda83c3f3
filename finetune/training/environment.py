"""What a resumed run must share with the first part of it to be equal bit for bit."""

import platform
from importlib.metadata import version
from typing import Any

import torch

_PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate", "numpy", "pillow")


def environment_of(device: torch.device, num_processes: int) -> dict[str, Any]:
    """Return versions, device and thread count: a CPU result with one thread differs from one with two."""
    return {
        **{package: version(package) for package in _PACKAGES},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "processes": num_processes,
    }


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return what differs, each as 'threads: 2 then, 1 now'."""
    keys = sorted(then.keys() | now.keys())
    return [f"{key}: {then.get(key)} then, {now.get(key)} now" for key in keys if then.get(key) != now.get(key)]
