"""Loads a recipe: finds its file, composes it, checks it, and reports everything that is wrong at once."""

import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from finetune.recipe.compose import Composer, find_recipe
from finetune.recipe.messages import problems_from
from finetune.recipe.overrides import apply_override
from finetune.recipe.problems import Problem, RecipeProblems
from finetune.recipe.schema import Recipe
from finetune.recipe.yaml_text import Node


def load_recipe(reference: str, overrides: Sequence[str] = ()) -> Recipe:
    """Load the recipe at a path, or the shipped one of that name, with overrides `key.path=value` laid on top.

    A recipe without a name takes its file's. Raises RecipeProblems, which says all that is wrong, one line each.
    """
    problems: list[Problem] = []
    found = find_recipe(reference, problems)
    if found is None:
        raise RecipeProblems(problems)
    path, label = found
    return _finished(Composer(Recipe, problems).file(path, label), path, overrides, problems)


def parse_recipe(text: str, label: str = "recipe.yaml", overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe from its text, as it lies in an exported file's metadata; `label` is what problems call it.

    What it extends has to ship or lie in the current directory. Raises RecipeProblems like `load_recipe`.
    """
    problems: list[Problem] = []
    path = Path.cwd() / label
    return _finished(Composer(Recipe, problems).text(text, path, label), path, overrides, problems)


def _finished(root: Node | None, path: Path, overrides: Sequence[str], problems: list[Problem]) -> Recipe:
    if root is None:
        raise RecipeProblems(problems)
    for text in overrides:
        root = apply_override(root, text, Recipe, problems)
    return checked_recipe(root, path, problems)


def checked_recipe(root: Node, path: Path, problems: list[Problem]) -> Recipe:
    """Return the recipe that a composed tree says, named after the file at `path` where it names itself not.

    Raises RecipeProblems: those that were found before, `problems`, and all that are wrong with the settings.
    """
    return _validated(_named(root, path), problems)


def _validated(root: Node, problems: list[Problem]) -> Recipe:
    try:
        recipe = Recipe.model_validate(root.plain())
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise RecipeProblems([*problems, *problems_from(details, root, Recipe)]) from None
    if problems:
        raise RecipeProblems(problems)
    return recipe


def _named(root: Node, path: Path) -> Node:
    """Fill in the name from the file's, with what a name cannot hold replaced by '-'."""
    assert isinstance(root.value, dict), "the composer returns a mapping"
    given = root.value.get("name")
    if given is not None and given.value != "":
        return root
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")[:100] or "recipe"
    return Node({**root.value, "name": Node(name, root.where)}, root.where)
