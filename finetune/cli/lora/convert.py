"""`atelier lora convert`: a LoRA in another program's format."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.cli.arguments import add_json_argument
from finetune.cli.lora.making import add_model_argument, progress
from finetune.cli.output import format_bytes, print_json
from finetune.errors import RecipeError

if TYPE_CHECKING:
    from finetune.loras.convert import ConvertReport

_FORMATS = ("kohya", "diffusers", "peft", "kohya-diffusers")


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "convert",
        help="write a LoRA in another program's format",
        description="Read a LoRA as kohya, LyCORIS, ComfyUI, OneTrainer, diffusers or peft wrote it, and write the "
        "same change of weights in another format. What a format cannot hold is refused, with the way round it.",
    )
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="a .safetensors file, or a folder of peft's or diffusers'"
    )
    parser.add_argument(
        "--to",
        required=True,
        choices=_FORMATS,
        help="kohya: ComfyUI, A1111, Forge, InvokeAI, kohya and diffusers read it; diffusers: load_lora_weights; peft: "
        "a folder for each model; kohya-diffusers: kohya's with diffusers' names of modules",
    )
    parser.add_argument(
        "--output",
        "-o",
        type=Path,
        metavar="PATH",
        help="where it goes; without it, beside FILE, named after it",
    )
    parser.add_argument(
        "--precision",
        choices=("keep", "fp16", "bf16", "fp32"),
        default="keep",
        help="of the factors; keep: that of most of the tensors that are read (default: %(default)s)",
    )
    parser.add_argument(
        "--initial",
        type=Path,
        metavar="FOLDER",
        help="for PiSSA, OLoRA, CorDA and LoRA-GA: peft's folder of the factors before training. The base lost them "
        "then, so without them the result would be wrong on the untouched base",
    )
    parser.add_argument(
        "--as-lora",
        metavar="RANK|exact",
        help="turn LoHa, LoKr and whole changes into plain LoRA: as well as this rank can, or exactly, with whatever "
        "rank that takes",
    )
    parser.add_argument(
        "--leave-out",
        action="store_true",
        help="leave out embeddings and changes of biases and normalisations, which no format here holds",
    )
    parser.add_argument(
        "--minimal-metadata", action="store_true", help="leave out what tells of the pictures, captions and training"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output where it is there; never an input")
    add_model_argument(parser)
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Convert a file and tell what became of it."""
    as_lora = parse_as_lora(arguments.as_lora)
    from finetune.loras.convert import convert, target_path
    from finetune.readers.which_model import structure_for

    structure = structure_for(arguments.model, arguments.file)
    target = target_path(arguments.file, arguments.to, arguments.output)
    inputs = [arguments.file, *([] if arguments.initial is None else [arguments.initial])]
    require_free(target, inputs, overwrite=arguments.overwrite)
    with progress("converting") as watch:
        report = convert(
            arguments.file,
            target,
            to=arguments.to,
            structure=structure,
            precision=None if arguments.precision == "keep" else arguments.precision,
            initial=arguments.initial,
            as_lora=as_lora,
            leave_out=arguments.leave_out,
            level="minimal" if arguments.minimal_metadata else "full",
            watch=watch,
        )
    if arguments.json:
        print_json(plain_report(report))
    else:
        print_report(report)
    return 0


def parse_as_lora(text: str | None) -> Any:
    """Return the rank, 'exact' or None. Raises RecipeError for anything else."""
    if text is None or text == "exact":
        return text
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise RecipeError(f"--as-lora {text!r}: needs a rank, as 32, or the word exact")
    return int(text)


def require_free(target: Path, inputs: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse to write over an input, or over what is there. Raises RecipeError."""
    from finetune.loras.writing import check_apart

    check_apart(target, inputs)
    if target.exists() and not overwrite:
        raise RecipeError(f"--output {target} is there already. Give another name, or --overwrite to replace it")
    if target.is_dir() and not (target / "adapter_config.json").exists() and any(target.iterdir()):
        mine = {"unet", "text_encoder", "text_encoder_2"}
        if {entry.name for entry in target.iterdir()} - mine:
            raise RecipeError(f"--output {target} is a folder with other things in it. Give another name")


def plain_report(report: "ConvertReport") -> dict[str, Any]:
    """Return what was done as plain data."""
    return {
        "dialect": report.dialect,
        "files": [str(path) for path in report.files],
        "precision": report.precision,
        "modules": report.modules,
        "kinds": report.kinds,
        "made_plain": report.made_plain,
        "left_out": [{"name": name, "kind": kind} for name, kind in report.left_out],
    }


def print_report(report: "ConvertReport") -> None:
    """Say what was read and written."""
    counted = ", ".join(f"{component} {count}" for component, count in report.modules.items())
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.kinds.items())
    print(f"Read: {report.dialect}; {kinds}; modules: {counted}")
    if report.made_plain:
        print(f"{report.made_plain} modules are plain LoRA now")
    if report.left_out:
        print(f"Left out: {len(report.left_out)} tensors, as {report.left_out[0][0]!r} ({report.left_out[0][1]})")
    print(f"Written in {report.precision}:")
    for path in report.files:
        print(f"  {path} ({format_bytes(path.stat().st_size)})")
