"""What a stream takes: the memory and the pictures per second of tar shards that are read as they come.

    python benchmarks/streaming.py

Shards are written with as many small pictures as asked for, then gone over once in batches, as training does, without a
model. At marks on the way the process's resident memory and the time for each picture since the last mark are taken:
neither may grow with what was read. Beside them stands what listing the same shards takes.
"""

import argparse
import io
import os
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from measuring import machine, print_machine, write_report

if TYPE_CHECKING:
    from finetune.recipe import Recipe

GROWTH_BAR_BYTES = 16 * 2**20
PICTURES_PER_SHARD = 1_000
NUM_DIFFERENT = 100
MARKS = 5


def main() -> None:
    """Measure, print."""
    arguments = parse_arguments()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder), arguments.pictures)
        marks = go_over(recipe_of(Path(folder), arguments.buffer), arguments.pictures)
        listed = list_all(Path(folder))
    described = machine(1)
    print_marks(marks, listed)
    print_machine(described)
    write_report(arguments.json, {"machine": described, "marks": marks, "listed": listed})


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Weigh and time tar shards that are read as they come.")
    parser.add_argument("--pictures", type=int, default=20_000, help="how many pictures the shards hold")
    parser.add_argument("--buffer", type=int, default=1_000, help="how many pictures are held at once")
    parser.add_argument("--json", type=Path, help="write everything measured here")
    return parser.parse_args()


def write_shards(folder: Path, count: int) -> None:
    """Write shards of small JPEGs of several aspects, each with its caption."""
    from PIL import Image

    contents = []
    for index in range(NUM_DIFFERENT):
        stream = io.BytesIO()
        size = [(96, 96), (128, 80), (80, 128), (112, 96)][index % 4]
        Image.effect_noise(size, 60).convert("RGB").save(stream, "JPEG", quality=90)
        contents.append(stream.getvalue())
    for begin in range(0, count, PICTURES_PER_SHARD):
        with tarfile.open(folder / f"shard-{begin // PICTURES_PER_SHARD:05d}.tar", "w") as tar:
            for index in range(begin, min(begin + PICTURES_PER_SHARD, count)):
                caption = f"picture number {index}".encode()
                for name, content in (
                    (f"{index:08d}.jpg", contents[index % NUM_DIFFERENT]),
                    (f"{index:08d}.txt", caption),
                ):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def recipe_of(folder: Path, buffer: int) -> "Recipe":
    """Return a recipe that streams the shards."""
    from finetune.recipe import load_recipe

    source = f"{{kind: webdataset, path: {folder}, streaming: true}}"
    return load_recipe(
        "quickstart",
        [f"data.sources=[{source}]", f"data.stream_buffer.pictures={buffer}", "training.micro_batch_size=4"],
    )


def go_over(recipe: "Recipe", count: int) -> list[dict[str, Any]]:
    """Go over the stream once; return what was seen at each mark."""
    from finetune.training.data import stream_pictures

    pictures = stream_pictures(recipe, print)
    marks: list[dict[str, Any]] = []
    seen, step, began = 0, 0, time.perf_counter()
    since = 0
    while seen < count:
        step += 1
        seen += sum(len(batch) for batch in pictures.batches_of(step))
        if seen >= (len(marks) + 1) * count / MARKS:
            now = time.perf_counter()
            resident = psutil.Process().memory_info().rss
            marks.append({"seen": seen, "bytes": resident, "per_second": (seen - since) / (now - began)})
            since, began = seen, now
    return marks


def list_all(folder: Path) -> dict[str, Any]:
    """List and scan the same shards; return how much memory that took, and how many pictures a second it went over."""
    from imagesets.scan import scan_sources
    from imagesets.sources import WebDatasetSource

    before, began = psutil.Process().memory_info().rss, time.perf_counter()
    report = scan_sources([WebDatasetSource(path=str(folder))])
    seconds = time.perf_counter() - began
    return {"grown_bytes": psutil.Process().memory_info().rss - before, "per_second": len(report.samples) / seconds}


def print_marks(marks: list[dict[str, Any]], listed: dict[str, Any]) -> None:
    """Print memory and rate at each mark, the growth with its bar, and the listing beside them."""
    print(f"{'pictures seen':>14} {'resident MiB':>13} {'pictures/s':>11}")
    for mark in marks:
        print(f"{mark['seen']:>14,} {mark['bytes'] / 2**20:>13,.0f} {mark['per_second']:>11,.0f}")
    grown = marks[-1]["bytes"] - marks[0]["bytes"]
    verdict = "holds" if grown <= GROWTH_BAR_BYTES else "MISSED"
    print(
        f"grown from the first mark to the last: {grown / 2**20:+.1f} MiB (bar {GROWTH_BAR_BYTES >> 20} MiB: {verdict})"
    )
    ratio = marks[-1]["per_second"] / marks[0]["per_second"]
    print(f"rate at the last mark over that at the first: {ratio:.2f}")
    print(f"listed and scanned: {listed['grown_bytes'] / 2**20:+.1f} MiB more, {listed['per_second']:,.0f} pictures/s")


if __name__ == "__main__":
    main()
