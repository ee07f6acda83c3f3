"""The help of every setting, read from the schema's docstrings, and what differs between two recipes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticUndefined

from finetune.recipe.base import Settings
from finetune.recipe.problems import shown
from finetune.recipe.schema import Recipe
from finetune.recipe.walk import Shape, field_types, shape_of


@dataclass(frozen=True)
class FieldHelp:
    """One setting: `key` is dotted, with `*` for a list's number; `kind` is the kind it belongs to, or empty."""

    key: str
    kind: str
    type: str
    default: str
    help: str


def describe_fields(prefix: str = "") -> list[FieldHelp]:
    """Return the help of every setting whose dotted key is `prefix` or begins with `prefix` and a dot.

    A section that several kinds have alike, as the adapters' `unet`, is told once.
    """
    found = dict.fromkeys(_describe(Recipe, "", ""))
    return [field for field in found if not prefix or f"{field.key}.".startswith(f"{prefix}.")]


def _describe(section: type[Settings], path: str, kind: str) -> Iterator[FieldHelp]:
    for name, annotation in field_types(section).items():
        info, shape, key = section.model_fields[name], shape_of(annotation), f"{path}{name}"
        default = "required" if info.default is PydanticUndefined else _default_text(info.default)
        yield FieldHelp(key, kind, shape.described(), default, info.description or "")
        yield from _describe_inside(shape, key)


def _describe_inside(shape: Shape, key: str) -> Iterator[FieldHelp]:
    if shape.item is not None:
        yield from _describe_inside(shape_of(shape.item), f"{key}.*")
    elif shape.section is not None:
        yield from _describe(shape.section, f"{key}.", "")
    for kind, section in shape.kinds.items():
        yield from _describe(section, f"{key}.", kind)


def _default_text(value: Any) -> str:
    if isinstance(value, Settings):
        kind = getattr(value, "kind", None)
        return "as below" if kind is None else f"kind: {kind}"
    return value if isinstance(value, str) and value else shown(value)


def differing_keys(first: Recipe, second: Recipe) -> list[str]:
    """Return the dotted keys whose values differ, in the order of the schema; a key that only one has differs."""
    return list(_differing(first.model_dump(), second.model_dump(), ""))


_ABSENT = object()


def _differing(first: Any, second: Any, path: str) -> Iterator[str]:
    if isinstance(first, dict) and isinstance(second, dict):
        for key in dict.fromkeys([*first, *second]):
            yield from _differing(first.get(key, _ABSENT), second.get(key, _ABSENT), f"{path}.{key}" if path else key)
    elif _is_list_of_mappings(first) and _is_list_of_mappings(second):
        for index in range(max(len(first), len(second))):
            yield from _differing(_at(first, index), _at(second, index), f"{path}.{index}")
    elif first != second or type(first) is not type(second):
        yield path


def _is_list_of_mappings(value: Any) -> bool:
    return isinstance(value, tuple | list) and any(isinstance(entry, dict) for entry in value)


def _at(values: Any, index: int) -> Any:
    return values[index] if index < len(values) else _ABSENT
