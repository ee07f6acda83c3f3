"""Reads overrides, `key.path=value`, and lays them on a recipe's tree.

A list's entry is named by its number from 0 (`preview.prompts.0.seed=3`). A value is one YAML value: `1e-4` is a
number, `no` is text, `[64, 64]` a list; text needs quotes only where it would mean something else. Changing a `kind`
drops the settings of the old kind that the new one does not share.
"""

from dataclasses import dataclass
from typing import Any

from finetune.recipe.merge import child_type, merge
from finetune.recipe.messages import key_text
from finetune.recipe.problems import Problem, shown
from finetune.recipe.walk import Shape, shape_of
from finetune.recipe.yaml_text import MAX_DEPTH, Node, plain_scalar, read_yaml


def apply_override(root: Node, text: str, type_: Any, problems: list[Problem]) -> Node:
    """Apply one `key.path=value`; a malformed one is noted and changes nothing."""
    where = f"override {shown(text)}"
    key, equals, value_text = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        problems.append(Problem(where, "", "needs the form key.path=value, such as training.steps=500"))
        return root
    if len(parts) > MAX_DEPTH:
        problems.append(Problem(where, "", f"names a key more than {MAX_DEPTH} deep"))
        return root
    if parts[0] == "extends":
        problems.append(Problem(where, "extends", "stands only in a file, not in an override"))
        return root
    value = _read_value(value_text.strip(), where, problems)
    if value is None:
        return root
    return _Put(value, problems).into(root, parts, type_, ())


def _read_value(text: str, where: str, problems: list[Problem]) -> Node | None:
    """Read a value: quoted text and brackets as YAML, anything else as one plain value (so `a: b` is text)."""
    if text.startswith(("[", "{", "'", '"')):
        return read_yaml(text, lambda _line: where, problems)
    return Node("" if text == "" else plain_scalar(text), where)


@dataclass(frozen=True)
class _Put:
    """Puts one value at the end of a path."""

    value: Node
    problems: list[Problem]

    def into(self, node: Node | None, parts: list[str], annotation: Any, path: tuple[str, ...]) -> Node:
        """Return `node` with `value` at the end of `parts`; mappings and lists on the way are made where needed."""
        if not parts:
            return self.value if node is None else merge(node, self.value, annotation)
        head, rest = parts[0], parts[1:]
        shape = shape_of(annotation)
        current = None if node is None else node.value
        if isinstance(current, list) or (not isinstance(current, dict) and shape.item is not None and head.isdecimal()):
            return self._into_list(node, parts, shape, path)
        if isinstance(current, str) and shape.shorthand is not None and node is not None:
            current = {shape.shorthand: node}
        entries = current if isinstance(current, dict) else {}
        here = node.where if node is not None and isinstance(current, dict) else self.value.where
        mapping = Node(entries, here)
        if head == "kind" and not rest:
            return merge(mapping, Node({"kind": self.value}, here), annotation)
        changed = self.into(entries.get(head), rest, child_type(shape, mapping, head), (*path, head))
        return Node({**entries, head: changed}, here)

    def _into_list(self, node: Node | None, parts: list[str], shape: Shape, path: tuple[str, ...]) -> Node:
        head, rest = parts[0], parts[1:]
        items = list(node.value) if node is not None and isinstance(node.value, list) else []
        unchanged = node if node is not None else Node(items, self.value.where)
        if not (head.isdecimal() and head.isascii() and len(head) <= 6 and int(head) <= len(items)):
            last = f"0 to {len(items) - 1}, or {len(items)} to add one" if items else "0 to add the first"
            key = key_text((*path, head))
            self.problems.append(
                Problem(self.value.where, key, f"got {shown(head)}, needs an entry of the list: {last}")
            )
            return unchanged
        index = int(head)
        child = shape.item if shape.item is not None else shape.items[index] if index < len(shape.items) else None
        changed = self.into(items[index] if index < len(items) else None, rest, child, (*path, head))
        items[index : index + 1] = [changed]
        return Node(items, unchanged.where)
