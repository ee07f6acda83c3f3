"""What an inspection costs: near duplicates among 10 and 100 thousand pictures, and a folder inspected beside scanned.

The search is one thread's work and is measured in processor time, which a busy machine does not change; its hashes are
random, but for one copy in ten that differs in a few bits. A folder is scanned, and then inspected with thumbnails and
page: what is printed is how many times the scan the whole takes.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measuring import machine, print_machine, write_report
from PIL import Image

from finetune.cli.data_inspect import inspect_recipe, open_recipe
from finetune.training.data import scan_pictures
from imagesets.inspection.near import group_nearly_alike
from imagesets.inspection.page import render_page

COUNTS = (10_000, 100_000)


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=2000, help="in the folder (default: %(default)s)")
    parser.add_argument("--side", type=int, default=1024, help="of each, in pixels (default: %(default)s)")
    parser.add_argument("--json", type=Path, default=None, help="write everything measured to this file")
    arguments = parser.parse_args()
    searches = [search(count) for count in COUNTS]
    for row in searches:
        print(f"{row['pictures']:>8} hashes searched in {row['cpu_seconds']:.2f} s of one core, {row['groups']} groups")
    each = [row["cpu_seconds"] / row["pictures"] for row in searches]
    print(f"a picture among 100 thousand costs {each[1] / each[0]:.2f} times one among 10 thousand")
    folder = inspect_folder(arguments.pictures, arguments.side)
    print(
        f"{arguments.pictures} pictures: scanned in {folder['scan_seconds']:.1f} s, inspected with a page of "
        f"{folder['page_bytes'] / 1e6:.1f} MB in {folder['inspect_seconds']:.1f} s: "
        f"{folder['inspect_seconds'] / folder['scan_seconds']:.2f} times the scan"
    )
    described = machine(1)
    print_machine(described)
    write_report(arguments.json, {"machine": described, "searches": searches, "folder": folder})


def search(count: int) -> dict[str, Any]:
    """Search random hashes for near ones."""
    rng = np.random.default_rng(0)
    codes = [int(code) for code in rng.integers(0, 2**64, count, dtype=np.uint64)]
    grids = rng.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    for copy in range(0, count - 1, 10):
        codes[copy + 1] = codes[copy] ^ (1 << int(rng.integers(64))) ^ (1 << int(rng.integers(64)))
        grids[copy + 1] = grids[copy]
    began = time.process_time()
    groups = group_nearly_alike(codes, grids)
    return {"pictures": count, "cpu_seconds": time.process_time() - began, "groups": len(groups)}


def inspect_folder(count: int, side: int) -> dict[str, Any]:
    """Scan a folder of JPEG files, then inspect it whole and write its page."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for index in range(count):
            coarse = np.random.default_rng(index).integers(0, 256, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{index:05}.jpg")
            (folder / f"{index:05}.txt").write_text(f"colours, pattern {index}", encoding="utf-8")
        recipe, is_recipe = open_recipe(str(folder), [])
        # Starts the processes, imports what is needed, and fills the system's cache of files.
        render_page(inspect_recipe(recipe, is_recipe=is_recipe, with_thumbnails=True))
        began = time.perf_counter()
        scan_pictures(recipe)
        scanned = time.perf_counter()
        page = render_page(inspect_recipe(recipe, is_recipe=is_recipe, with_thumbnails=True))
        inspected = time.perf_counter()
    return {
        "pictures": count,
        "side_px": side,
        "scan_seconds": scanned - began,
        "inspect_seconds": inspected - scanned,
        "page_bytes": len(page.encode("utf-8")),
    }


if __name__ == "__main__":
    main()
