"""What the verbs that make a new LoRA file share: their options, progress, and how files and ranks are told."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.cli.arguments import add_json_argument

if TYPE_CHECKING:
    from finetune.loras.svd import RankRule
    from finetune.model.weight_files import ModelWeights

_PRECISIONS = ("keep", "fp16", "bf16", "fp32")


def add_output_arguments(parser: argparse.ArgumentParser, *, precisions: Sequence[str] = _PRECISIONS) -> None:
    """Add where the file goes and how it is written; the first of the precisions is taken without a word."""
    parser.add_argument(
        "--output", "-o", type=Path, required=True, metavar="PATH", help="the new .safetensors file, in kohya's format"
    )
    parser.add_argument(
        "--precision",
        choices=precisions,
        default=precisions[0],
        help=("of the factors; keep: as in the files that are read" if "keep" in precisions else "of the factors")
        + " (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output where it is there; never an input")
    add_json_argument(parser)


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """Add which model the files are for."""
    parser.add_argument(
        "--model",
        default="auto",
        metavar="MODEL",
        help="what the files are for: base, refiner, miniature, miniature-refiner, or a model's folder as diffusers "
        "saves it; auto finds out by the shapes (default: %(default)s)",
    )


def add_weights_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how a model's own files are found."""
    parser.add_argument("--variant", metavar="WORD", help="of folders and hub models: which files to take, as fp16")
    parser.add_argument(
        "--config", type=Path, metavar="FOLDER", help="configurations of a checkpoint of another shape than SDXL's"
    )


def open_model_weights(model: str, arguments: argparse.Namespace) -> "ModelWeights":
    """Open a model's weights as the options say; a variant is meant of folders alone."""
    from finetune.model.weight_files import open_weights

    is_file = model.endswith(".safetensors")
    return open_weights(
        model,
        variant=None if is_file else arguments.variant,
        config=arguments.config if is_file else None,
    )


def add_rank_arguments(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add how ranks are chosen."""
    which = parser.add_mutually_exclusive_group(required=required)
    which.add_argument("--rank", type=int, metavar="R", help="the rank of every module; a smaller one stays as it is")
    which.add_argument(
        "--energy",
        type=float,
        metavar="E",
        help="each module's own rank: the smallest that keeps this share of its squared singular values, as 0.98",
    )
    parser.add_argument("--max-rank", type=int, metavar="R", help="with --energy: no rank beyond this one")


def rank_rule(arguments: argparse.Namespace) -> "RankRule":
    """Return the rule the options give. Raises RecipeError for one that holds nothing."""
    from finetune.errors import RecipeError
    from finetune.loras.svd import RankRule

    if arguments.max_rank is not None and arguments.energy is None:
        raise RecipeError("--max-rank limits what --energy chooses. With --rank alone it says nothing; leave it out")
    return RankRule(arguments.max_rank if arguments.energy is not None else arguments.rank, arguments.energy)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function that is told (done, total), and shows a bar where stderr is a terminal."""
    from finetune.loras.writing import unwatched

    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield unwatched
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def percent(share: float) -> str:
    """Write a share as '1.3 %', small ones as '0.0021 %'."""
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.1f} %"


def rank_range(ranks: list[int] | None) -> str:
    """Write ranks as '8' or '4 to 16'; '-' for none."""
    if ranks is None:
        return "-"
    return str(ranks[0]) if ranks[0] == ranks[1] else f"{ranks[0]} to {ranks[1]}"


def say_warning(text: str) -> None:
    """Write a warning to stderr."""
    print(f"warning: {text}", file=sys.stderr)
