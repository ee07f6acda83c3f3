"""`atelier lora push`: publish a LoRA file with its card on the Hugging Face hub."""

import argparse
from pathlib import Path
from typing import Any

from finetune.cli.arguments import add_json_argument
from finetune.cli.lora.making import add_model_argument
from finetune.cli.output import format_bytes, print_json


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "push",
        help="publish a LoRA file and its card on the hub",
        description="Send a LoRA file, its card (atelier lora card) and the card's pictures to a repository on the "
        "Hugging Face hub, in one commit. You have to be logged in: hf auth login.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a .safetensors file with its card beside it")
    parser.add_argument("repo_id", metavar="OWNER/NAME", help="the repository; made where there is none")
    parser.add_argument("--dry-run", action="store_true", help="list what would be published, and send nothing")
    parser.add_argument("--private", action="store_true", help="a new repository is seen by its owner alone")
    parser.add_argument("--revision", metavar="BRANCH", help="the branch (default: the repository's main one)")
    parser.add_argument("--create-pr", action="store_true", help="propose the change as a pull request")
    parser.add_argument(
        "--anyway", action="store_true", help="publish a file that programs it is meant for read only in part"
    )
    add_model_argument(parser)
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """List what is published, and publish it."""
    from finetune.loras.push import plan_upload, push
    from finetune.readers.which_model import structure_for

    upload = plan_upload(
        arguments.file,
        arguments.repo_id,
        structure_for(arguments.model, arguments.file),
        check_readers=not arguments.anyway,
    )
    files = [{"file": str(file), "name": name, "bytes": file.stat().st_size} for file, name in upload.files]
    if not arguments.json:
        print(f"To {upload.repo_id}:")
        for file, name in upload.files:
            print(f"  {name}  {format_bytes(file.stat().st_size)}")
        if upload.tells:
            print(f"The file's header tells {'; '.join(upload.tells)}. To leave that out:")
            print(f"  atelier lora convert {arguments.file} --to kohya --minimal-metadata --output PATH")
    address = None
    if not arguments.dry_run:
        address = push(upload, private=arguments.private, revision=arguments.revision, create_pr=arguments.create_pr)
    if arguments.json:
        print_json({"repo_id": upload.repo_id, "files": files, "tells": list(upload.tells), "address": address})
    else:
        print("Nothing was sent: this was a dry run." if address is None else f"Published: {address}")
    return 0
