"""`atelier lora extract`: what a fine-tuned model has learned, as a LoRA."""

import argparse
from typing import TYPE_CHECKING, Any

from finetune.cli.lora.making import (
    add_output_arguments,
    add_rank_arguments,
    add_weights_arguments,
    open_model_weights,
    percent,
    progress,
    rank_range,
    rank_rule,
    say_warning,
)
from finetune.cli.output import format_bytes, print_json

if TYPE_CHECKING:
    from finetune.loras.extract import ExtractReport
    from finetune.naming.components import Component

_SHOWN = 5


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "extract",
        help="what a fine-tuned model has learned, as a LoRA",
        description="Write the difference of two models as a LoRA: module by module, the largest singular values of "
        "what changed. Modules that are equal are left out. What a LoRA cannot hold (norms, biases, embeddings) is "
        "told with its size.",
    )
    model = "a .safetensors checkpoint, a model's folder, a hub id in the cache, or miniature"
    parser.add_argument("base", metavar="BASE", help=f"the model before: {model}")
    parser.add_argument("tuned", metavar="TUNED", help="the model after, likewise")
    add_rank_arguments(parser, required=True)
    parser.add_argument("--only", metavar="MODELS", help="of unet,text_encoder,text_encoder_2 these alone")
    parser.add_argument(
        "--targets",
        nargs="+",
        default=["attention+feedforward+convolutions"],
        metavar="TARGET",
        help="which modules: attention, attention+feedforward, attention+feedforward+convolutions, all, or patterns as "
        "in a recipe (default: attention+feedforward+convolutions). `all` takes the first and last layers too, which "
        "not every reader takes",
    )
    add_weights_arguments(parser)
    add_output_arguments(parser, precisions=("fp16", "bf16", "fp32"))
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Extract, and tell what the rank lost."""
    from finetune.loras.extract import WORDS, extract
    from finetune.loras.writing import check_output

    rule = rank_rule(arguments)
    components = _components(arguments.only)
    word = arguments.targets[0] if len(arguments.targets) == 1 and arguments.targets[0] in WORDS else None
    with (
        open_model_weights(arguments.base, arguments) as base,
        open_model_weights(arguments.tuned, arguments) as tuned,
        progress("extracting") as watch,
    ):
        check_output(arguments.output, [base.path, tuned.path], overwrite=arguments.overwrite)
        report = extract(
            base,
            tuned,
            arguments.output,
            rule=rule,
            components=components,
            targets=word or arguments.targets,
            precision=arguments.precision,
            watch=watch,
        )
    _warn(report)
    if arguments.json:
        print_json({"file": str(arguments.output), **report.plain()})
        return 0
    plain = report.plain()
    print(f"{'':<16}{'modules':>8}{'equal':>8}{'ranks':>12}{'error':>10}   worst module")
    for name, row in {**plain["components"], "all": plain["total"]}.items():
        equal = plain["unchanged"].get(name, sum(plain["unchanged"].values()))
        print(
            f"{name:<16}{row['modules']:>8}{equal:>8}{rank_range(row['new_ranks']):>12}"
            f"{percent(row['relative_error']):>10}   {percent(row['worst_relative_error'])} {row['worst_module']}"
        )
    print(f"{arguments.output} ({format_bytes(arguments.output.stat().st_size)})")
    return 0


def _components(only: str | None) -> "tuple[Component, ...]":
    from finetune.errors import RecipeError
    from finetune.naming.components import COMPONENTS

    if only is None:
        return COMPONENTS
    words = [word.strip() for word in only.split(",")]
    unknown = [word for word in words if word not in COMPONENTS]
    if unknown:
        raise RecipeError(f"--only: {unknown[0]!r} is none of {', '.join(COMPONENTS)}")
    return tuple(component for component in COMPONENTS if component in words)


def _warn(report: "ExtractReport") -> None:
    if report.mixed:
        say_warning("the models keep their weights in different precisions: what rounding changed counts as learned")
    if report.others:
        sizes = [
            f"{other.component}.{other.name} ({'other shape' if other.relative is None else percent(other.relative)})"
            for other in report.others[:_SHOWN]
        ]
        more = f" and {len(report.others) - _SHOWN} more" if len(report.others) > _SHOWN else ""
        say_warning(f"{len(report.others)} tensors differ that this LoRA does not hold: {', '.join(sizes)}{more}")
