"""Finds the way through the schema: what stands at a key, which words describe it, which kinds and keys it knows.

Reads the annotations of the sections, once for messages, merging and help alike. It looks at types only, not at values.
"""

import types
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import Tag

from finetune.recipe.base import DefaultKind, Needs, Settings, Shorthand


@dataclass(frozen=True)
class Shape:
    """What may stand at a key.

    Exactly one of these is filled for a value that has parts: `section` (one group of settings), `kinds` (a choice of
    groups by their `kind`; `siblings` are those a chosen section was chosen from), `branches` (a choice by the form of
    the value), `item` (a list), `items` (a fixed list). A value without parts has `words` or a `scalar` type.
    """

    nullable: bool = False
    needs: str = ""
    words: tuple[Any, ...] = ()
    section: type[Settings] | None = None
    kinds: dict[str, type[Settings]] = field(default_factory=dict)
    siblings: dict[str, type[Settings]] = field(default_factory=dict)
    default_kind: str | None = None
    shorthand: str | None = None
    branches: dict[str, Any] = field(default_factory=dict)
    item: Any = None
    items: tuple[Any, ...] = ()
    scalar: type | None = None

    def described(self) -> str:
        """Return what a value must be, in words that follow 'needs'."""
        return self._described() + (", or null" if self.nullable else "")

    def _described(self) -> str:
        if self.needs:
            return self.needs
        if self.words:
            known = ", ".join(str(word) for word in self.words)
            return known if len(self.words) == 1 else f"one of {known}"
        if self.kinds:
            return f"a mapping with kind: one of {', '.join(self.kinds)}"
        if self.branches:
            return ", or ".join(shape_of(branch).described() for branch in self.branches.values())
        if self.section is not None:
            return f"a mapping of settings (known: {', '.join(self.section.model_fields)})"
        return "a list"

    def all_words(self) -> tuple[Any, ...]:
        """Return the words that may stand here, those of every form of the value together."""
        branches = (shape_of(branch).words for branch in self.branches.values())
        return self.words + tuple(word for words in branches for word in words)

    def variant(self, kind: Any) -> type[Settings] | None:
        """Return the group of settings here for a `kind`, or for the default one when `kind` is None."""
        if self.section is not None:
            return self.section
        named = self.default_kind if kind is None else kind
        return self.kinds.get(named) if isinstance(named, str) else None


@cache
def field_types(section: type[Settings]) -> dict[str, Any]:
    """Return the annotation of each field of a section, with everything `Annotated` adds, in the order of writing."""
    hints = get_type_hints(section, include_extras=True)
    return {name: hints[name] for name in section.model_fields}


def shape_of(annotation: Any) -> Shape:
    """Read one annotation."""
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        found = shape_of(inner).__dict__.copy()
        for mark in marks:
            if isinstance(mark, Needs):
                found["needs"] = mark.words
            elif isinstance(mark, DefaultKind):
                found["default_kind"] = mark.kind
            elif isinstance(mark, Shorthand):
                found["shorthand"] = mark.key
        return Shape(**found)
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return Shape(words=parts)
    if origin is tuple:
        return Shape(item=parts[0]) if parts[-1] is Ellipsis else Shape(items=parts)
    if origin in (Union, types.UnionType):
        return _shape_of_union(parts)
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        kind = annotation.model_fields.get("kind")
        return Shape(section=annotation, default_kind=None if kind is None else kind.default)
    return Shape(scalar=annotation)


def _shape_of_union(parts: tuple[Any, ...]) -> Shape:
    members = [part for part in parts if part is not types.NoneType]
    nullable = len(members) < len(parts)
    if len(members) == 1:
        return Shape(**{**shape_of(members[0]).__dict__, "nullable": nullable})
    if all(isinstance(member, type) and issubclass(member, Settings) for member in members):
        return Shape(nullable=nullable, kinds={member.model_fields["kind"].default: member for member in members})
    branches = {_tag(member): member for member in members}
    return Shape(nullable=nullable, branches=branches)


def _tag(annotation: Any) -> str:
    """Return the name pydantic gives a branch of a choice by form."""
    for mark in get_args(annotation)[1:]:
        if isinstance(mark, Tag):
            return mark.tag
    raise AssertionError(f"a union without tags cannot give good messages: {annotation}")
