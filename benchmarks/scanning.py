"""Pictures scanned per second, beside Hugging Face datasets' imagefolder on the same files.

Two sides take turns over one folder of pictures with captions: photo-like JPEGs and some PNGs, of about a megapixel.

    ours    `scan_sources`: list, read, hash, decode every picture whole in child processes, check it, pair captions.
    theirs  `load_dataset("imagefolder", …)` in a fresh cache, then every picture of every row opened, as a check would.

Each turn is a process of its own, with its imports and the start of its children, and the files are in the system's
cache. It prints the medians over the turns and their ratio. What theirs says nothing of (broken files, mislabelled
ones, duplicates) is not counted against it.
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
from measuring import (
    REPOSITORY,
    Row,
    machine,
    median,
    print_machine,
    print_rows,
    read_json_lines,
    run_child,
    write_report,
)
from PIL import Image

SIDES = ("ours", "imagefolder")
_BAR = "at least 1.0 x imagefolder"


def main() -> None:
    """Write the pictures, let the sides take turns, print; or take one side's turn in this process."""
    arguments = parse_arguments()
    if arguments.side is not None:
        take_turn(arguments.side, arguments.folder, arguments.cores)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "pictures"
        write_photos(folder, arguments.pictures, arguments.side_px)
        rates: dict[str, list[float]] = {side: [] for side in SIDES}
        for turn in range(arguments.turns + 1):
            for side in SIDES:
                rate = arguments.pictures / seconds_of(side, folder, Path(name), arguments.cores)
                if turn > 0:  # the first turn fills the system's caches
                    rates[side].append(rate)
    ours, theirs = (median(rates[side]) for side in SIDES)
    row = Row(f"pictures per second, {arguments.cores} cores", ours, theirs, _BAR, ours >= theirs)
    described = machine(arguments.cores)
    print_rows([row], other="imagefolder")
    print_machine(described)
    write_report(
        arguments.json, {"machine": described, "rows": [{**asdict(row), "ratio": row.ratio}], "per_second": rates}
    )


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Time a scan beside Hugging Face datasets' imagefolder.")
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--side-px", type=int, default=1024, help="the square root of a picture's pixels")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)), help="processes of either side")
    parser.add_argument("--json", type=Path, help="write everything measured here")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def write_photos(folder: Path, count: int, side_px: int) -> None:
    """Fill a folder with pictures of many aspects, smooth with some grain as photos are, and a caption beside each."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(count):
        aspect = float(np.exp(generator.uniform(-0.6, 0.6)))
        size = (round(side_px * aspect), round(side_px / aspect))
        coarse = Image.fromarray(generator.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.int16)
        grain = generator.integers(-6, 7, smooth.shape[:2], dtype=np.int16)[..., None]
        picture = Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))
        ending, options = (".png", {"compress_level": 1}) if number % 10 == 0 else (".jpg", {"quality": 92})
        picture.save(folder / f"{number:05d}{ending}", **options)
        (folder / f"{number:05d}.txt").write_text(f"coloured blobs, number {number}\n", encoding="utf-8")


def seconds_of(side: str, folder: Path, scratch: Path, cores: int) -> float:
    """Let one side take its turn in a fresh process with a fresh cache, and return how long it took in there."""
    log = scratch / "turn.log"
    with tempfile.TemporaryDirectory(dir=scratch) as cache:
        run_child(
            [sys.executable, __file__, "--side", side, "--folder", str(folder), "--cores", str(cores)],
            log,
            threads=1,
            environment={"HF_HOME": cache, "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"},
        )
    return float(read_json_lines(log)[-1]["seconds"])


def take_turn(side: str, folder: Path, cores: int) -> None:
    """Scan the folder, and print the seconds it took, imports included."""
    began = time.perf_counter()
    count = scan_as_ours(folder, cores) if side == "ours" else scan_as_imagefolder(folder, cores)
    seconds = time.perf_counter() - began
    expected = sum(path.suffix != ".txt" for path in folder.iterdir())
    if count != expected:
        raise SystemExit(f"{side} read {count} pictures of {expected}")
    print(f'{{"seconds": {seconds}}}')


def scan_as_ours(folder: Path, cores: int) -> int:
    """Scan as training does."""
    from imagesets.decoders import Decoders
    from imagesets.decoding_process import DecodingLimits
    from imagesets.samples import DEFAULT_MAX_PIXELS
    from imagesets.scan import scan_sources
    from imagesets.sources import FolderSource

    with Decoders(DecodingLimits.for_pixels(DEFAULT_MAX_PIXELS), cores) as decoders:
        report = scan_sources([FolderSource(folder)], decoders=decoders)
    return len(report.samples)


def scan_as_imagefolder(folder: Path, cores: int) -> int:
    """Load the folder, and open every picture in as many processes."""
    import datasets

    rows = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train")
    sizes = rows.map(_size, remove_columns=rows.column_names, num_proc=cores if cores > 1 else None)
    return len(sizes)


def _size(row: dict[str, Image.Image]) -> dict[str, int]:
    """Return a decoded picture's size: the library opens it, and `load` decodes it."""
    row["image"].load()
    return {"height": row["image"].height, "width": row["image"].width}


if __name__ == "__main__":
    sys.path[:0] = [str(REPOSITORY / "datasets")]
    main()
