"""Recipes: one file is one experiment. Reading, checking, composing and describing them; nothing here imports torch."""

from finetune.recipe.describe import FieldHelp, describe_fields, differing_keys
from finetune.recipe.dump import dump_recipe
from finetune.recipe.editor_schema import json_schema
from finetune.recipe.effects import recipe_warnings
from finetune.recipe.load import load_recipe, parse_recipe
from finetune.recipe.problems import Problem, RecipeProblems
from finetune.recipe.schema import Recipe
from finetune.recipe.shipped import (
    ShippedRecipe,
    resolve_data_path,
    shipped_profiles,
    shipped_recipes,
    shipped_root,
)

__all__ = [
    "FieldHelp",
    "Problem",
    "Recipe",
    "RecipeProblems",
    "ShippedRecipe",
    "describe_fields",
    "differing_keys",
    "dump_recipe",
    "json_schema",
    "load_recipe",
    "parse_recipe",
    "recipe_warnings",
    "resolve_data_path",
    "shipped_profiles",
    "shipped_recipes",
    "shipped_root",
]
