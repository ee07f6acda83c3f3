"""`atelier data`: know and prepare pictures before training. Each of its verbs has a module of its own."""

import argparse
from collections.abc import Sequence
from typing import Any

from finetune.cli import data_cache, data_inspect

VERBS: Sequence[Any] = (data_inspect, data_cache)
"""The modules that add a verb each, in the order of the help."""


def add_parser(subparsers: Any) -> None:
    """Add the group and its verbs."""
    summary = "look at a set of pictures, and prepare it ahead of training"
    parser: argparse.ArgumentParser = subparsers.add_parser("data", help=summary, description=summary)
    verbs = parser.add_subparsers(title="what to do", metavar="WHAT", required=True)
    for verb in VERBS:
        verb.add_parser(verbs)
