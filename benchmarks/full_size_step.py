"""A real-size SDXL in training: the kit beside a bare hand-written loop over the same U-Net.

    python benchmarks/full_size_step.py --workdir FOLDER
    python benchmarks/full_size_step.py --workdir FOLDER --device cuda --steps 30

Writes a real-size SDXL with random bf16 weights into the work folder once (7 GB), then lets each side train a LoRA of
rank 16 on the attention: bf16, gradient checkpointing, 256 x 256 pixels, batch 1. Each run is a process of its own, and
the two sides take turns, because machines are noisy.

    ours  `atelier train` as a person types it: pictures are scanned, captions and latents encoded and cached, every
          event written, gradients checked and clipped; only previews are off. It ends with a checkpoint and an export.
    bare  `bare_loop.py`: loads the U-Net and trains on random numbers.

Measured: seconds per step (median over all runs' steps after the first), seconds from the process's start to the end of
step 1, and the process's peak memory over its whole life (resident, the memory-mapped weights included; on CUDA what
torch's allocator held). It says nothing about what is learned.
"""

import argparse
import itertools
import json
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from measuring import (
    GIB,
    Row,
    kit_command,
    machine,
    median,
    print_machine,
    print_rows,
    read_json_lines,
    run_child,
    write_pictures,
    write_report,
)

HERE = Path(__file__).resolve().parent
RANK = 16
RESOLUTION = 256
NUM_PICTURES = 4
STEP_BAR = 1.03
FIRST_STEP_BAR = 1.5
PEAK_BAR_GIB = 7.0


@dataclass(frozen=True)
class SideRun:
    """One side's figures from one process.

    Attributes:
        first_step_seconds: from the process's start to the end of step 1.
        step_seconds: of every later step.
        peak_bytes: the process's peak resident memory.
        device_bytes: what torch's allocator held on the device at most, 0 on a CPU.
    """

    first_step_seconds: float
    step_seconds: list[float]
    peak_bytes: int
    device_bytes: int


def main() -> None:
    """Build, measure, print."""
    arguments = parse_arguments()
    arguments.workdir.mkdir(parents=True, exist_ok=True)
    model = arguments.workdir / "model"
    run_child([sys.executable, str(HERE / "full_size_model.py"), str(model)], arguments.workdir / "build.log", 2)
    write_pictures(arguments.workdir / "pictures", NUM_PICTURES, 2 * RESOLUTION)
    read_all(model)
    runs: dict[str, list[SideRun]] = {"bare": [], "ours": []}
    sides = {"bare": run_bare, "ours": run_ours}
    for round_number in range(1, arguments.rounds + 1):
        for side, run in sides.items():
            result = run(arguments, model)
            runs[side].append(result)
            print(f"round {round_number}, {side}: {describe(result)}", flush=True)
    rows = compare(runs, on_device=arguments.device != "cpu")
    described = machine(arguments.threads)
    print_rows(rows)
    print_machine({**described, "device": arguments.device})
    content = {
        "machine": described,
        "device": arguments.device,
        "rows": [{**asdict(r), "ratio": r.ratio} for r in rows],
    }
    write_report(arguments.json, {**content, "runs": {side: [asdict(r) for r in done] for side, done in runs.items()}})


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Time and weigh LoRA steps on a real-size SDXL beside a bare loop.")
    parser.add_argument("--workdir", type=Path, required=True, help="keeps the model (7 GB), pictures, runs and logs")
    parser.add_argument("--steps", type=int, default=6, help="optimizer steps a run")
    parser.add_argument("--rounds", type=int, default=2, help="how often each side runs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--json", type=Path, help="write everything measured here")
    arguments = parser.parse_args()
    if arguments.steps < 2:
        parser.error("--steps: the first step is not counted; give 2 or more")
    return arguments


def run_bare(arguments: argparse.Namespace, model: Path) -> SideRun:
    """Let the bare loop train in a process of its own."""
    log = arguments.workdir / "bare.log"
    command = [sys.executable, str(HERE / "bare_loop.py"), str(model), f"--rank={RANK}", f"--resolution={RESOLUTION}"]
    child = run_child([*command, f"--steps={arguments.steps}", f"--device={arguments.device}"], log, arguments.threads)
    return side_run(child.started, child.peak_bytes, read_json_lines(log), on_device=arguments.device != "cpu")


def run_ours(arguments: argparse.Namespace, model: Path) -> SideRun:
    """Let the kit train in a process of its own, on the same folder."""
    recipe = arguments.workdir / "recipe.yaml"
    recipe.write_text(json.dumps(our_recipe(arguments, model), indent=2) + "\n", encoding="utf-8")
    run = arguments.workdir / "runs" / "full-size"
    for folder in (run, run.parent / "_cache"):  # the first start, which encodes and hashes everything
        shutil.rmtree(folder, ignore_errors=True)
    child = run_child([*kit_command(), "train", str(recipe)], arguments.workdir / "ours.log", arguments.threads)
    events = read_json_lines(run / "events.jsonl")
    return side_run(child.started, child.peak_bytes, events, on_device=arguments.device != "cpu")


def our_recipe(arguments: argparse.Namespace, model: Path) -> dict[str, Any]:
    """Return the recipe of our side; JSON is YAML, too."""
    return {
        "schema_version": 1,
        "name": "full-size",
        "output_dir": str(arguments.workdir / "runs"),
        "model": {"kind": "folder", "path": str(model)},
        "data": {
            "sources": [{"kind": "folder", "path": str((arguments.workdir / "pictures").absolute())}],
            "buckets": {"kind": "generated", "resolution": RESOLUTION, "step": 64},
        },
        "adapter": {"unet": {"rank": RANK, "targets": "attention"}},
        "training": {
            "steps": arguments.steps,
            "precision": "bf16",
            "device": arguments.device,
            "gradient_checkpointing": True,
            "optimizer": {"kind": "adamw"},
        },
        "preview": {"every_steps": None, "at_start": False},
        "checkpoint": {"every_steps": None},
        "export": {"precision": "fp32"},
    }


def side_run(started: float, peak_bytes: int, events: list[dict[str, Any]], *, on_device: bool) -> SideRun:
    """Reduce a log's step events to the figures that are compared. A step lasts from one event to the next."""
    steps = [event for event in events if event["kind"] == "step"]
    times = [event["time"] for event in steps]
    return SideRun(
        first_step_seconds=times[0] - started,
        step_seconds=[later - earlier for earlier, later in itertools.pairwise(times)],
        peak_bytes=peak_bytes,
        device_bytes=max(event["memory_bytes"] for event in steps) if on_device else 0,
    )


def compare(runs: dict[str, list[SideRun]], *, on_device: bool) -> list[Row]:
    """Return the rows of the table, each a median over the rounds; peaks are the highest of all rounds."""
    steps = {side: median([s for run in done for s in run.step_seconds]) for side, done in runs.items()}
    firsts = {side: median([run.first_step_seconds for run in done]) for side, done in runs.items()}
    peaks = {side: max(run.peak_bytes for run in done) / GIB for side, done in runs.items()}
    rows = [
        row("seconds per step", steps, f"at most {STEP_BAR} x bare", STEP_BAR * steps["bare"]),
        row(
            "seconds to the end of step 1", firsts, f"at most {FIRST_STEP_BAR} x bare", FIRST_STEP_BAR * firsts["bare"]
        ),
        row("peak memory of the process, GiB", peaks, f"at most {PEAK_BAR_GIB:g} GiB", PEAK_BAR_GIB),
    ]
    if on_device:
        device = {side: max(run.device_bytes for run in done) / GIB for side, done in runs.items()}
        rows[-1] = row("peak memory on the device, GiB", device, f"at most {PEAK_BAR_GIB:g} GiB", PEAK_BAR_GIB)
    return rows


def row(title: str, figures: dict[str, float], bar: str, limit: float) -> Row:
    """Return one line of the table."""
    return Row(title, figures["ours"], figures["bare"], bar, holds=figures["ours"] <= limit)


def describe(run: SideRun) -> str:
    """Say how one run went."""
    steps = " ".join(f"{seconds:.2f}" for seconds in run.step_seconds)
    device = f", {run.device_bytes / GIB:.2f} GiB on the device" if run.device_bytes else ""
    return f"step 1 after {run.first_step_seconds:.1f} s, then {steps} s, peak {run.peak_bytes / GIB:.2f} GiB{device}"


def read_all(folder: Path) -> None:
    """Read every weight file once, so that neither side finds the disk's cache colder than the other."""
    for path in folder.glob("*/*.safetensors"):
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 24):
                pass


if __name__ == "__main__":
    main()
