"""How much memory the toolbox takes for the largest LoRA people have: rank 256 over SDXL's 986 modules, 1.8 GB.

    python benchmarks/lora_memory.py --workdir FOLDER

Each verb is a process of its own, as a person types it, and its peak is what the system counts (`ru_maxrss`), the
interpreter and torch included. Resized to rank 64; two merged by cat, which makes a file of rank 512; converted to
diffusers' format; one fused into a checkpoint of the real shape. The bar: each under 4 GiB. The folder needs 16 GB of
disk; what was made is removed at the end.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from measuring import GIB, ChildRun, machine, print_machine, run_child, write_report

BAR_BYTES = 4 * GIB
RANK = 256


def main() -> None:
    """Weigh every verb, print."""
    arguments = parse_arguments()
    runs: dict[str, ChildRun] = {}
    with tempfile.TemporaryDirectory(dir=arguments.workdir) as name:
        folder = Path(name)
        lora, checkpoint = folder / "cat.safetensors", folder / "base.safetensors"
        make(["lora", str(lora), str(arguments.rank), "0"], folder, arguments.threads)
        verbs: dict[str, list[str]] = {
            "resize to rank 64": ["resize", str(lora), "--rank", "64"],
            "merge, cat": ["merge", str(lora), str(lora), "--weights", "1", "0.5"],
            "convert to diffusers": ["convert", str(lora), "--to", "diffusers"],
            "fuse": ["fuse", str(checkpoint), str(lora)],
        }
        for title, words in verbs.items():
            if title == "fuse":
                make(["checkpoint", str(checkpoint)], folder, arguments.threads)
            made = folder / "made.safetensors"
            line = [sys.executable, "-m", "finetune", "lora", *words, "--output", str(made), "--json"]
            runs[title] = run_child(line, folder / "run.log", arguments.threads)
            made.unlink()
        size = lora.stat().st_size
    print(f"A LoRA of rank {arguments.rank} over 986 modules, {size / GIB:.2f} GiB")
    print(f"{'':<24}{'peak GiB':>10}{'seconds':>10}   bar: under {BAR_BYTES / GIB:g} GiB")
    for title, run in runs.items():
        verdict = "kept" if run.peak_bytes < BAR_BYTES else "MISSED"
        print(f"{title:<24}{run.peak_bytes / GIB:>10.2f}{run.seconds:>10.1f}   {verdict}")
    described = machine(arguments.threads)
    print_machine(described)
    rows = {title: {"peak_bytes": run.peak_bytes, "seconds": run.seconds} for title, run in runs.items()}
    write_report(arguments.json, {"machine": described, "rank": arguments.rank, "file_bytes": size, "rows": rows})


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Weigh resize, merge, convert and fuse on a large LoRA.")
    parser.add_argument("--workdir", type=Path, help="where 16 GB are free; without it, the system's temporary folder")
    parser.add_argument("--rank", type=int, default=RANK)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write everything measured here")
    return parser.parse_args()


def make(words: Sequence[str], folder: Path, threads: int) -> None:
    """Write a file in a process of its own, whose memory is nobody's."""
    shapes = Path(__file__).with_name("lora_shapes.py")
    run_child([sys.executable, str(shapes), *words], folder / "make.log", threads)


if __name__ == "__main__":
    main()
