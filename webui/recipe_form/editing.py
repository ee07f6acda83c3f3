"""Edits of the form as edits of the text: what was answered, an entry more or less, another kind, back to the preset.

Lists are replaced whole where recipes extend each other: before an entry that is inherited can be changed, the list is
written into the text. A kind that changes takes along what the new kind knows too.
"""

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

from finetune.errors import RecipeError
from finetune.recipe.schema import Recipe
from finetune.recipe.walk import Shape, field_types, shape_of
from webui.recipe_form.document import Path, remove, set_value, value_at
from webui.recipe_form.fields import Field, Shown, path_of, understand
from webui.recipe_form.form import fields_of, section_of, shape_at
from webui.recipe_form.looking import Look, look_at


def answer(look: Look, path: FilePath, answers: Mapping[str, Shown]) -> str:
    """Return the text with what a person has answered; what is shown already is no answer.

    Args:
        look: the text and its form.
        path: where the recipe lies, or would.
        answers: what stands in parts of the form, by their keys.

    Raises:
        RecipeError: a part is not in the form, or its place in the text cannot be changed.
    """
    fields = {field.key: field for field in fields_of(_form(look))}
    unknown = answers.keys() - fields.keys()
    if unknown:
        raise RecipeError(f"{min(unknown)}: is not in this form. Load the page again")
    text = look.text
    for key, given in answers.items():
        if given != fields[key].shown:
            text = _answer_one(look_at(text, path), fields[key], given)
    return text


def take_back(look: Look, path: FilePath, key: str) -> str:
    """Return the text without what it says of a setting, which is then as in the preset."""
    text = look.text
    parts = path_of(key)
    if parts[-1] == "kind":
        # Settings beside it may belong to the kind that goes.
        section = section_of(shape_at(look.inherited, parts[:-1]), value_at(look.inherited, parts[:-1]))
        for name in _own_mapping(look, parts[:-1]):
            if section is None or name not in section.model_fields:
                text = remove(text, (*parts[:-1], name))
        if not isinstance(value_at(look.own, parts[:-1]), dict):
            parts = parts[:-1]
    text = remove(text, parts)
    while len(parts) > 1 and value_at(look_at(text, path).own, parts[:-1]) == {}:
        # An empty section that says nothing goes too; where it says that the section is there, it stays.
        parts = parts[:-1]
        shorter = remove(text, parts)
        if _shown(look_at(shorter, path)) != _shown(look_at(text, path)):
            break
        text = shorter
    return text


def add_entry(look: Look, key: str) -> str:
    """Return the text with an entry more in a list of sections."""
    path = path_of(key)
    text, entries = _with_list(look, path)
    shape = shape_at(look.in_force, path)
    if shape.item is None:
        raise RecipeError(f"{key}: is no list")
    item = shape_of(shape.item)
    fresh: dict[str, Any] = {}
    if item.kinds:
        fresh = {"kind": next(iter(item.kinds))}
    elif item.shorthand is not None:
        fresh = {item.shorthand: ""}
    return set_value(text, (*path, len(entries)), fresh, _order(look))


def remove_entry(look: Look, key: str, index: int) -> str:
    """Return the text with an entry less in a list of sections."""
    path = path_of(key)
    text, entries = _with_list(look, path)
    if not 0 <= index < len(entries):
        raise RecipeError(f"{key}: has no entry {index + 1}. Load the page again")
    return remove(text, (*path, index))


def extend(look: Look, names: list[str]) -> str:
    """Return the text with other presets under it."""
    if not names:
        return remove(look.text, ("extends",))
    return set_value(look.text, ("extends",), names[0] if len(names) == 1 else list(names), _order(look))


def _answer_one(look: Look, field: Field, given: Shown) -> str:
    parts = field.path
    text = look.text
    for depth in range(1, len(parts)):
        if isinstance(parts[depth], int):
            text, _ = _with_list(look, parts[:depth])
            text = _with_mapping(text, look, parts, depth)
    if field.widget == "kind":
        return _with_kind(text, look, parts[:-1], str(given))
    if field.widget == "on":
        return set_value(text, parts, {} if given else None, _order(look))
    value = understand(field, shape_at(look.in_force, parts), given)
    return set_value(text, parts, value, _order(look))


def _with_kind(text: str, look: Look, parts: Path, kind: str) -> str:
    if not kind:
        return set_value(text, parts, None, _order(look))
    shape = shape_at(look.in_force, parts)
    section = shape.kinds.get(kind)
    if section is None:
        raise RecipeError(f"{'.'.join(map(str, parts))}: unknown kind {kind!r}. Known: {', '.join(shape.kinds)}")
    before = section_of(shape, value_at(look.in_force, parts))
    same_types = {} if before is None else field_types(before)
    for name in _own_mapping(look, parts):
        known = field_types(section).get(name)
        if name != "kind" and (known is None or known != same_types.get(name, known)):
            text = remove(text, (*parts, name))
    return set_value(text, (*parts, "kind"), kind, lambda path: _names_in(shape, kind) if path == parts else
                     _order(look)(path))  # fmt: skip


def _with_list(look: Look, path: Path) -> tuple[str, list[Any]]:
    """Return the text with the list that is in force at `path` written into it, and the list."""
    entries = value_at(look.in_force, path)
    entries = entries if isinstance(entries, list) else []
    if isinstance(value_at(look.own, path), list):
        return look.text, entries
    return set_value(look.text, path, entries, _order(look)), entries


def _with_mapping(text: str, look: Look, parts: Path, depth: int) -> str:
    """Return the text with a list's entry written out as a mapping where a text stands for it, and more is asked."""
    place = parts[: depth + 1]
    shape = shape_at(look.in_force, place)
    entry = value_at(look.in_force, place)
    if shape.shorthand is None or not isinstance(entry, str):
        return text
    return set_value(text, place, {shape.shorthand: entry}, _order(look))


def _own_mapping(look: Look, parts: Path) -> list[str]:
    own = value_at(look.own, parts)
    return list(own) if isinstance(own, dict) else []


def _order(look: Look) -> Any:
    def order(path: Path) -> list[str]:
        if not path:
            return ["extends", *Recipe.model_fields]
        section = section_of(shape_at(look.in_force, path), value_at(look.in_force, path))
        return [] if section is None else list(_kind_first(section.model_fields))

    return order


def _names_in(shape: Shape, kind: str) -> list[str]:
    return list(_kind_first(shape.kinds[kind].model_fields))


def _kind_first(names: Mapping[str, Any]) -> list[str]:
    return sorted(names, key=lambda name: name != "kind")


def _shown(look: Look) -> list[tuple[str, Shown]]:
    return [(field.key, field.shown) for field in fields_of(_form(look))]


def _form(look: Look) -> Any:
    if look.form is None:
        raise RecipeError(
            "The YAML cannot be read, so that the form cannot change it. Mend it first: "
            + "; ".join(mark.text if mark.line is None else f"line {mark.line}: {mark.text}" for mark in look.marks)
        )
    return look.form
