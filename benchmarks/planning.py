"""Buckets and epoch plans of 10 thousand, 100 thousand and a million picture records: time, memory, linearity.

Each size is a process of its own. It makes records as a scan does (`Sample`, with names, hashes and captions of their
own), then times what a run does with them before its first step: `TrainingPictures`, which assigns a bucket to each
and plans the first epoch, and the plan of a second epoch. It is one thread's work, and what grows with the number of
records is judged by processor time, which a busy machine does not change. Peak memory is the whole process's.

The bars: a million under 10 s and under 1 GiB, records included, and per record at most 1.2 times what 10 thousand
cost.
"""

import argparse
import gc
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import GIB, REPOSITORY, machine, median, print_machine, read_json_lines, run_child, write_report

COUNTS = (10_000, 100_000, 1_000_000)
SECONDS_BAR = 10.0
MEMORY_BAR_BYTES = GIB
LINEAR_BAR = 1.2


def main() -> None:
    """Measure every size in turns, and print; or measure one size in this process."""
    arguments = parse_arguments()
    if arguments.count is not None:
        print(json.dumps(measure(arguments.count, arguments.batch_size)))
        return
    runs: dict[int, list[dict[str, Any]]] = {count: [] for count in COUNTS}
    with tempfile.TemporaryDirectory() as name:
        log = Path(name) / "run.log"
        for _ in range(arguments.turns):
            for count in COUNTS:
                command = [sys.executable, __file__, "--count", str(count), "--batch-size", str(arguments.batch_size)]
                run_child(command, log, threads=1)
                runs[count].append(read_json_lines(log)[-1])
    rows = [summary(count, runs[count]) for count in COUNTS]
    titles = ("records", "seconds", "of CPU", "µs each", "of 10 k", "peak MiB", "records MiB")
    print("".join(f"{title:>12}" for title in titles))
    for row in rows:
        row["ratio"] = row["cpu_microseconds_each"] / rows[0]["cpu_microseconds_each"]
        figures = [row["seconds"], row["cpu_seconds"], row["cpu_microseconds_each"], row["ratio"]]
        sizes = [row["peak_bytes"] / 2**20, row["records_bytes"] / 2**20]
        print(f"{row['records']:>12}" + "".join(f"{number:>12.3f}" for number in figures + sizes))
    last = rows[-1]
    for bar, holds in (
        (f"a million in under {SECONDS_BAR:g} s", last["seconds"] < SECONDS_BAR),
        ("a million in under 1 GiB, records included", last["peak_bytes"] < MEMORY_BAR_BYTES),
        (f"per record at most {LINEAR_BAR} x from 10 k to 1 M", last["ratio"] <= LINEAR_BAR),
    ):
        print(f"{bar}: {'kept' if holds else 'MISSED'}")
    described = machine(1)
    print_machine(described)
    write_report(arguments.json, {"machine": described, "rows": rows, "runs": runs})


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Time buckets and plans of up to a million picture records.")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--json", type=Path, help="write everything measured here")
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def summary(count: int, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians of a size's runs, and its largest peak."""
    cpu_seconds = median([run["cpu_seconds"] for run in runs])
    return {
        "records": count,
        "seconds": median([run["seconds"] for run in runs]),
        "cpu_seconds": cpu_seconds,
        "cpu_microseconds_each": cpu_seconds / count * 1e6,
        "peak_bytes": max(run["peak_bytes"] for run in runs),
        "records_bytes": max(run["records_bytes"] for run in runs),
    }


def measure(count: int, batch_size: int) -> dict[str, Any]:
    """Make the records, and time the buckets and the plans of two epochs."""
    from finetune.training.pictures import TrainingPictures
    from imagesets.buckets import symmetric_buckets

    samples = make_samples(count)
    gc.collect()
    records_bytes = peak_bytes()
    began, began_cpu = time.perf_counter(), time.process_time()
    pictures = TrainingPictures(
        samples=samples,
        buckets=symmetric_buckets(),
        crop="center",
        flip_probability=0.5,
        caption_dropout=0.1,
        micro_batch_size=batch_size,
        batches_per_step=1,
        seed=0,
    )
    pictures.batches_of(pictures.steps_per_epoch + 1)  # the second epoch's first step asks for its plan
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": peak_bytes(), "records_bytes": records_bytes}


def make_samples(count: int) -> tuple[Any, ...]:
    """Return records as a scan gives them, of sizes as cameras, screens and crops have them."""
    import numpy as np

    from imagesets.files import FileInFolder
    from imagesets.pictures import PictureFacts
    from imagesets.samples import Sample

    generator = np.random.default_rng(0)
    sides = generator.integers(512, 6000, (count, 2))
    sides[:, 1] = np.clip(sides[:, 1], sides[:, 0] // 3, sides[:, 0] * 3)
    root = Path("/pictures")
    samples = []
    for number, (height, width) in enumerate(sides.tolist()):
        name, size = f"folder-{number // 1000:04d}/picture-{number:07d}.jpg", (height, width)
        samples.append(
            Sample(
                name=name,
                source="pictures",
                sha256=f"{number:064x}",
                original_size=size,
                caption=f"a picture of thing number {number} on a table",
                repeats=1,
                facts=PictureFacts(size, "JPEG", "RGB", 1, has_alpha=False, num_frames=1),
                read=FileInFolder(root, name),
            )
        )
    return tuple(samples)


def peak_bytes() -> int:
    """Return the most memory this process has had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "datasets")]
    main()
