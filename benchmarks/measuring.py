"""What the benchmarks share: child processes with their time and memory, pictures to train on, tables, the machine.

Nothing here imports torch: a child's peak memory as the system counts it begins with its parent's at the fork.
Children are waited for with `os.wait4`, so the benchmarks run on Linux and macOS.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

GIB = 1 << 30
REPOSITORY = Path(__file__).resolve().parent.parent

_PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate")
_BYTES_PER_MAXRSS = 1 if sys.platform == "darwin" else 1024
_LOG_LINES_SHOWN = 20


@dataclass(frozen=True)
class ChildRun:
    """How a child process went.

    Attributes:
        started: when it was started, in seconds since 1970.
        seconds: from its start to its end.
        peak_bytes: the most resident memory it ever had; pages of memory-mapped files count while they are mapped in.
    """

    started: float
    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Row:
    """One measured figure of both sides, with its bar.

    Attributes:
        title: what was measured, with its unit.
        ours: the kit's figure.
        bare: the bare loop's.
        bar: what is promised, in words.
        holds: whether it is kept.
    """

    title: str
    ours: float
    bare: float
    bar: str
    holds: bool

    @property
    def ratio(self) -> float:
        """Ours over bare."""
        return self.ours / self.bare


def run_child(
    command: Sequence[str], log: Path, threads: int, environment: Mapping[str, str] | None = None
) -> ChildRun:
    """Run a command to its end in a process of its own, with what it prints in `log`.

    Raises:
        SystemExit: it failed; the message holds the end of its log.
    """
    with log.open("wb") as output:
        started, began = time.time(), time.perf_counter()
        child = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=child_environment(threads, environment)
        )
        _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES_SHOWN:])
        raise SystemExit(f"{' '.join(command)}\nended with {child.returncode}; the end of {log}:\n{tail}")
    return ChildRun(started, seconds, usage.ru_maxrss * _BYTES_PER_MAXRSS)


def child_environment(threads: int, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment with the thread count pinned and the kit importable from its repository."""
    sources = [str(REPOSITORY), str(REPOSITORY / "datasets")]
    inherited = [path for path in [os.environ.get("PYTHONPATH")] if path]
    pinned = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    return {**os.environ, **pinned, "PYTHONPATH": os.pathsep.join(sources + inherited), **(more or {})}


def kit_command() -> list[str]:
    """Return the command line's beginning: the installed `atelier` beside this interpreter, else the module."""
    script = Path(sys.executable).parent / "atelier"
    return [str(script)] if script.exists() else [sys.executable, "-m", "finetune"]


def write_pictures(folder: Path, count: int, side_px: int, seed: int = 0) -> None:
    """Fill a folder with square pictures of coloured blobs and a caption beside each; the same ones every time."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for number in range(count):
        coarse = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((side_px, side_px), Image.Resampling.BICUBIC)
        picture.save(folder / f"blobs-{number:02d}.png")
        (folder / f"blobs-{number:02d}.txt").write_text(f"coloured blobs, number {number}\n", encoding="utf-8")


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file that holds one a line, passing over other lines and one that is being written."""
    whole = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")[0]
    return [json.loads(line) for line in whole.split("\n") if line.startswith("{")]


def print_rows(rows: Sequence[Row], other: str = "bare") -> None:
    """Print both sides' figures, their ratio and the bar."""
    print(f"{'':<34}{'ours':>10}{other:>10}{'ratio':>8}   bar")
    for row in rows:
        verdict = "kept" if row.holds else "MISSED"
        print(f"{row.title:<34}{row.ours:>10.3f}{row.bare:>10.3f}{row.ratio:>8.3f}   {row.bar}: {verdict}")


def machine(threads: int) -> dict[str, Any]:
    """Return what a figure means nothing without: processor, threads, versions, the commit."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
        "commit": _commit(),
    }


def print_machine(described: Mapping[str, Any]) -> None:
    """Print where the figures were taken, on one line."""
    print(", ".join(f"{key} {value}" for key, value in described.items()))


def write_report(path: Path | None, content: Mapping[str, Any]) -> None:
    """Write everything that was measured as JSON, where a file was asked for."""
    if path is not None:
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def median(values: Sequence[float]) -> float:
    """Return the median; a noisy machine's outliers do not move it."""
    return float(statistics.median(values))


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _commit() -> str:
    """Return the commit that was measured, with a mark where the tree differs from it."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return answer.stdout.strip()
