"""Where a recipe begins: a task that ships, a card's profile, and a text of a few lines that extends both."""

from collections.abc import Sequence
from dataclasses import dataclass

from finetune.errors import RecipeError
from finetune.recipe import shipped_profiles, shipped_recipes
from webui.recipe_form.writing import flow

AS_IT_IS = ""
"""No card's profile: as the task's recipe has it."""


@dataclass(frozen=True)
class Preset:
    """What ships to begin with: `name` is what `extends` takes, `purpose` a sentence."""

    name: str
    purpose: str


def tasks() -> list[Preset]:
    """Return the recipes to begin with; those the miniature itself was made with stand last."""
    found = [Preset(shipped.name, shipped.purpose) for shipped in shipped_recipes()]
    first = ("quickstart", "style", "character", "object")
    return sorted(found, key=lambda preset: first.index(preset.name) if preset.name in first else len(first))


def cards() -> list[Preset]:
    """Return the profiles of cards, the smallest first."""
    return [Preset(shipped.name, shipped.purpose) for shipped in shipped_profiles()]


def starting_text(task: str, card: str, taken: Sequence[str] = (), output_dir: str | None = None) -> str:
    """Return the text of a new recipe.

    Args:
        task: the name of a recipe that ships.
        card: of a profile, or `AS_IT_IS`.
        taken: names of runs and files that are there; the recipe gets another.
        output_dir: where its run goes; None leaves it to the preset.

    Raises:
        RecipeError: nothing of that name ships.
    """
    wanted = [(task, tasks())] if card == AS_IT_IS else [(task, tasks()), (card, cards())]
    for name, known in wanted:
        if name not in [preset.name for preset in known]:
            listed = ", ".join(preset.name for preset in known)
            raise RecipeError(f"no preset {name[:100]!r} ships. Choose one of: {listed}")
    extends = [task, card] if card else [task]
    lines = [
        "# What is not said here is as the presets have it.",
        f"extends: {flow(extends)}",
        "schema_version: 1",
        f"name: {free_name('my-' + task.replace('/', '-'), taken)}",
    ]
    if output_dir is not None:
        lines.append(f"output_dir: {flow(output_dir)}")
    return "\n".join(lines) + "\n"


def free_name(name: str, taken: Sequence[str]) -> str:
    """Return the name, or the first of name-2, name-3 … that is not taken."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free
