"""`atelier lora scale-blocks`: another strength for each block of a LoRA."""

import argparse
from pathlib import Path
from typing import Any

from finetune.cli.lora.making import add_model_argument, add_output_arguments, progress
from finetune.cli.output import print_json


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "scale-blocks",
        help="another strength for each block of a LoRA",
        description="Write a LoRA whose blocks have other strengths. A strength of 0 leaves the modules out.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a LoRA file")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--set",
        action="append",
        metavar="BLOCK=STRENGTH",
        help="parts of modules' names, from dot to dot, with globs: down_blocks.1=0.5, mid_block=0, text_encoder=0.8, "
        "attn2=1.2; may be given several times, the last one that means a module counts",
    )
    which.add_argument(
        "--lbw",
        metavar="N,N,…",
        help="the vector of sd-webui-lora-block-weight for SDXL: 12 numbers for BASE (the encoders), IN04, IN05, IN07, "
        "IN08, M00 and OUT00 to OUT05, all other blocks 0; or 20 for BASE, IN00 to IN08, M00, OUT00 to OUT08",
    )
    add_model_argument(parser)
    add_output_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Scale, and tell which rule touched how many modules."""
    from finetune.loras.blocks import parse_rule, parse_vector, scale_blocks
    from finetune.loras.writing import check_output
    from finetune.readers.which_model import structure_for

    rules = parse_vector(arguments.lbw) if arguments.lbw is not None else [parse_rule(text) for text in arguments.set]
    structure = structure_for(arguments.model, arguments.file)
    check_output(arguments.output, [arguments.file], overwrite=arguments.overwrite)
    with progress("scaling") as watch:
        report = scale_blocks(
            arguments.file,
            arguments.output,
            rules,
            structure=structure,
            precision=arguments.precision,
            watch=watch,
        )
    if arguments.json:
        print_json({"file": str(arguments.output), **report.plain()})
        return 0
    for rule, names in report.touched:
        shown = f", as {'.'.join(names[0])}" if names else ""
        print(f"{rule.pattern:<32} x {rule.strength:<6g}{len(names):>5} modules{shown}")
    print(f"{report.kept} modules as they were, {report.left_out} left out")
    print(arguments.output)
    return 0
