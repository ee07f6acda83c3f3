"""What figures were measured with: the command, the kit's commit, the machine, the weights."""

import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

import finetune
from finetune.miniature.install import weights_hash


def measuring_facts(command: str, base: Path, refiner: Path, seconds: float) -> dict[str, str]:
    """Return them by name, in words."""
    return {
        "command": f"`{command}`",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit(),
        "weights": f"base {weights_hash(base)[:12]}, refiner {weights_hash(refiner)[:12]} (sha256)",
        "machine": machine(),
        "libraries": versions(("torch", "diffusers", "transformers", "peft", "bitsandbytes")),
        "time": f"{seconds / 60:.0f} minutes",
    }


def machine() -> str:
    """Return the system, the processor's kind and the number of cores."""
    cores = psutil.cpu_count(logical=False) or 1
    return f"{platform.system()} {platform.machine()}, {cores} cores, Python {platform.python_version()}"


def versions(packages: Sequence[str]) -> str:
    """Return packages with their versions."""
    return ", ".join(f"{name} {version(name)}" for name in packages)


def commit() -> str:
    """Return the checkout's commit, marked where files differ from it; 'none' outside of a checkout."""
    root = Path(finetune.__file__).parents[1]
    if not (root / ".git").exists():
        return f"none (atelier {finetune.__version__} as installed)"
    try:
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", "finetune", "datasets", "recipes")
    except (OSError, subprocess.CalledProcessError) as error:
        return f"unknown ({error})"
    return f"{head}, with changes" if changed else head


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True)  # noqa: S607
    return done.stdout.strip()
