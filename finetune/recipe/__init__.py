"""Recipes: one file is one experiment. Reading, checking, composing and describing them; nothing here imports torch."""

from finetune.recipe.load import load_recipe
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
    "Problem",
    "Recipe",
    "RecipeProblems",
    "ShippedRecipe",
    "load_recipe",
    "resolve_data_path",
    "shipped_profiles",
    "shipped_recipes",
    "shipped_root",
]
