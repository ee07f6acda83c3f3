"""How one setting is shown, and what a person's answer means: from a shape of the schema to a part of a form and back.

What is shown is text, a switch, or a choice of words: never more. A number keeps the letters it was typed with.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

from finetune.recipe.walk import Shape, shape_of
from finetune.recipe.yaml_text import plain_scalar, read_yaml
from webui.recipe_form.document import Typed
from webui.recipe_form.writing import flow

Widget = Literal[
    "switch", "whole", "number", "text", "choice", "choices", "numbers", "lines", "sizes", "words", "yaml", "kind", "on"
]
"""
switch    true or false
whole     a whole number
number    a number
text      text
choice    one of some words
choices   several of some words
numbers   a fixed number of numbers, behind each other
lines     a list of texts, one a line
sizes     a list of such numbers, one a line
words     one of some words, or a list of texts
yaml      anything else, as YAML on one line
kind      which kind a section is of; "" where there may be none and is none
on        whether a section is there
"""

Shown = str | bool | tuple[str, ...]
"""What stands in a part of the form."""


@dataclass(frozen=True)
class Field:
    """One setting in a form.

    Attributes:
        key: dotted, a list's entries by their number: `preview.prompts.0.seed`.
        label: its name in words; help: its docstring; needs: what it must be, in words that follow 'needs'.
        widget: what it is shown by.
        shown: what is in force; inherited: what would be, were it not written here; None where nothing would.
        choices: the words to choose from, what was given among them, right or not.
        nullable: an empty answer means null.
        written: this recipe's own text says it.
    """

    key: str
    label: str
    help: str
    needs: str
    widget: Widget
    shown: Shown
    inherited: Shown | None
    choices: tuple[str, ...] = ()
    nullable: bool = False
    written: bool = False

    @property
    def path(self) -> tuple[str | int, ...]:
        """The way to its value."""
        return path_of(self.key)


def path_of(key: str) -> tuple[str | int, ...]:
    """Return the parts of a dotted key, a list's numbers as numbers."""
    return tuple(int(part) if part.isdecimal() else part for part in key.split("."))


def widget_of(shape: Shape) -> Widget:
    """Return what a setting without parts of its own is shown by."""
    if shape.words:
        return "choice"
    if shape.branches:
        inner = [shape_of(branch) for branch in shape.branches.values()]
        lists = [part for part in inner if part.item is not None and shape_of(part.item).scalar is str]
        return "words" if len(lists) == 1 and shape.all_words() and len(inner) == 2 else "yaml"
    if shape.items:
        return "numbers" if _are_numbers(shape) else "yaml"
    if shape.item is not None:
        entry = shape_of(shape.item)
        if entry.words:
            return "choices"
        if entry.scalar is str:
            return "lines"
        return "sizes" if entry.items and _are_numbers(entry) else "yaml"
    scalars: dict[type | None, Widget] = {bool: "switch", int: "whole", float: "number", str: "text"}
    return scalars.get(shape.scalar, "yaml")


def words_of(shape: Shape) -> tuple[str, ...]:
    """Return the words to choose from."""
    if shape.item is not None:
        return tuple(str(word) for word in shape_of(shape.item).words)
    return tuple(str(word) for word in shape.all_words())


def show(widget: Widget, value: Any) -> Shown:
    """Return what a part of the form shows for a value; one of another kind than is asked for is shown as YAML."""
    if widget in ("switch", "on"):
        return value is True
    if widget == "choices":
        return tuple(_line(entry) for entry in value) if isinstance(value, list) else ()
    if value is None:
        return ""
    if isinstance(value, list) and widget in ("numbers", "words"):
        return ", ".join(_line(entry) for entry in value)
    if isinstance(value, list) and widget == "lines":
        return "\n".join(_line(entry) for entry in value)
    if isinstance(value, list) and widget == "sizes":
        return "\n".join(", ".join(map(_line, size)) if isinstance(size, list) else _line(size) for size in value)
    return flow(value) if widget == "yaml" else _line(value)


def understand(field: Field, shape: Shape, answer: Shown) -> Any:
    """Return the value that an answer means, to be written into the text; whether it is right is asked later."""
    if field.widget in ("switch", "on"):
        return bool(answer)
    if field.widget == "choices":
        return list(answer) if isinstance(answer, tuple) else []
    text = str(answer)
    if field.widget == "text":
        return None if field.nullable and text == "" else text
    text = text.strip()
    if text == "" and field.widget not in ("lines", "sizes"):
        return None
    if field.widget in ("whole", "number"):
        return _number(text)
    if field.widget == "choice":
        return next((word for word in shape.words if str(word) == text), text)
    if field.widget == "numbers":
        return _numbers(text)
    if field.widget == "sizes":
        return [_numbers(line) for line in text.splitlines() if line.strip()]
    if field.widget == "lines":
        return [line.strip() for line in text.splitlines() if line.strip()]
    if field.widget == "words":
        return text if text in field.choices else [part.strip() for part in text.split(",") if part.strip()]
    node = read_yaml(text, lambda _: "", [])
    return text if node is None else node.plain()


def _are_numbers(shape: Shape) -> bool:
    return all(shape_of(part).scalar in (int, float) for part in shape.items)


def _line(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return re.sub(r"e([-+])0+", r"e\1", flow(value))
    return flow(value)


def _number(text: str) -> Any:
    meant = plain_scalar(text)
    return Typed(text) if isinstance(meant, int | float) and not isinstance(meant, bool) else text


def _numbers(text: str) -> list[Any]:
    return [_number(part) for part in re.split(r"[\s,;x\u00d7]+", text.strip(" []()")) if part]
