"""`atelier miniature`: make the embedded model from nothing, or measure what it does."""

import argparse
from pathlib import Path
from typing import Any

DEFAULT_FOLDER = Path("build/miniature")


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "miniature",
        help="make or measure the embedded miniature SDXL",
        description="Make the embedded miniature SDXL from nothing, or measure what it does.",
    )
    verbs = parser.add_subparsers(title="what to do", metavar="WHAT", required=True)
    build = verbs.add_parser(
        "build",
        help="train it from nothing, stage by stage; hours on a CPU",
        description="Train the whole miniature from nothing with the recipes in recipes/miniature. "
        "The same command goes on with an interrupted build.",
    )
    build.add_argument(
        "--folder", type=Path, default=DEFAULT_FOLDER, help="where everything is made (default: %(default)s)"
    )
    build.add_argument("--processes", type=int, default=None, help="trainers side by side (default: one a CPU core)")
    build.add_argument("--device", choices=("cpu", "cuda"), default=None, help="default: CUDA where there is one")
    build.add_argument("--output", type=Path, default=None, help="where the finished fp16 weights go, too")
    build.set_defaults(run=run_build)


def run_build(arguments: argparse.Namespace) -> int:
    """Make what is missing."""
    import psutil
    import torch

    from finetune.miniature.build import BuildSettings, build

    torch.set_num_threads(1)  # as every trainer: more than one waits for the others on a busy machine
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    cores = psutil.cpu_count(logical=False) or 1
    processes = arguments.processes or (1 if device == "cuda" else cores)
    build(BuildSettings(arguments.folder, processes, device, arguments.output), lambda text: print(text, flush=True))
    return 0
