"""Pictures scanned per second, beside Hugging Face datasets' imagefolder on the same files.

The sides take turns over one folder of pictures with captions: photo-like JPEGs and some PNGs, of about a megapixel.

    ours         `scan_sources`: list, read, hash, decode whole in child processes, check, pair captions.
    imagefolder  `load_dataset("imagefolder", …)` in a fresh cache, then every row's picture loaded, as a check would.
    threads      our own decoding in threads of one process, which a hostile file takes down: what safety costs.

Each turn is a process of its own, with its imports and the start of its children, and the files are in the system's
cache. It prints the medians over the turns and their ratios. What imagefolder says nothing of (broken files,
mislabelled ones, duplicates) is not counted against it.
"""

import argparse
import hashlib
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

SIDES = ("ours", "imagefolder", "threads")


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
    medians = {side: median(rates[side]) for side in SIDES}
    rows = [
        Row(f"pictures a second, {arguments.cores} processes", medians["ours"], medians[other], bar, holds)
        for other, bar, holds in (
            ("imagefolder", "at least 1.0 x imagefolder", medians["ours"] >= medians["imagefolder"]),
            ("threads", "none; 1.0 would be safety for nothing", True),
        )
    ]
    described = machine(arguments.cores)
    for row, other in zip(rows, SIDES[1:], strict=True):
        print_rows([row], other=other)
    print_machine(described)
    measured = [{**asdict(row), "ratio": row.ratio} for row in rows]
    write_report(arguments.json, {"machine": described, "rows": measured, "per_second": rates})


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
    scan = {"ours": scan_as_ours, "imagefolder": scan_as_imagefolder, "threads": scan_in_threads}[side]
    count = scan(folder, cores)
    seconds = time.perf_counter() - began
    expected = sum(path.suffix != ".txt" for path in folder.iterdir())
    if count != expected:
        raise SystemExit(f"{side} read {count} pictures of {expected}")
    print(f'{{"seconds": {seconds}}}')


def scan_as_ours(folder: Path, cores: int) -> int:
    """Scan as training does."""
    from imagesets.opening.decoders import Decoders
    from imagesets.opening.decoding_process import DecodingLimits
    from imagesets.samples import DEFAULT_MAX_PIXELS
    from imagesets.scan import scan_sources
    from imagesets.sources import FolderSource

    with Decoders(DecodingLimits.for_pixels(DEFAULT_MAX_PIXELS), cores) as decoders:
        report = scan_sources([FolderSource(folder)], decoders=decoders)
    return len(report.samples)


def scan_in_threads(folder: Path, cores: int) -> int:
    """List as a scan does, and read, hash and decode every picture here."""
    from concurrent.futures import ThreadPoolExecutor

    from imagesets.pictures import examine_picture
    from imagesets.reading.folder import list_folder
    from imagesets.samples import DEFAULT_MAX_PIXELS
    from imagesets.sources import Entry, FolderSource

    def check(entry: Entry) -> str:
        assert entry.read is not None
        content = entry.read()
        examine_picture(content, DEFAULT_MAX_PIXELS, entry.extension)
        return hashlib.sha256(content).hexdigest()

    with ThreadPoolExecutor(cores) as threads:
        return len(list(threads.map(check, list_folder(FolderSource(folder)).entries)))


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
