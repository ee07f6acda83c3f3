"""Strict YAML 1.2 with the line of every value.

Takes what ruamel.yaml's parser reports and builds plain values from it: mappings, lists, text, numbers by the core
schema of YAML 1.2 (so `1e-4` is a number and `no` is text). Refuses what a recipe has no use for and a stranger's file
could hurt with: tags, anchors and aliases, duplicate keys, several documents, great depth, size or number of values.
It knows nothing about recipes.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from finetune.recipe.problems import Problem, shown

MAX_BYTES = 1 << 20
MAX_DEPTH = 20
MAX_VALUES = 20_000

Scalar: TypeAlias = str | int | float | bool | None
Place: TypeAlias = Callable[[int | None], str]
"""Turns a line, counted from 1, into what a message begins with, such as `recipe.yaml:12`."""


@dataclass(frozen=True)
class Node:
    """A value and where it was written: the line of its key in a mapping, of its first character elsewhere."""

    value: "Scalar | dict[str, Node] | list[Node]"
    where: str

    def plain(self) -> Any:
        """Return the value as plain Python data, without places."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


_NULL = {"", "~", "null", "Null", "NULL"}
_TRUE = {"true", "True", "TRUE"}
_FALSE = {"false", "False", "FALSE"}
_INT = re.compile(r"[-+]?[0-9]{1,40}")
_BASED = re.compile(r"0o[0-7]{1,40}|0x[0-9a-fA-F]{1,40}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,10})?")
_INFINITE = re.compile(r"([-+]?)(\.inf|\.Inf|\.INF)")


def plain_scalar(text: str) -> Scalar:
    """Return what an unquoted scalar means by YAML 1.2's core schema; everything else is text."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INT.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if len(text) <= 400 and _FLOAT.fullmatch(text):
        return float(text)
    if found := _INFINITE.fullmatch(text):
        return float(f"{found[1]}inf")
    return float("nan") if text in {".nan", ".NaN", ".NAN"} else text


def read_yaml(text: str, place: Place, problems: list[Problem]) -> Node | None:
    """Build the one document of `text`; what is wrong with it is added to `problems`.

    Duplicate keys are all noted and the first of each is kept; None when the text cannot be read to its end.
    """
    if len(text) > MAX_BYTES:
        problems.append(Problem(place(None), "", f"longer than a recipe may be ({MAX_BYTES >> 20} MiB)"))
        return None
    try:
        return _Builder(place, problems).document(YAML(typ="safe", pure=True).parse(text))
    except _RefusedError as refused:
        problems.append(refused.problem)
    except MarkedYAMLError as error:
        opened = str(error.context).startswith(_OPENED)
        mark = error.context_mark if opened else error.problem_mark or error.context_mark
        line = None if mark is None else int(mark.line) + 1
        problems.append(Problem(place(line), "", f"not readable as YAML: {_plain_reason(error)}"))
    except (YAMLError, ValueError) as error:
        reason = str(error).split("\n")[0]
        problems.append(Problem(place(None), "", f"not readable as YAML: {reason}"))
    return None


_OPENED = ("while scanning a quoted scalar", "while parsing a flow")
"""What can be left open: the line where it was opened says more than the one where its end is missed."""

_REASONS = {
    "mapping values are not allowed here": "a ': ' stands where no key can be; put text that holds ': ' in quotes, "
    "and indent the keys of one section alike",
    "could not find expected ':'": "a key without ': ' after it",
    "while scanning a quoted scalar": "a quote is opened and not closed",
    "while scanning a simple key": "a key without ': ' after it",
    "found character '\\t' that cannot start any token": "a tab; indent with spaces",
    "while parsing a block mapping": "a line that does not line up with the keys above it",
    "expected the node content": "a value is missing, or a bracket is not closed",
    "found character '@'": "text that begins with '@' needs quotes",
    "found character '`'": "text that begins with '`' needs quotes",
    "found unknown escape": "a backslash in double quotes; use single quotes, which leave backslashes alone",
    "while parsing a flow mapping": "a '{' without its '}', or a ',' is missing",
    "while parsing a flow sequence": "a '[' without its ']', or a ',' is missing",
    "while parsing a block collection": "a line that does not line up with the list above it",
}


def _plain_reason(error: MarkedYAMLError) -> str:
    for text in (error.problem, error.context):
        for start, reason in _REASONS.items():
            if text and text.startswith(start):
                return reason
    return str(error.problem or error.context or "it breaks off").split("\n")[0]


class _RefusedError(Exception):
    """Carries the problem that ends the reading of a text out of the builder; never leaves this module."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(str(problem))


class _Builder:
    """Turns the parser's events into a Node, noting duplicate keys and stopping at what is refused."""

    def __init__(self, place: Place, problems: list[Problem]) -> None:
        self.place = place
        self.problems = problems
        self.num_values = 0

    def document(self, events: Iterator[Any]) -> Node:
        root: Node | None = None
        for event in events:
            if isinstance(event, DocumentStartEvent) and root is not None:
                self._stop(event, "a second document ('---'); a recipe is one")
            if isinstance(event, NodeEvent):
                root = self._node(event, events, depth=1)
        return Node(None, self.place(1)) if root is None else root

    def _node(self, event: Any, events: Iterator[Any], depth: int, where: str | None = None) -> Node:
        self._refuse(event, depth)
        where = where or self._where(event)
        if isinstance(event, MappingStartEvent):
            return Node(self._mapping(events, depth), where)
        if isinstance(event, SequenceStartEvent):
            items: list[Node] = []
            while not isinstance(item := next(events), SequenceEndEvent):
                items.append(self._node(item, events, depth + 1))
            return Node(items, where)
        is_plain = isinstance(event, ScalarEvent) and not event.style
        return Node(plain_scalar(event.value) if is_plain else event.value, where)

    def _mapping(self, events: Iterator[Any], depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        while not isinstance(key_event := next(events), MappingEndEvent):
            self._refuse(key_event, depth)
            if not isinstance(key_event, ScalarEvent):
                self._stop(key_event, "a key that is a mapping or list; a key is a word")
            key, where = str(key_event.value), self._where(key_event)
            value = self._node(next(events), events, depth + 1, where)
            if key in entries:
                first = entries[key].where
                self.problems.append(Problem(where, "", f"the key {shown(key)} is given twice (first at {first})"))
            else:
                entries[key] = value
        return entries

    def _refuse(self, event: Any, depth: int) -> None:
        self.num_values += 1
        if isinstance(event, AliasEvent):
            self._stop(event, f"an alias ('*{event.anchor}'); anchors and aliases are refused, write the value out")
        if event.anchor is not None:
            self._stop(event, f"an anchor ('&{event.anchor}'); anchors and aliases are refused, write the value out")
        if event.tag is not None:
            named = shown(str(event.tag))
            self._stop(event, f"a tag ({named}); tags are refused, put text that begins with '!' in quotes")
        if depth > MAX_DEPTH:
            self._stop(event, f"nested more than {MAX_DEPTH} deep")
        if self.num_values > MAX_VALUES:
            self._stop(event, f"more than {MAX_VALUES} values")

    def _where(self, event: Any) -> str:
        return self.place(int(event.start_mark.line) + 1)

    def _stop(self, event: Any, reason: str) -> NoReturn:
        raise _RefusedError(Problem(self._where(event), "", reason))
