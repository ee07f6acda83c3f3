"""`atelier doctor`: what this machine has, in words, and what is missing for what."""

import argparse
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from finetune import __version__
from finetune.cli.arguments import add_json_argument
from finetune.cli.output import format_bytes, print_json

_PACKAGES = (
    "torch", "diffusers", "transformers", "peft", "accelerate", "datasets", "safetensors", "bitsandbytes",
    "prodigyopt", "pillow", "tensorboard", "gradio",
)  # fmt: skip
_OPTIONAL = {
    "bitsandbytes": "the 8-bit optimizers: pip install bitsandbytes",
    "prodigyopt": "the prodigy optimizer: pip install prodigyopt",
    "tensorboard": 'tracking: pip install "atelier[tensorboard]"',
    "gradio": 'the web page: pip install "atelier[ui]"',
}
_SDXL_DISK_BYTES = 16 * 2**30


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "doctor", help="look at the environment", description="Say what this machine has and what is missing for what."
    )
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the report; return 1 where something needed is missing."""
    report = examine()
    if arguments.json:
        print_json(report)
    else:
        print(as_text(report))
    return 0 if not report["problems"] else 1


def examine() -> dict[str, Any]:
    """Look at Python, packages, device, memory and disk."""
    import psutil

    packages = {name: _version(name) for name in _PACKAGES}
    problems = [
        f"{name} is missing: install the kit again"
        for name in _PACKAGES
        if not packages[name] and name not in _OPTIONAL
    ]
    report: dict[str, Any] = {
        "atelier": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu_cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "memory_free_bytes": psutil.virtual_memory().available,
        "disk_free_bytes": shutil.disk_usage(".").free,
        "packages": packages,
        "missing_optional": [_OPTIONAL[name] for name in _OPTIONAL if not packages[name]],
        "device": _device() if packages["torch"] else {"kind": "unknown"},
        "hub_offline": os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"),
        "problems": problems,
        "notes": [],
    }
    if report["device"]["kind"] == "cpu":
        report["notes"].append(
            "no GPU found: the miniature trains here; real SDXL would take minutes a step. With an NVIDIA card, torch "
            "must be its CUDA build"
        )
    if report["disk_free_bytes"] < _SDXL_DISK_BYTES:
        report["notes"].append("SDXL's base and refiner take about 13 GiB of disk; less than 16 GiB is free here")
    return report


def as_text(report: dict[str, Any]) -> str:
    """Write the report for a person."""
    device = report["device"]
    memory = f", {format_bytes(device['memory_bytes'])}" if "memory_bytes" in device else ""
    lines = [
        f"atelier {report['atelier']}, Python {report['python']}, {report['system']}",
        f"  device    {device.get('name', device['kind'])}{memory}" + (", bf16" if device.get("bf16") else ""),
        f"  processor {report['cpu_cores']} cores, {format_bytes(report['memory_bytes'])} memory, "
        f"{format_bytes(report['memory_free_bytes'])} free",
        f"  disk      {format_bytes(report['disk_free_bytes'])} free here",
        "  packages  " + ", ".join(f"{name} {found}" for name, found in report["packages"].items() if found),
    ]
    lines += [f"  missing   {hint}" for hint in report["missing_optional"]]
    lines += [f"  note      {note}" for note in report["notes"]]
    lines += [f"  problem   {problem}" for problem in report["problems"]]
    if not report["problems"]:
        lines.append("Ready. To begin: atelier train quickstart")
    return "\n".join(lines)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device() -> dict[str, Any]:
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return {
            "kind": "cuda",
            "name": properties.name,
            "memory_bytes": properties.total_memory,
            "bf16": torch.cuda.is_bf16_supported(including_emulation=False),
            "count": torch.cuda.device_count(),
        }
    if torch.backends.mps.is_available():
        return {"kind": "mps"}
    return {"kind": "cpu", "threads": torch.get_num_threads()}
