"""`atelier lora resize`: the same LoRA with smaller ranks."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.cli.lora.making import (
    add_model_argument,
    add_output_arguments,
    add_rank_arguments,
    percent,
    progress,
    rank_range,
    rank_rule,
)
from finetune.cli.output import format_bytes, print_json

if TYPE_CHECKING:
    from finetune.loras.resize import ResizeReport


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "resize",
        help="give a LoRA smaller ranks, losing as little as can be",
        description="Write a LoRA with smaller ranks. Each module keeps the largest singular values of its change, "
        "which is the best a rank can hold, split evenly over both factors; alpha stays. LoHa and LoKr become plain "
        "LoRA; DoRA keeps its magnitudes, the learned norms of the weight's rows, which do not depend on how the "
        "change is factored.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a LoRA file")
    add_rank_arguments(parser, required=True)
    add_model_argument(parser)
    add_output_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Resize a file and tell what it lost."""
    from finetune.loras.resize import resize
    from finetune.loras.writing import check_output
    from finetune.readers.which_model import structure_for

    rule = rank_rule(arguments)
    structure = structure_for(arguments.model, arguments.file)
    check_output(arguments.output, [arguments.file], overwrite=arguments.overwrite)
    with progress("resizing") as watch:
        report = resize(
            arguments.file, arguments.output, rule=rule, structure=structure, precision=arguments.precision, watch=watch
        )
    if arguments.json:
        print_json({"file": str(arguments.output), **report.plain()})
    else:
        print_report(report)
        print(arguments.output)
    return 0


def print_report(report: "ResizeReport") -> None:
    """Show ranks and errors, model by model."""
    plain = report.plain()
    rows = {**plain["components"], "all": plain["total"]}
    print(f"{'':<16}{'modules':>8}{'ranks':>12}{'become':>12}{'error':>10}   worst module")
    for name, row in rows.items():
        print(
            f"{name:<16}{row['modules']:>8}{rank_range(row['old_ranks']):>12}{rank_range(row['new_ranks']):>12}"
            f"{percent(row['relative_error']):>10}   {percent(row['worst_relative_error'])} {row['worst_module']}"
        )
    print(f"{format_bytes(report.bytes_before)} become {format_bytes(report.bytes_after)}. Errors are relative, of the "
          "change of weights in the Frobenius norm, rounding included.")  # fmt: skip
    if any(module.old_rank is None for module in report.modules):
        print("Modules that were LoHa, LoKr or whole changes are plain LoRA now.")
