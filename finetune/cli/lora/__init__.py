"""`atelier lora`: look at LoRA files, prove them, and make new ones from others. Each verb has a module of its own."""

import argparse
from collections.abc import Sequence
from typing import Any

from finetune.cli.lora import card, convert, extract, fuse, inspect, merge, push, resize, scale_blocks, verify

VERBS: Sequence[Any] = (inspect, verify, convert, merge, resize, scale_blocks, extract, fuse, card, push)
"""The modules that add a verb each, in the order of the help."""


def add_parser(subparsers: Any) -> None:
    """Add the group and its verbs."""
    summary = "look at LoRA files, prove them, and make new ones from others"
    parser: argparse.ArgumentParser = subparsers.add_parser("lora", help=summary, description=summary)
    verbs = parser.add_subparsers(title="what to do", metavar="WHAT", required=True)
    for verb in VERBS:
        verb.add_parser(verbs)
