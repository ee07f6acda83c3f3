"""Finds what ships with the kit: recipes, hardware profiles and sample pictures, in a checkout and in a wheel.

In a checkout they lie at the top (`recipes/`, `datasets/samples/`), in a wheel in the package (`finetune/shipped/`).
"""

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from finetune.errors import RecipeError
from finetune.recipe.problems import nearest, shown
from finetune.recipe.yaml_text import read_yaml

_PACKAGE = Path(__file__).resolve().parent.parent
_SAMPLE = "sample:"
PROFILES = "hardware/"
"""Names that begin so are fragments to extend, not recipes to run."""


@dataclass(frozen=True)
class ShippedRecipe:
    """A recipe or profile that ships: `name` is what `atelier train NAME` or `extends: NAME` takes."""

    name: str
    purpose: str
    path: Path

    @property
    def is_profile(self) -> bool:
        """Whether it is a fragment to extend rather than a recipe to run."""
        return self.name.startswith(PROFILES)


def shipped_root() -> Path:
    """Return `finetune/shipped` where the kit was installed from a wheel, else the repository's root."""
    packaged = _PACKAGE / "shipped"
    return packaged if (packaged / "recipes").is_dir() else _PACKAGE.parent


def recipes_folder() -> Path:
    """Return the folder of the recipes that ship."""
    return shipped_root() / "recipes"


def samples_folder() -> Path:
    """Return the folder of the sample pictures that ship."""
    root = shipped_root()
    return root / "samples" if root.parent == _PACKAGE else root / "datasets" / "samples"


def shipped_names() -> list[str]:
    """Return the names of all recipes and profiles that ship, sorted (8gb before 12gb), without reading them."""
    folder = recipes_folder()
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")]
    return sorted(
        names, key=lambda name: [part.zfill(6) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
    )


def shipped_path(name: str) -> Path | None:
    """Return the file of a shipped name, or None when none of that name ships."""
    return recipes_folder() / f"{name}.yaml" if name in shipped_names() else None


def shipped_recipes() -> list[ShippedRecipe]:
    """Return the recipes that ship and can be run, by name."""
    return [shipped for shipped in _read_all(recipes_folder()) if not shipped.is_profile]


def shipped_profiles() -> list[ShippedRecipe]:
    """Return the hardware profiles that ship, to be named after `extends:`."""
    return [shipped for shipped in _read_all(recipes_folder()) if shipped.is_profile]


@functools.cache
def _read_all(folder: Path) -> tuple[ShippedRecipe, ...]:
    """Return what lies in a folder that ships; while a program runs, it does not change."""
    found = []
    for name in shipped_names():
        path = folder / f"{name}.yaml"
        found.append(ShippedRecipe(name, _purpose(path.read_text("utf-8")), path))
    return tuple(found)


def _purpose(text: str) -> str:
    """Return the recipe's `purpose`, or the first line of its head where it has none, as a profile."""
    node = read_yaml(text, lambda line: f"line {line}", [])
    settings = node.plain() if node is not None else None
    if isinstance(settings, dict) and isinstance(settings.get("purpose"), str):
        return str(settings["purpose"])
    first = text.partition("\n")[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""


def resolve_data_path(path: str) -> Path:
    """Return the absolute path that a recipe's data path means; whether it exists is not asked of plain ones.

    `sample:NAME` is a set of pictures that ships, `~` the home folder, anything else relative to the current directory.
    Raises RecipeError for a sample that does not ship.
    """
    if not path.startswith(_SAMPLE):
        return Path(path).expanduser().absolute()
    name, folder = path.removeprefix(_SAMPLE), samples_folder()
    known = sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
    known = [entry for entry in known if not entry.startswith(("_", "."))]
    if name not in known:
        listed = ", ".join(f"{_SAMPLE}{entry}" for entry in known) or "none"
        raise RecipeError(f"no sample pictures {shown(path)} ship. {nearest(name, known)}Known: {listed}")
    return folder / name
