"""Edits in a recipe's YAML text, made where the value stands: every other letter of the text stays as it is.

A parser that reports where each value begins and ends finds the place; the text is then cut and joined there. Each edit
is read again before it is given back, so that what comes out means what was asked for. Nothing here knows the schema.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode, SequenceNode

from finetune.errors import RecipeError
from finetune.recipe.problems import Problem, RecipeProblems
from finetune.recipe.yaml_text import plain_scalar, read_yaml
from webui.recipe_form.writing import block_lines, flow

Path = tuple[str | int, ...]
"""The way to a value: keys of mappings, and numbers of a list's entries from 0."""
Order = Callable[[Path], Sequence[str]]
"""The order in which the keys of the mapping at a path are written, where it is known."""


@dataclass(frozen=True)
class Typed:
    """A number as a person typed it, such as 1e-4, to be written with just these letters."""

    text: str

    def plain(self) -> Any:
        """Return what it means."""
        return plain_scalar(self.text)


def read(text: str) -> dict[str, Any]:
    """Return the settings of a text as plain data.

    Raises:
        RecipeProblems: it is not readable as YAML, or is no mapping of settings.
    """
    problems: list[Problem] = []
    node = read_yaml(text, lambda line: "" if line is None else f"line {line}", problems)
    if problems or node is None:
        raise RecipeProblems(problems)
    plain = node.plain()
    if plain is None:
        return {}
    if not isinstance(plain, dict):
        raise RecipeProblems([Problem("line 1", "", "needs a mapping of settings ('key: value' lines)")])
    return plain


def value_at(data: Any, path: Path, default: Any = None) -> Any:
    """Return what stands at a path of plain data, or `default` where nothing does."""
    for part in path:
        if isinstance(data, dict) and part in data:
            data = data[part]
            continue
        if not (isinstance(data, list) and isinstance(part, int) and 0 <= part < len(data)):
            return default
        data = data[part]
    return data


def set_value(text: str, path: Path, value: Any, order: Order = lambda _: ()) -> str:
    """Return the text with a value at a path; mappings on the way are made, and a list's next number adds to it.

    Args:
        text: readable YAML.
        path: where.
        value: plain data, or `Typed`.
        order: where among its neighbours a new key is written; at the end where it does not say.

    Raises:
        RecipeProblems: the text is not readable.
        RecipeError: the place cannot be changed from here.
    """
    assert path, "a whole text is not one value"
    data = read(text)
    expected = copy.deepcopy(data)
    _put(expected, path, plain_of(value))
    return _checked(_Editor(text).put(path, value, order), expected, path)


def remove(text: str, path: Path) -> str:
    """Return the text without the key or the list's entry at a path; a text that does not have it stays as it is.

    Raises:
        RecipeProblems: the text is not readable.
        RecipeError: the place cannot be changed from here.
    """
    data = read(text)
    missing = object()
    if value_at(data, path, missing) is missing:
        return text
    expected = copy.deepcopy(data)
    del value_at(expected, path[:-1])[path[-1]]
    return _checked(_Editor(text).remove(path), expected, path)


def plain_of(value: Any) -> Any:
    """Return a value with what was typed read as YAML reads it."""
    if isinstance(value, Typed):
        return value.plain()
    if isinstance(value, dict):
        return {key: plain_of(inner) for key, inner in value.items()}
    return [plain_of(inner) for inner in value] if isinstance(value, list | tuple) else value


def _put(root: Any, path: Path, value: Any) -> None:
    data = root
    for depth, part in enumerate(path[:-1]):
        fresh: Any = [] if isinstance(path[depth + 1], int) else {}
        if isinstance(part, int):
            if part == len(data):
                data.append(fresh)
            if not isinstance(data[part], dict | list):
                data[part] = fresh
        elif not isinstance(data.get(part), type(fresh)):
            data[part] = fresh
        data = data[part]
    last = path[-1]
    if isinstance(last, int) and last == len(data):
        data.append(value)
    else:
        data[last] = value


def _checked(text: str, expected: Any, path: Path) -> str:
    problems: list[Problem] = []
    node = read_yaml(text, lambda line: f"line {line}", problems)
    found = None if node is None or problems else (node.plain() or {})
    if not same(found, expected):
        place = ".".join(str(part) for part in path)
        raise RecipeError(f"{place}: cannot be changed from the form as it is written. Change it in the YAML")
    return text


def same(first: Any, second: Any) -> bool:
    """Whether two plain values are alike, whole numbers and others told apart, and NaN like itself."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same, first, second))
    if first != first and second != second:
        return True
    return type(first) is type(second) and bool(first == second)


class _Editor:
    """One text with the places of its values, for one edit."""

    def __init__(self, text: str) -> None:
        self.text = text
        root = YAML(typ="safe", pure=True).compose(text)
        self.root = root if isinstance(root, MappingNode) else None

    def put(self, path: Path, value: Any, order: Order) -> str:
        if self.root is None:
            return self._joined(len(self.text), _lines(_wrapped(path, value)), 0)
        node: Node = self.root
        for depth, part in enumerate(path):
            rest = _wrapped(path[depth + 1 :], value)
            child = _child(node, part)
            if child is None:
                return self._added(node, part, rest, order(path[:depth]))
            if depth == len(path) - 1 or not _can_hold(child, path[depth + 1]):
                return self._replaced(node, part, rest)
            node = child
        raise AssertionError("a path ends")

    def remove(self, path: Path) -> str:
        node: Node | None = self.root
        for part in path[:-1]:
            node = None if node is None else _child(node, part)
        assert node is not None, "the caller has seen that it is there"
        if len(node.value) == 1:
            empty = "{}" if isinstance(node, MappingNode) else "[]"
            if self.root is not None and node is self.root:
                return self._cut(self._line_start(_start(self.root)), self._line_end(self._end_of(self.root)))
            return self._with_place(path[:-1], empty)
        return self._without_in_flow(node, path[-1]) if _is_flow(node) else self._without_line(node, path[-1])

    def _with_place(self, path: Path, written: str) -> str:
        """Replace the collection at `path` by one written on one line."""
        parent: Node | None = self.root
        for part in path[:-1]:
            assert parent is not None, "it is there"
            parent = _child(parent, part)
        assert parent is not None, "it is there"
        child = _child(parent, path[-1])
        assert child is not None, "it is there"
        start = self._slot(parent, path[-1]) if isinstance(parent, MappingNode) else _start(child)
        space = " " if isinstance(parent, MappingNode) else ""
        return self.text[:start] + space + written + self.text[self._end_of(child) :]

    def _replaced(self, node: Node, part: str | int, value: Any) -> str:
        child = _child(node, part)
        assert child is not None, "only what is there is replaced"
        end = self._end_of(child)
        if isinstance(node, MappingNode):
            slot = self._slot(node, part)
            key = _key(node, part)
            if _is_scalar(value) or _is_flow(node):
                is_exact = isinstance(child, ScalarNode) and not _is_empty(child) and child.style not in ("|", ">")
                if is_exact or _is_flow(child):
                    return self.text[: _start(child)] + flow(value) + self.text[end:]
                return f"{self.text[:slot]} {flow(value)}{self.text[max(end, slot) :]}"
            column = key.start_mark.column
            head = self.text[:slot] + self.text[max(end, slot) : self._line_end(max(end, slot), with_break=False)]
            after = self.text[self._line_end(max(end, slot), with_break=False) :]
            lines = _lines(value)
            body = "\n".join(f"{' ' * (column + 2)}{line}" for line in lines)
            return f"{head.rstrip(' ')}\n{body}{after}"
        if _is_flow(node) or _is_scalar(value) or _is_empty(child):
            space = " " if _is_empty(child) else ""
            start = self._dash(node, int(part)) + 1 if _is_empty(child) else _start(child)
            return self.text[:start] + space + flow(value) + self.text[max(end, start) :]
        column = child.start_mark.column
        lines = _lines(value)
        body = "\n".join([lines[0], *(f"{' ' * column}{line}" for line in lines[1:])])
        return self.text[: _start(child)] + body + self.text[end:]

    def _added(self, node: Node, part: str | int, value: Any, order: Sequence[str]) -> str:
        if _is_flow(node):
            written = flow(value) if isinstance(part, int) else f"{flow(part)}: {flow(value)}"
            if not node.value:
                return self.text[: _start(node) + 1] + written + self.text[_end(node) - 1 :]
            end = self._end_of(_last(node), self._last_slot(node))
            return f"{self.text[:end]}, {written}{self.text[end:]}"
        column = node.start_mark.column
        if isinstance(part, int):
            lines = _lines([value])
            return self._joined(self._line_end(self._end_of(node)), lines, column)
        lines = _lines({part: value})
        if part in order[:1] and len(lines) == 1:
            start = _start(node)
            return f"{self.text[:start]}{lines[0]}\n{' ' * column}{self.text[start:]}"
        before = _preceding(node, part, order)
        end = self._end_of(node) if before is None else self._end_of(before[1], self._slot(node, before[0]))
        if node is self.root and len(lines) > 1:
            return self._joined(self._line_end(end), ["", *lines], column)
        return self._joined(self._line_end(end), lines, column)

    def _joined(self, place: int, lines: Sequence[str], column: int) -> str:
        """Insert whole lines at the beginning of a line."""
        before, after = self.text[:place], self.text[place:]
        if before and not before.endswith("\n"):
            before += "\n"
        body = "".join(f"{' ' * column}{line}".rstrip() + "\n" for line in lines)
        return before + body + after

    def _without_in_flow(self, node: Node, part: str | int) -> str:
        places = [key for key, _ in node.value] if isinstance(node, MappingNode) else list(node.value)
        index = part if isinstance(part, int) else [place.value for place in places].index(part)
        if index + 1 < len(places):
            return self.text[: _start(places[index])] + self.text[_start(places[index + 1]) :]
        values = [value for _, value in node.value] if isinstance(node, MappingNode) else places
        start = self._end_of(values[index - 1], self._slot_at(node, index - 1))
        return self.text[:start] + self.text[self._end_of(values[index], self._slot_at(node, index)) :]

    def _without_line(self, node: Node, part: str | int) -> str:
        if isinstance(node, MappingNode):
            index = [key.value for key, _ in node.value].index(part)
            key, value = node.value[index]
            start = _start(key)
            end = self._line_end(self._end_of(value, self._slot(node, part)))
            line_start = self._line_start(start)
            if self.text[line_start:start].strip():
                # It shares its line with the dash of a list: the next key takes its place.
                return self.text[:start] + self.text[_start(node.value[index + 1][0]) :]
            return self._cut(line_start, end)
        index = int(part)
        dash = self._dash(node, index)
        line_start = self._line_start(dash)
        end = self._line_end(max(self._end_of(node.value[index]), dash + 1))
        if self.text[line_start:dash].strip():
            return self.text[:dash] + self.text[self._dash(node, index + 1) :]
        return self._cut(line_start, end)

    def _cut(self, start: int, end: int) -> str:
        """Leave out whole lines, and the empty one before them where no other is left behind it."""
        before, after = self.text[:start], self.text[end:]
        if before.endswith("\n\n") and (not after or after.startswith("\n")):
            before = before[:-1]
        return before + after

    def _dash(self, node: Node, index: int) -> int:
        """Return where the dash of a block list's entry stands."""
        column = node.start_mark.column
        if index == 0:
            return _start(node)
        before = node.value[index - 1]
        place = self._line_end(self._dash(node, index - 1) + 1 if _is_empty(before) else self._end_of(before))
        while place < len(self.text):
            if self.text[place + column : place + column + 1] == "-" and not self.text[place : place + column].strip():
                return place + column
            place = self._line_end(place)
        raise AssertionError("an entry has a dash")

    def _slot(self, node: Node, part: str | int) -> int:
        """Return the place right behind a key's colon."""
        return self._slot_at(node, [key.value for key, _ in node.value].index(part))

    def _slot_at(self, node: Node, index: int) -> int:
        return self.text.index(":", _end(node.value[index][0])) + 1 if isinstance(node, MappingNode) else 0

    def _last_slot(self, node: Node) -> int:
        return self._slot_at(node, len(node.value) - 1)

    def _end_of(self, node: Node, slot: int = 0) -> int:
        """Return the place behind the last letter of a value; of an empty one `slot`."""
        if isinstance(node, ScalarNode):
            if _is_empty(node):
                return slot
            end = _end(node)
            while node.style in ("|", ">") and self.text[:end].endswith(("\n", " ")):
                end -= 1
            return end
        if _is_flow(node):
            return _end(node)
        if isinstance(node, MappingNode):
            return self._end_of(node.value[-1][1], self._last_slot(node))
        last = node.value[-1]
        return self._dash(node, len(node.value) - 1) + 1 if _is_empty(last) else self._end_of(last)

    def _line_end(self, place: int, *, with_break: bool = True) -> int:
        found = self.text.find("\n", place)
        return len(self.text) if found < 0 else found + with_break

    def _line_start(self, place: int) -> int:
        return self.text.rfind("\n", 0, place) + 1


def _preceding(node: Node, part: str, order: Sequence[str]) -> tuple[str, Node] | None:
    """Return the last key, and its value, that is written before `part` by `order`; None puts it at the end."""
    if part not in order:
        return None
    earlier = set(order[: order.index(part)])
    found = [(key.value, value) for key, value in node.value if key.value in earlier]
    return found[-1] if found else None


def _start(node: Node) -> int:
    return int(node.start_mark.index)


def _end(node: Node) -> int:
    return int(node.end_mark.index)


def _is_empty(node: Node) -> bool:
    """Whether nothing is written where the value would stand."""
    return isinstance(node, ScalarNode) and not node.style and node.value == ""


def _is_flow(node: Node) -> bool:
    """Whether a mapping or list is written in brackets."""
    return isinstance(node, CollectionNode) and bool(node.flow_style)


def _is_scalar(value: Any) -> bool:
    return not isinstance(value, dict | list | tuple) or not value or _is_short_list(value)


def _is_short_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and not any(isinstance(entry, dict | list | tuple) for entry in value)


def _can_hold(node: Node, part: str | int) -> bool:
    return isinstance(node, SequenceNode if isinstance(part, int) else MappingNode)


def _child(node: Node, part: str | int) -> Node | None:
    if isinstance(node, MappingNode):
        return next((value for key, value in node.value if key.value == part), None)
    entries: list[Node] = node.value
    return entries[part] if isinstance(part, int) and part < len(entries) else None


def _key(node: Node, part: str | int) -> Node:
    return next(key for key, _ in node.value if key.value == part)


def _last(node: Node) -> Node:
    last = node.value[-1]
    return last[1] if isinstance(node, MappingNode) else last


def _wrapped(path: Path, value: Any) -> Any:
    """Return the value inside the mappings and lists that a path names."""
    for part in reversed(path):
        value = [value] if isinstance(part, int) else {part: value}
    return value


def _lines(value: Any) -> list[str]:
    return block_lines(value)
