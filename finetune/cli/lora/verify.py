"""`atelier lora verify`: which programs take a file whole, and what is broken or awkward about it."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.cli.arguments import add_json_argument
from finetune.cli.lora.making import add_model_argument
from finetune.cli.output import print_json

if TYPE_CHECKING:
    from finetune.readers.finding import Finding
    from finetune.readers.proof import Proof


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "verify",
        help="prove which programs take a LoRA whole",
        description="Hold a LoRA against the rules of ComfyUI, A1111, Forge, InvokeAI, kohya's sd-scripts and "
        "diffusers, as read in their source: how many modules each takes, whether it reads alpha, DoRA and the version "
        "right; and name what is broken or awkward about the file, with the remedy. Exit code 0 when every program the "
        "file's format is meant for takes it whole, but for what that program can do with no file of the kind; 1 "
        "otherwise. Nothing of the file is run, and no model is loaded.",
    )
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="a .safetensors file, or a folder of peft's or diffusers'"
    )
    parser.add_argument(
        "--for",
        dest="readers",
        action="append",
        metavar="READER",
        help="a program that must take all of it: comfyui, a1111, forge, invokeai, kohya, diffusers or peft; may be "
        "given several times. What that program can do with no file of the kind (as DoRA) counts, then, too",
    )
    add_model_argument(parser)
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prove a file and tell the result."""
    from finetune.readers.diagnosis import diagnose
    from finetune.readers.proof import check_readers, prove, shortfalls
    from finetune.readers.which_model import structure_for

    check_readers(arguments.readers or ())
    proof = prove(arguments.file, structure_for(arguments.model, arguments.file))
    findings = diagnose(proof)
    wrong = shortfalls(proof, arguments.readers)
    if arguments.json:
        asked = arguments.readers or list(proof.meant_for)
        print_json(
            {
                **proof.as_data(),
                "required": asked,
                "passes": not wrong,
                "findings": [finding.as_data() for finding in findings],
            }
        )
    else:
        print_proof(proof)
        print_findings(findings, arguments.file)
        print_result(proof, arguments.readers, wrong)
    return 1 if wrong else 0


def print_proof(proof: "Proof") -> None:
    """Show what each program makes of the file."""
    kinds = ", ".join(sorted(proof.contents.kinds)) or "nothing"
    print(f"{proof.file.path}: {len(proof.contents.entries)} modules of {kinds}, names of {proof.dialect}")
    print("\n".join(proof.as_lines()))


def print_findings(findings: "tuple[Finding, ...]", path: Path) -> None:
    """Show what there is to say about the file, and what to do."""
    from finetune.readers.proof import with_path

    for finding in findings:
        print(f"\n{finding.severity}: {finding.name}\n  {finding.what}.")
        if finding.keys:
            more = f" … {finding.num_keys} in all" if finding.num_keys > len(finding.keys) else ""
            print(f"  keys: {', '.join(finding.keys)}{more}")
        print(f"  remedy: {with_path(finding.remedy, path)}")


def print_result(proof: "Proof", readers: list[str] | None, wrong: Mapping[str, str]) -> None:
    """Show the result: who does not take the file whole, and why, or who does."""
    from finetune.readers.proof import describe_takers

    if not wrong:
        print(f"\ntaken whole by: {describe_takers(proof, readers)}")
        return
    print(f"\nnot taken whole by: {', '.join(wrong)}")
    told = {proof.readings[name].title for name in proof.meant_for if proof.readings[name].state != "limited"}
    for title, sentence in wrong.items():
        if title not in told:
            print(f"  {title}: {sentence}")
