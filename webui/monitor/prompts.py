"""The words of a run's preview prompts, from its own recipe."""

from functools import lru_cache

from finetune.errors import RecipeError
from finetune.recipe import load_recipe
from finetune.run.folder import RunFolder


def prompt_texts(run: RunFolder) -> list[str]:
    """Return the prompts in order; none where the recipe cannot be read. They are text, not markup."""
    try:
        return list(_read(str(run.recipe), run.recipe.stat().st_mtime_ns))
    except (OSError, RecipeError):
        return []


@lru_cache(maxsize=64)
def _read(path: str, _changed: int) -> tuple[str, ...]:
    return tuple(prompt.prompt for prompt in load_recipe(path).preview.prompts)
