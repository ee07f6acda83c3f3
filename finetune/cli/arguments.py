"""Arguments that several verbs share."""

import argparse


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Add RECIPE and the overrides."""
    parser.add_argument(
        "recipe", metavar="RECIPE", help="a recipe's path, a run's folder, or the name of one that ships"
    )
    parser.add_argument(
        "overrides",
        metavar="key.path=value",
        nargs="*",
        help="settings of the recipe to replace, as training.steps=500; `atelier recipes schema` lists them all",
    )


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """Add --json: one object on stdout, everything else on stderr."""
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout, all else on stderr")
