"""Turns pydantic's report into problems in plain words, each at the line of the file that caused it.

Every message is 'got …, needs …' from the words beside the type in the schema; pydantic's own English is never shown.
"""

from collections.abc import Sequence
from typing import Any

from pydantic_core import ErrorDetails

from finetune.recipe.base import Settings
from finetune.recipe.problems import Problem, nearest, shown
from finetune.recipe.walk import Shape, field_types, shape_of
from finetune.recipe.yaml_text import Node

_LONGEST_KEY = 60


def problems_from(errors: Sequence[ErrorDetails], root: Node, recipe_type: type[Settings]) -> list[Problem]:
    """Return one problem for each thing that is wrong, in the order of the schema."""
    found = [_problem(error, root, recipe_type) for error in errors if not _is_echo(error)]
    return list(dict.fromkeys(found))


def _is_echo(error: ErrorDetails) -> bool:
    """Whether a list is called too short only because its entries are wrong, which is reported by itself."""
    return error["type"] == "too_short" and len(error["input"]) >= error["ctx"]["min_length"]


def _problem(error: ErrorDetails, root: Node, recipe_type: type[Settings]) -> Problem:
    path, shape, rest = _follow(error["loc"], recipe_type)
    node, depth = _deepest(root, path)
    if error["type"] == "plain":
        return Problem(node.where, key_text(path), error["msg"])
    if error["type"] == "extra_forbidden":
        inside = node.value if depth < len(path) + 1 and isinstance(node.value, dict) else {}
        unknown = str(rest[0])
        where = inside[unknown].where if unknown in inside else node.where
        return Problem(where, key_text((*path, unknown)), _unknown_key(unknown, shape))
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return _wrong_kind(path, shape, node)
    given = depth == len(path)
    needs = shape.described()
    if not given:
        return Problem(node.where, key_text(path), f"missing, needs {needs}")
    words = [word for word in shape.all_words() if isinstance(word, str)]
    guess = nearest(node.value, words).strip() if isinstance(node.value, str) else ""
    message = f"got {shown(node.plain())}, needs {needs}"
    return Problem(node.where, key_text(path), f"{message}. {guess}" if guess else message)


def _follow(
    loc: Sequence[int | str], recipe_type: type[Settings]
) -> tuple[tuple[int | str, ...], Shape, Sequence[Any]]:
    """Walk pydantic's location, which names the chosen kinds too, along the schema.

    Returns the path as a person would write it, the shape found there and what was left over (an unknown key). A list
    of fixed length is one value with its own words: the walk ends at it.
    """
    shape, path = shape_of(recipe_type), list[int | str]()
    last = len(loc) - 1
    for position, part in enumerate(loc):
        if shape.kinds:
            shape = Shape(section=shape.kinds[str(part)], siblings=shape.kinds)
        elif shape.branches and position == last and shape_of(shape.branches[str(part)]).words:
            break  # a wrong word: the words for every form of the value say more than those for one
        elif shape.branches:
            shape = shape_of(shape.branches[str(part)])
        elif shape.section is not None and part in shape.section.model_fields:
            shape = shape_of(field_types(shape.section)[str(part)])
            path.append(part)
        elif shape.item is not None and isinstance(part, int):
            shape = shape_of(shape.item)
            path.append(part)
        else:
            return tuple(path), shape, loc[position:]
    return tuple(path), shape, ()


def _deepest(root: Node, path: Sequence[int | str]) -> tuple[Node, int]:
    """Return the deepest node on the path that was written down, and how many parts of the path lead to it."""
    node = root
    for depth, part in enumerate(path):
        value = node.value
        if isinstance(value, dict) and part in value:
            node = value[str(part)]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            node = value[part]
        else:
            return node, depth
    return node, len(path)


def _unknown_key(unknown: str, shape: Shape) -> str:
    assert shape.section is not None, "only a section has keys"
    known = list(shape.section.model_fields)
    kinds = [kind for kind, section in shape.siblings.items() if unknown in section.model_fields]
    if kinds:
        current = shape.section.model_fields["kind"].default
        return f"has no meaning with kind: {current}, only with kind: {' or '.join(kinds)}. Known: {', '.join(known)}"
    return f"unknown key. {nearest(unknown, known)}Known: {', '.join(known)}"


def _wrong_kind(path: tuple[int | str, ...], shape: Shape, node: Node) -> Problem:
    known = ", ".join(shape.kinds)
    key = key_text((*path, "kind"))
    if not (isinstance(node.value, dict) and "kind" in node.value):
        return Problem(node.where, key, f"missing, needs one of {known}")
    given = node.value["kind"]
    guess = nearest(given.value, list(shape.kinds)) if isinstance(given.value, str) else ""
    return Problem(given.where, key, f"unknown kind {shown(given.plain())}. {guess}Known: {known}")


def key_text(path: Sequence[int | str]) -> str:
    """Write a path with dots; a part that would break a message's line is shown in quotes and cut."""
    return ".".join(_part_text(str(part)) for part in path)


def _part_text(part: str) -> str:
    return part if part.isprintable() and 0 < len(part) <= _LONGEST_KEY else shown(part)
