"""`atelier miniature`: make the embedded model from nothing, or measure what it does."""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from finetune.cli.arguments import add_json_argument
from finetune.cli.output import format_duration, print_json

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
    check = verbs.add_parser(
        "check",
        help="measure what it does: a table of effects with bars; twenty minutes",
        description="Measure every effect of SDXL's conditions, refiner and training on the miniature, against bars. "
        "Exit code 0 if every row holds, 1 otherwise.",
    )
    check.add_argument("--rows", default=None, metavar="NAME,NAME", help="measure only these families of rows")
    check.add_argument(
        "--prompts", type=_at_least_two, default=256, help="prompts a rate is over (default: %(default)s)"
    )
    check.add_argument("--seed", type=int, default=0, help="of prompts and noise (default: %(default)s)")
    check.add_argument("--processes", type=int, default=2, help="how many draw side by side (default: %(default)s)")
    check.add_argument(
        "--report", type=Path, default=None, metavar="FOLDER", help="write miniature.md and its pictures"
    )
    check.add_argument(
        "--card", type=Path, default=None, metavar="FOLDER", help="write the model card, from the build in FOLDER"
    )
    check.add_argument("--model", type=Path, default=None, metavar="FOLDER", help="another base than the shipped one")
    check.add_argument("--refiner", type=Path, default=None, metavar="FOLDER", help="another refiner")
    check.add_argument(
        "--previous", type=Path, default=None, metavar="FOLDER", help="the base before its last stage, for offset-noise"
    )
    add_json_argument(check)
    check.set_defaults(run=run_check)


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


def run_check(arguments: argparse.Namespace) -> int:
    """Measure, and show what was found; return 1 where a row does not hold."""
    from finetune.run.quiet import quiet_libraries

    require_extra()
    quiet_libraries()
    from finetune.miniature.effects.check import FAMILIES, measure_effects
    from finetune.miniature.effects.studio import Studio

    base, refiner = shipped_or(arguments.model, "base"), shipped_or(arguments.refiner, "refiner")
    families = list(FAMILIES) if arguments.rows is None else [name.strip() for name in arguments.rows.split(",")]
    with tempfile.TemporaryDirectory(prefix="atelier-miniature-") as scratch:
        studio = Studio(
            base=base, refiner=refiner, scratch=Path(scratch), num_prompts=arguments.prompts, seed=arguments.seed,
            num_processes=max(1, arguments.processes), previous=arguments.previous,
        )  # fmt: skip
        with studio:
            effects = measure_effects(studio, families, lambda text: print(text, file=sys.stderr, flush=True))
    if arguments.report is not None:
        from finetune.miniature.effects.facts import measuring_facts
        from finetune.miniature.effects.report import write_report

        facts = measuring_facts(command_line(arguments), base, refiner, effects.seconds)
        print(f"report: {write_report(arguments.report, effects, facts)}", file=sys.stderr)
    if arguments.card is not None:
        from finetune.miniature.effects.card import write_card

        print(f"card: {write_card(arguments.card, effects.rows, base.parent)}", file=sys.stderr)
    if arguments.json:
        print_json({
            "holds": effects.all_hold,
            "seconds": round(effects.seconds, 1),
            "prompts": arguments.prompts,
            "rows": [row.plain() for row in effects.rows],
            "plots": [plot.plain() for found in effects.found.values() for plot in found.plots],
        })  # fmt: skip
    else:
        from rich.console import Console

        from finetune.miniature.effects.table import as_table

        failed = sum(row.holds is False for row in effects.rows)
        Console().print(as_table(effects.rows))
        says = "Every row holds." if effects.all_hold else f"{failed} of {len(effects.rows)} rows do not hold."
        print(f"{says} {format_duration(effects.seconds)}")
    return 0 if effects.all_hold else 1


def command_line(arguments: argparse.Namespace) -> str:
    """Return what measures the same again."""
    words = ["atelier miniature check"]
    if arguments.rows is not None:
        words.append(f"--rows {arguments.rows}")
    return " ".join([*words, f"--prompts {arguments.prompts} --seed {arguments.seed}"])


def require_extra() -> None:
    """Refuse to begin without the libraries that only this verb needs.

    Raises:
        AtelierError: with the line that installs them.
    """
    from importlib.util import find_spec

    from finetune.errors import AtelierError

    missing = [name for name in ("matplotlib", "scipy") if find_spec(name) is None]
    if missing:
        raise AtelierError(f'{" and ".join(missing)} not installed here. Type: pip install "atelier[miniature]"')


def shipped_or(folder: Path | None, name: str) -> Path:
    """Return a model's folder: the given one, or the one that ships.

    Raises:
        RecipeError: it has no weights.
    """
    from finetune.errors import RecipeError
    from finetune.miniature.start import SHIPPED

    found = folder or SHIPPED / name
    if not any((found / "unet").glob("*.safetensors")):
        where = "--model" if name == "base" else "--refiner"
        raise RecipeError(f"{found} has no weights of a U-Net. Give a folder as diffusers saves it: {where} FOLDER")
    return found


def _at_least_two(text: str) -> int:
    count = int(text)
    if count < 2:
        raise argparse.ArgumentTypeError(f"got {count}, needs 2 or more")
    return count
