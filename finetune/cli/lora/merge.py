"""`atelier lora merge`: several LoRA files as one."""

import argparse
from pathlib import Path
from typing import Any

from finetune.cli.lora.making import add_model_argument, add_output_arguments, progress, rank_range
from finetune.cli.output import format_bytes, print_json


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "merge",
        help="several LoRAs as one",
        description="Write several LoRAs of one model as one file. cat joins the factors: exactly what the files do "
        "beside each other, ranks added up. svd cuts that sum to a rank. ties keeps the largest numbers of each "
        "change, elects a sign for each and averages those that agree; dare drops numbers at random and enlarges the "
        "rest; both then need a rank. A module that one file alone changes stays as it is.",
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="LoRA files")
    parser.add_argument(
        "--weights", type=float, nargs="+", metavar="W", help="what each file's change is multiplied by; without, 1"
    )
    parser.add_argument("--method", default="cat", metavar="METHOD", help="cat, svd, ties or dare (default: cat)")
    parser.add_argument("--rank", type=int, metavar="R", help="of the result; without, the largest of the files'")
    parser.add_argument("--density", type=float, default=0.5, metavar="D", help="ties, dare: the share that is kept")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="dare: of what is dropped")
    add_model_argument(parser)
    add_output_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Merge files and tell what came of it."""
    from finetune.loras.merge import MergeSettings, check_weights, merge
    from finetune.loras.writing import check_output
    from finetune.readers.which_model import structure_for

    settings = MergeSettings(arguments.method, arguments.rank, arguments.density, arguments.seed)
    weights = [1.0] * len(arguments.files) if arguments.weights is None else arguments.weights
    check_weights(arguments.files, weights)
    structure = structure_for(arguments.model, arguments.files[0])
    check_output(arguments.output, arguments.files, overwrite=arguments.overwrite)
    with progress("merging") as watch:
        report = merge(
            arguments.files,
            weights,
            arguments.output,
            settings=settings,
            structure=structure,
            precision=arguments.precision,
            watch=watch,
        )
    size = arguments.output.stat().st_size
    if arguments.json:
        print_json({"file": str(arguments.output), "bytes": size, "components": report.plain()})
        return 0
    print(f"{'':<16}{'of several':>11}{'of one':>8}{'ranks':>12}")
    for component, row in report.plain().items():
        print(f"{component:<16}{row['shared']:>11}{row['alone']:>8}{rank_range(row['ranks']):>12}")
    print(f"{arguments.output} ({format_bytes(size)})")
    return 0
