"""`atelier lora fuse`: a model with LoRAs in its weights."""

import argparse
from pathlib import Path
from typing import Any

from finetune.cli.arguments import add_json_argument
from finetune.cli.lora.making import add_weights_arguments, open_model_weights, percent, progress, say_warning
from finetune.cli.output import print_json


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "fuse",
        help="put LoRAs into a model's weights for good",
        description="Write a model with LoRAs in its weights: a checkpoint where the base is one, a folder in "
        "diffusers' layout where it is one. Each weight is changed in float32 and rounded once to the base's own "
        "precision; everything else is copied byte for byte. One weight at a time is held.",
    )
    parser.add_argument(
        "base", metavar="BASE", help="a .safetensors checkpoint, a model's folder, a hub id in the cache, or miniature"
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="LORA", help="LoRA files, in the order to put them in")
    parser.add_argument("--weights", type=float, nargs="+", metavar="W", help="the strength of each; without, 1")
    add_weights_arguments(parser)
    parser.add_argument(
        "--output", "-o", type=Path, required=True, metavar="PATH", help="the new file, or folder where the base is one"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output where it is there; never an input")
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Fuse, and tell how many weights were changed."""
    from finetune.loras.fuse import check_fused_output, fuse

    weights = [1.0] * len(arguments.files) if arguments.weights is None else arguments.weights
    with open_model_weights(arguments.base, arguments) as base, progress("fusing") as watch:
        check_fused_output(arguments.output, base.path, arguments.files, overwrite=arguments.overwrite)
        report = fuse(base, arguments.files, weights, arguments.output, watch=watch)
    if report.left_behind:
        say_warning(
            f"not copied, as they hold the weights from before: {', '.join(report.left_behind[:5])}"
            + (f" and {len(report.left_behind) - 5} more" if len(report.left_behind) > 5 else "")
        )
    if arguments.json:
        print_json({"output": str(arguments.output), **report.plain()})
        return 0
    plain = report.plain()
    for component, count in plain["modules"].items():
        print(f"{component:<16}{count:>6} weights changed")
    print(f"Rounding to the base's precision added {percent(plain['rounding_relative'])} to the change.")
    print(arguments.output)
    return 0
