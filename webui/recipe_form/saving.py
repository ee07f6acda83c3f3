"""Recipes as files of the page's folder: which there are, what is in one, and saving without undoing others' work."""

import hashlib
import re
from dataclasses import dataclass

from finetune.errors import RecipeError
from finetune.recipe.yaml_text import MAX_BYTES
from finetune.run.durable import write_text
from webui.paths import open_plain
from webui.places import PlaceError, Places

_MOST = 300
_IS_RECIPE = re.compile(r"^(extends|schema_version)\s*:", re.MULTILINE)


@dataclass(frozen=True)
class SavedRecipe:
    """A file as it was read: `mark` tells later whether it is still the same."""

    name: str
    text: str
    mark: str


class ChangedElsewhereError(RecipeError):
    """The file is not as it was when it was opened."""


def saved_names(places: Places) -> list[str]:
    """Return the names of the recipes in the folder, without their ending."""
    found = []
    for name in places.recipe_names()[:_MOST]:
        try:
            if _IS_RECIPE.search(open_recipe(places, name).text):
                found.append(name)
        except RecipeError:
            continue  # another's file, too large: none that this page would open
    return found


def open_recipe(places: Places, name: str) -> SavedRecipe:
    """Read a recipe's file.

    Raises:
        PlaceError: there is no such file, or it cannot be opened from here.
    """
    path = places.recipe_file(name)
    try:
        file = open_plain(path)
    except PermissionError:
        raise PlaceError(f"{path.name}: may not be read") from None
    if file is None:
        raise PlaceError(f"{path.name}: there is no such file in {places.recipes}")
    with file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise PlaceError(f"{path.name}: has more than {MAX_BYTES} bytes, and is no recipe")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise PlaceError(f"{path.name}: is not UTF-8 text, and is no recipe") from None
    return SavedRecipe(path.stem, text, mark_of(content))


def save_recipe(places: Places, name: str, text: str, mark: str, *, replace: bool = False) -> SavedRecipe:
    """Write a recipe's file, whole or not at all.

    Args:
        places: the folders.
        name: of the file, with its ending or without.
        text: the YAML.
        mark: of the file as it was opened, empty where none was.
        replace: write over a file that is not as it was.

    Raises:
        ChangedElsewhereError: the file is another than was opened, and `replace` is not set.
        PlaceError: it is no plain file's name.
        DiskError: it cannot be written.
    """
    path = places.recipe_file(name)
    if path.exists() and not replace:
        there = open_recipe(places, name)
        if there.mark != mark and there.text != text:
            what = "was changed elsewhere since it was opened" if mark else "is there already"
            raise ChangedElsewhereError(
                f"{path.name} {what}. Save under another name, or tick 'Replace the file that is there'"
            )
    places.recipes.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return SavedRecipe(path.stem, text, mark_of(text.encode("utf-8", "backslashreplace")))


def mark_of(content: bytes) -> str:
    """Return what tells one content from another."""
    return hashlib.sha256(content).hexdigest()
