"""How long the page takes to open a long run, to look at it again, and what memory that holds.

A log of many steps is written, with previews, checkpoints and warnings between them, as a trainer writes it. Then, in a
process of its own:

    open      a new reader reads and folds the whole log.
    plain     the least any reader in Python could do: every line through `json.loads`, and dropped.
    update    one step more is appended, and the reader looks again; the median of many.
    thin      one curve thinned for a plot.

Memory is the resident size before the log is opened, once it is and a curve is drawn, and after the updates, every
fiftieth of which draws the curve again.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from measuring import REPOSITORY, Row, child_environment, machine, median, print_machine, print_rows, write_report

MIB = 1 << 20


def main() -> None:
    """Write the log, measure in a fresh process, print; or be that process."""
    arguments = parse_arguments()
    if arguments.log is not None:
        print(json.dumps(measure(arguments.log, arguments.updates)))
        return
    with tempfile.TemporaryDirectory() as name:
        log = Path(name) / "long" / "events.jsonl"
        log.parent.mkdir()
        with log.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(event) + "\n" for event in events(arguments.events, arguments.batch))
        turns = [run_child(log, arguments.updates) for _ in range(arguments.turns)]
        size = log.stat().st_size / MIB
    figures = {key: median([turn[key] for turn in turns]) for key in turns[0]}
    print(f"{arguments.events} events, {arguments.batch} samples a step, {size:.0f} MiB; medians of {arguments.turns}")
    print_rows(
        [
            Row("seconds to open", figures["open"], figures["plain"], "under 1 s", figures["open"] < 1.0),
            Row("MiB after, before the updates", figures["after"], figures["opened"], "flat (within 4 MiB)",
                figures["after"] - figures["opened"] < 4),
        ],
        other="beside",
    )  # fmt: skip
    print(f"of the opening, {figures['open_cpu']:.2f} s were spent on a processor, the rest waiting for one")
    print(f"an update {figures['update'] * 1e3:.2f} ms, a curve thinned {figures['thin'] * 1e3:.1f} ms")
    print(f"resident: {figures['before']:.0f} MiB before, {figures['opened']:.0f} with the run open")
    described = machine(1)
    print_machine(described)
    write_report(arguments.json, {"machine": described, "figures": figures, "turns": turns})


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Time the page's reading of a long run.")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=4, help="samples a step")
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write everything measured here")
    parser.add_argument("--log", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def events(count: int, batch: int, first: int = 1) -> Iterator[dict[str, Any]]:
    """Make up the events of a run, one step each but for what lies between."""
    draws = random.Random(5)
    if first == 1:
        yield {"seq": 1, "time": 0.0, "kind": "run_started", "step": None, "name": "long", "total_steps": count}
    for seq in range(first + 1, first + count):
        head = {"seq": seq, "time": 1.8e9 + seq * 1.27, "kind": "step", "step": seq}
        if seq % 500 == 0:
            yield {**head, "kind": "preview", "pictures": [f"previews/step-{seq:06d}/{n:02d}.png" for n in range(17)]}
        elif seq % 500 == 1:
            yield {**head, "kind": "checkpoint", "path": f"checkpoints/step-{seq:06d}"}
        elif seq % 1000 == 2:
            yield {**head, "kind": "warning", "message": "fp16 gradients overflowed; the step was skipped"}
        else:
            yield {
                **head,
                "loss": draws.random(),
                "learning_rates": {"unet": 1e-4, "text_encoder": 1e-5, "text_encoder_2": 1e-5},
                "grad_norm": draws.random(),
                "epoch": seq // 100,
                "samples": batch,
                "timesteps": [draws.randrange(1000) for _ in range(batch)],
                "per_sample": [draws.random() for _ in range(batch)],
                "seconds": 1.2345,
                "memory_bytes": 1079717888,
            }


def run_child(log: Path, updates: int) -> dict[str, float]:
    """Measure in a process of its own, so that nothing but the reader is in its memory."""
    command = [sys.executable, str(Path(__file__)), "--log", str(log), "--updates", str(updates)]
    length = log.stat().st_size
    answer = subprocess.run(
        command, capture_output=True, text=True, check=True, env=child_environment(1), cwd=REPOSITORY
    )
    with log.open("rb+") as file:
        file.truncate(length)  # the next turn appends the same steps again
    measured: dict[str, float] = json.loads(answer.stdout)
    return measured


def measure(log: Path, updates: int) -> dict[str, float]:
    """Open the run, look again after each further step, and thin a curve."""
    from webui.curves import thin
    from webui.run_reader import RunReader

    process = psutil.Process()
    figures = {"before": process.memory_info().rss / MIB}
    began, began_cpu = time.perf_counter(), time.process_time()
    reader = RunReader(log.parent)
    state = reader.update().state
    figures["open"] = time.perf_counter() - began
    figures["open_cpu"] = time.process_time() - began_cpu
    began = time.perf_counter()
    thin(state.curve("step"), state.smoothed("loss"), 4000)
    figures["thin"] = time.perf_counter() - began
    figures["opened"] = process.memory_info().rss / MIB
    seconds = []
    with log.open("a", encoding="utf-8") as file:
        for event in events(updates, batch=4, first=state.last_seq + 1):
            file.write(json.dumps(event) + "\n")
            file.flush()
            began = time.perf_counter()
            state = reader.update().state
            seconds.append(time.perf_counter() - began)
            if len(seconds) % 50 == 0:
                thin(state.curve("step"), state.smoothed("loss"), 4000)
    figures["update"] = median(seconds)
    figures["after"] = process.memory_info().rss / MIB
    began = time.perf_counter()
    with log.open("rb") as lines:
        for line in lines:
            json.loads(line)
    figures["plain"] = time.perf_counter() - began
    return figures


if __name__ == "__main__":
    main()
