"""`atelier recipes`: list, show and copy what ships, and explain the settings. Runs nothing and changes no recipe."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import DiskError, RecipeError

if TYPE_CHECKING:
    from finetune.recipe import FieldHelp, ShippedRecipe

_JSON_HELP = "print one JSON object on stdout"


def add_parser(subparsers: Any) -> None:
    """Add `recipes` and its four verbs to the command line; each sets `run`, which returns the exit code."""
    summary = "list, show and copy the recipes that ship; explain every setting"
    parser: argparse.ArgumentParser = subparsers.add_parser("recipes", help=summary, description=summary)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    listing = verbs.add_parser("list", help="the recipes and hardware profiles that ship")
    listing.set_defaults(run=run_list)

    show = verbs.add_parser("show", help="a recipe with its comments, or resolved")
    show.add_argument("recipe", metavar="RECIPE", help="a shipped name or a path")
    show.add_argument("overrides", metavar="key.path=value", nargs="*", help="changes, shown with --resolved")
    show.add_argument("--resolved", action="store_true", help="every setting with its value, as it would run")
    show.set_defaults(run=run_show)

    copy = verbs.add_parser("copy", help="copy a shipped recipe, to make it yours")
    copy.add_argument("recipe", metavar="NAME", help="a shipped name")
    copy.add_argument("destination", metavar="FILE", nargs="?", help="where to; default: NAME.yaml, here")
    copy.set_defaults(run=run_copy)

    schema = verbs.add_parser("schema", help="the JSON schema for editors, or the help of some settings")
    schema.add_argument(
        "key", metavar="KEY", nargs="?", help="explain this setting and those below it, as adapter.unet"
    )
    schema.set_defaults(run=run_schema)
    for verb in (listing, show, copy, schema):
        verb.add_argument("--json", action="store_true", help=_JSON_HELP)


def run_list(arguments: argparse.Namespace) -> int:
    """Print the names and purposes of what ships."""
    from finetune.recipe import shipped_profiles, shipped_recipes

    recipes, profiles = shipped_recipes(), shipped_profiles()
    if arguments.json:
        _print_json(
            {"recipes": [_as_data(each) for each in recipes], "profiles": [_as_data(each) for each in profiles]}
        )
        return 0
    _print_table(("recipe", "purpose"), [(each.name, each.purpose) for each in recipes])
    print()
    _print_table(("profile", "what for; extend it: `extends: [style, NAME]`"), [(p.name, p.purpose) for p in profiles])
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """Print a recipe's file as it is written, or with every setting resolved."""
    from finetune.recipe import Problem, RecipeProblems, dump_recipe, load_recipe
    from finetune.recipe.compose import find_recipe, read_text

    if arguments.overrides and not arguments.resolved:
        raise RecipeError("overrides change only what --resolved shows; add --resolved")
    if arguments.resolved:
        recipe = load_recipe(arguments.recipe, arguments.overrides)
        if arguments.json:
            _print_json({"recipe": recipe.model_dump(mode="json")})
        else:
            print(dump_recipe(recipe), end="")
        return 0
    problems: list[Problem] = []
    found = find_recipe(arguments.recipe, problems)
    text = None if found is None else read_text(*found, problems)
    if found is None or text is None:
        raise RecipeProblems(problems)
    if arguments.json:
        _print_json({"path": str(found[0]), "text": text})
    else:
        print(text, end="")
    return 0


def run_copy(arguments: argparse.Namespace) -> int:
    """Copy a shipped recipe or profile to a file that does not exist yet."""
    from finetune.recipe.problems import nearest
    from finetune.recipe.shipped import PROFILES, shipped_names, shipped_path

    source = shipped_path(arguments.recipe)
    if source is None:
        known = shipped_names()
        guess = nearest(arguments.recipe, known)
        raise RecipeError(f"no recipe {arguments.recipe!r} ships. {guess}Shipped: {', '.join(known)}")
    target = Path(arguments.destination or source.name).expanduser()
    if target.is_dir():
        target = target / source.name
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(source.read_text("utf-8"))
    except FileExistsError:
        raise RecipeError(f"{target} exists and is left as it is; name another file") from None
    except OSError as error:
        raise DiskError(f"cannot write {target}: {error.strerror or error}") from error
    if arguments.json:
        _print_json({"recipe": arguments.recipe, "path": str(target)})
    elif arguments.recipe.startswith(PROFILES):
        print(f"{target} written. Extend it in a recipe beside it: extends: [style, {target.name}]")
    else:
        print(f"{target} written. Run it: atelier train {target}")
    return 0


def run_schema(arguments: argparse.Namespace) -> int:
    """Print the JSON schema, or the help of a setting and of those below it."""
    from finetune.recipe import describe_fields, json_schema

    if not arguments.key:
        _print_json(json_schema())
        return 0
    fields = describe_fields(arguments.key)
    if not fields:
        from finetune.recipe.problems import nearest

        known = [field.key for field in describe_fields()]
        guess = nearest(arguments.key, known) or "See: atelier recipes schema"
        raise RecipeError(f"no setting {arguments.key!r}. {guess}".rstrip())
    if arguments.json:
        _print_json({"fields": [vars(field) for field in fields]})
        return 0
    _print_fields(fields)
    return 0


def _as_data(shipped: "ShippedRecipe") -> dict[str, str]:
    return {"name": shipped.name, "purpose": shipped.purpose, "path": str(shipped.path)}


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _print_fields(fields: "list[FieldHelp]") -> None:
    """Print the help of settings; one that several kinds share alike is printed once, with all their names."""
    kinds: dict[tuple[str, str, str, str], list[str]] = {}
    for field in fields:
        kinds.setdefault((field.key, field.help, field.type, field.default), []).append(field.kind)
    for (key, text, type_, default), names in kinds.items():
        of_kind = f" (kind: {', '.join(dict.fromkeys(names))})" if any(names) else ""
        value = default if default == "required" else f"default {default}"
        print(f"{key}{of_kind}\n    {text}\n    {type_}; {value}")


def _print_table(heads: tuple[str, str], rows: list[tuple[str, str]]) -> None:
    """Print a table on a terminal, plain aligned lines elsewhere."""
    if not sys.stdout.isatty():
        width = max(len(name) for name, _ in rows) if rows else 0
        for name, text in rows:
            print(f"{name:<{width}}  {text}")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*heads)
    for name, text in rows:
        table.add_row(Text(name), Text(text))
    Console().print(table)
