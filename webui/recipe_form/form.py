"""The form of a recipe: every setting that applies, with what is in force, made from the schema and nothing else.

A setting that joins the schema appears here by itself. Only the settings of the kinds that are chosen are there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic_core import PydanticUndefined

from finetune.recipe.base import Settings
from finetune.recipe.schema import Recipe
from finetune.recipe.walk import Shape, field_types, shape_of
from webui.recipe_form.document import value_at
from webui.recipe_form.fields import Field, path_of, show, widget_of, words_of

NOT_SHOWN = ("schema_version",)
"""Settings there is nothing to choose about."""

_NAMES = {
    "id": "Id",
    "unet": "U-Net",
    "lr_schedule": "Learning rate schedule",
    "use_dora": "Use DoRA",
    "use_rslora": "Use rsLoRA",
    "init": "Beginning",
    "ema": "Averaging (EMA)",
    "snr_gamma": "Min-SNR gamma",
    "zero_terminal_snr": "Zero terminal SNR",
    "std": "Spread",
    "eps": "Epsilon",
    "d_coef": "d coefficient",
    "l1": "L1",
    "l2": "L2",
    "kl": "KL",
    "json_field": "JSON field",
}


@dataclass(frozen=True)
class Group:
    """A section: `chooser` says which kind it is of, or whether it is there at all; None where nothing is to choose."""

    key: str
    label: str
    help: str
    chooser: Field | None
    parts: "tuple[Part, ...]"


@dataclass(frozen=True)
class Entries:
    """A list of sections, to which more may be added."""

    key: str
    label: str
    help: str
    entries: tuple[Group, ...]


Part: TypeAlias = Field | Group | Entries

_ABSENT: Any = object()


def build_form(in_force: dict[str, Any], inherited: dict[str, Any], own: dict[str, Any]) -> Group:
    """Return the whole form.

    Args:
        in_force: the settings, composed, as plain data; what they do not say has its default.
        inherited: those that hold where `own` says nothing.
        own: those that the recipe's own text says.
    """
    return Group("", "Recipe", "", None, _Builder(own).parts(Recipe, "", in_force, inherited))


def fields_of(part: Part) -> Iterator[Field]:
    """Yield every setting of a part of the form, in order."""
    if isinstance(part, Field):
        yield part
        return
    if isinstance(part, Group) and part.chooser is not None:
        yield part.chooser
    for inner in part.parts if isinstance(part, Group) else part.entries:
        yield from fields_of(inner)


def label_of(name: str) -> str:
    """Return a setting's name in words."""
    return _NAMES.get(name) or name.replace("_", " ").capitalize()


def shape_at(in_force: dict[str, Any], path: tuple[str | int, ...]) -> Shape:
    """Return the shape of what may stand at a path, by the kinds that are in force; an empty one where nothing may."""
    shape = shape_of(Recipe)
    for depth, part in enumerate(path):
        if isinstance(part, int):
            shape = Shape() if shape.item is None else shape_of(shape.item)
            continue
        section = section_of(shape, value_at(in_force, path[:depth]))
        annotation = None if section is None else field_types(section).get(part)
        if annotation is None:
            return Shape()
        shape = shape_of(annotation)
    return shape


def section_of(shape: Shape, value: Any) -> type[Settings] | None:
    """Return the group of settings that a value is one of."""
    return shape.variant(value.get("kind") if isinstance(value, dict) else None)


def default_of(section: type[Settings], name: str) -> Any:
    """Return a setting's default as plain data, or `...` where it has none."""
    default = section.model_fields[name].default
    return ... if default is PydanticUndefined else _plain(default)


class _Builder:
    def __init__(self, own: dict[str, Any]) -> None:
        self.own = own

    def parts(self, section: type[Settings], before: str, values: Any, inherited: Any) -> tuple[Part, ...]:
        found = []
        for name, annotation in field_types(section).items():
            if name == "kind" or (not before and name in NOT_SHOWN):
                continue
            default = default_of(section, name)
            default = _ABSENT if default is ... else default
            value = values.get(name, default) if isinstance(values, dict) else default
            base = inherited.get(name, default) if isinstance(inherited, dict) else default
            words = section.model_fields[name].description or ""
            found.append(self.part(shape_of(annotation), f"{before}{name}", label_of(name), words, value, base))
        return tuple(found)

    def part(self, shape: Shape, key: str, label: str, words: str, value: Any, base: Any) -> Part:
        if shape.section is not None or shape.kinds:
            return self.group(shape, key, label, words, value, base)
        if shape.item is not None and _has_parts(shape_of(shape.item)):
            entries = value if isinstance(value, list) else []
            bases = base if isinstance(base, list) else []
            item = shape_of(shape.item)
            groups = tuple(
                self.group(
                    item,
                    f"{key}.{index}",
                    f"{singular(label)} {index + 1}",
                    words,
                    _written_out(item, entry),
                    _written_out(item, bases[index]) if index < len(bases) else _ABSENT,
                )
                for index, entry in enumerate(entries)
            )
            return Entries(key, label, words, groups)
        return self.field(shape, key, label, words, value, base)

    def group(self, shape: Shape, key: str, label: str, words: str, value: Any, base: Any) -> Group:
        section = section_of(shape, value)
        is_there = value is not None and not (value is _ABSENT and shape.kinds and shape.default_kind is None)
        chooser = self.chooser(shape, key, label, words, value, base)
        if not is_there or section is None:
            return Group(key, label, words, chooser, ())
        same_kind = isinstance(base, dict) and section_of(shape, base) is section
        return Group(key, label, words, chooser, self.parts(section, f"{key}.", value, base if same_kind else {}))

    def chooser(self, shape: Shape, key: str, label: str, words: str, value: Any, base: Any) -> Field | None:
        if not shape.kinds:
            if not shape.nullable:
                return None
            shown, before = (bool(each is not None and each is not _ABSENT) for each in (value, base))
            return Field(key, label, words, "true or false", "on", shown, before, written=self.says(key))
        kind, base_kind = (_kind(shape, each) for each in (value, base))
        choices = tuple(dict.fromkeys([*([""] if shape.nullable else []), *shape.kinds, *([kind] if kind else [])]))
        section = shape.kinds.get(kind)
        about = "" if section is None else section.model_fields["kind"].description or ""
        help_ = " ".join(text for text in (words, about and f"{kind}: {about}") if text)
        return Field(
            f"{key}.kind", label, help_, shape.described(), "kind", kind, base_kind, choices,
            nullable=shape.nullable, written=self.says(key) and (value is None or self.says(f"{key}.kind")),
        )  # fmt: skip

    def field(self, shape: Shape, key: str, label: str, words: str, value: Any, base: Any) -> Field:
        widget = widget_of(shape)
        shown = show(widget, None if value is _ABSENT else value)
        inherited = None if base is _ABSENT else show(widget, base)
        choices: tuple[str, ...] = ()
        if widget in ("choice", "choices", "words"):
            given = shown if isinstance(shown, tuple) else (str(shown),) if shown else ()
            choices = tuple(dict.fromkeys([*words_of(shape), *(given if widget != "words" else ())]))
        return Field(
            key, label, words, shape.described(), widget, shown, inherited, choices, shape.nullable, self.says(key)
        )

    def says(self, key: str) -> bool:
        return value_at(self.own, path_of(key), _ABSENT) is not _ABSENT


def _has_parts(shape: Shape) -> bool:
    return shape.section is not None or bool(shape.kinds)


def _kind(shape: Shape, value: Any) -> str:
    if value is None or value is _ABSENT:
        return ""
    kind = value.get("kind", shape.default_kind) if isinstance(value, dict) else shape.default_kind
    return "" if kind is None else str(kind)


def _written_out(shape: Shape, value: Any) -> Any:
    """Return an entry as a mapping where a text stands for one."""
    return {shape.shorthand: value} if shape.shorthand is not None and isinstance(value, str) else value


def singular(label: str) -> str:
    """Return what one entry of a list is called."""
    return label.removesuffix("s")


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
