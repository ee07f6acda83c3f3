"""A recipe's text with everything that can be said of it while it is typed: its form, and what is wrong, and where."""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from finetune.recipe import Problem, Recipe, RecipeProblems, recipe_warnings
from finetune.recipe.compose import Composer
from finetune.recipe.load import checked_recipe
from finetune.recipe.yaml_text import Node
from webui.recipe_form.document import read
from webui.recipe_form.form import Group, build_form, fields_of
from webui.recipe_form.writing import flow


@dataclass(frozen=True)
class Mark:
    """One thing to be told: `field` is the key of the part of the form it stands beside, empty where there is none.

    `line` is that of the text, counted from 1; None where it comes from what the recipe extends, or from no line.
    """

    field: str
    key: str
    text: str
    line: int | None = None
    is_warning: bool = False

    @property
    def words(self) -> str:
        """What stands beside the field: with its key where that is another's."""
        return self.text if self.key == self.field or not self.key else f"{self.key}: {self.text}"


@dataclass(frozen=True)
class Look:
    """What a text amounts to.

    Attributes:
        text: the YAML.
        form: every setting that applies; None where the text cannot be read, or what it extends is not there.
        in_force: the settings, composed, as plain data.
        inherited: those of what it extends.
        own: those of the text alone.
        recipe: the whole recipe where nothing is wrong.
        marks: everything that is wrong or without effect.
    """

    text: str
    form: Group | None
    in_force: dict[str, Any]
    inherited: dict[str, Any]
    own: dict[str, Any]
    recipe: Recipe | None
    marks: tuple[Mark, ...]

    @property
    def num_problems(self) -> int:
        """How many things keep it from being run."""
        return sum(not mark.is_warning for mark in self.marks)


def look_at(text: str, path: Path) -> Look:
    """Read a text as the recipe that would lie at `path`; nothing that is wrong with it is an error here."""
    # A file that is extended may change meanwhile; what ships does not.
    extends_files = ".yaml" in text or ".yml" in text
    return _look_at.__wrapped__(text, path) if extends_files else _look_at(text, path)


@lru_cache(maxsize=8)
def _look_at(text: str, path: Path) -> Look:
    problems: list[Problem] = []
    try:
        own = read(text)
    except RecipeProblems as error:
        return _unreadable(text, error.problems, path.name)
    root = Composer(Recipe, problems).text(text, path, path.name) if own else Node({}, f"{path.name}:1")
    base = _base(own.get("extends"), path)
    if root is None or base is None:
        return _unreadable(text, problems, path.name)
    own.pop("extends", None)
    in_force = root.plain()
    form = build_form(in_force, base, own)
    recipe = None
    try:
        recipe = checked_recipe(root, path, problems)
        warnings = [line.partition(": ") for line in recipe_warnings(recipe)]
        found = [Mark(beside(form, key), key, words, is_warning=True) for key, _, words in warnings]
    except RecipeProblems as error:
        found = [_mark(problem, beside(form, problem.key), path.name) for problem in error.problems]
    return Look(text, form, in_force, base, own, recipe, tuple(found))


def beside(form: Group, key: str) -> str:
    """Return the key of the setting that stands nearest to `key` in a form: itself, its section's, or its parent's."""
    shown = [field.key for field in fields_of(form)]
    while key:
        for candidate in (key, f"{key}.kind"):
            if candidate in shown:
                return candidate
        inside = next((other for other in shown if other.startswith(f"{key}.")), None)
        if inside is not None:
            return inside
        key = key.rpartition(".")[0]
    return ""


def _base(extends: Any, path: Path) -> dict[str, Any] | None:
    """Return the settings of what a recipe extends, alone; None where they cannot be read."""
    if extends is None:
        return {}
    problems: list[Problem] = []
    node = Composer(Recipe, problems).text(f"extends: {flow(extends)}\n", path, path.name)
    plain = None if node is None else node.plain()
    return plain if isinstance(plain, dict) else None


def _unreadable(text: str, problems: tuple[Problem, ...] | list[Problem], name: str) -> Look:
    return Look(text, None, {}, {}, {}, None, tuple(_mark(problem, "", name) for problem in problems))


def _mark(problem: Problem, field: str, name: str) -> Mark:
    found = re.fullmatch(rf"(?:{re.escape(name)}:|line )(\d+)", problem.where)
    text = problem.message if found or problem.where == name else f"{problem.message} ({problem.where})"
    return Mark(field, problem.key, text, int(found[1]) if found else None)
