"""Read a recipe from a path (first form: plain YAML and overrides of plain values)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune.errors import RecipeError
from finetune.recipe.schema import Recipe


def load_recipe(reference: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check the recipe at a path."""
    from pydantic import ValidationError
    from ruamel.yaml import YAML

    path = Path(reference)
    data: Any = YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
    for override in overrides:
        key, _, value = override.partition("=")
        *parents, last = key.split(".")
        node = data
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        node[int(last) if isinstance(node, list) else last] = YAML(typ="safe", pure=True).load(value)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(str(error)) from error
    return recipe if recipe.name else recipe.model_copy(update={"name": path.stem})
