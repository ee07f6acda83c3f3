"""Recipes: one file is one experiment. Reading, checking, composing and describing them; nothing here imports torch."""

from finetune.recipe.load import load_recipe
from finetune.recipe.schema import Recipe

__all__ = ["Recipe", "load_recipe"]
