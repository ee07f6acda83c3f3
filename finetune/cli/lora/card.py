"""`atelier lora card`: the model card of a LoRA file, as the hub shows it."""

import argparse
from pathlib import Path
from typing import Any

from finetune.cli.arguments import add_json_argument
from finetune.cli.output import print_json


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "card",
        help="the model card of a LoRA file",
        description="Write NAME-card/README.md beside a LoRA file, with a gallery, as the Hugging Face hub shows it: "
        "from what the file's header says, and what is given here. A file among a run's exports gets that run's newest "
        "previews. Then: atelier lora push.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a .safetensors file")
    parser.add_argument(
        "--picture",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="a picture of the gallery; one drawn by atelier generate brings its prompt; may be given several times",
    )
    for name, words in (
        ("title", "what it is called"),
        ("author", "who made it"),
        ("license", "its licence, best by the hub's name for it, as openrail++"),
        ("trigger", "the words that call up what was learned"),
    ):
        parser.add_argument(f"--{name}", metavar="TEXT", help=words)
    parser.add_argument("--base-model", metavar="ID", help="the base's id on the hub, as owner/name")
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the card."""
    from finetune.loras.card import CardWords, write_file_card

    words = CardWords(
        title=arguments.title,
        author=arguments.author,
        license=arguments.license,
        trigger=arguments.trigger,
        base_model=arguments.base_model,
    )
    files = write_file_card(arguments.file, words, arguments.picture)
    if arguments.json:
        print_json({"files": [str(file) for file in files]})
        return 0
    print(f"{files[0]} written, with {len(files) - 1} pictures. Look at it, then publish it:")
    print(f"  atelier lora push {arguments.file} OWNER/NAME --dry-run")
    return 0
