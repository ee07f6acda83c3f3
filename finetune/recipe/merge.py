"""Lays one tree of settings over another.

Mappings are merged key by key, lists are replaced whole, and a mapping whose `kind` changes is replaced whole, so that
no setting of the old kind is left behind.
"""

from typing import Any

from finetune.recipe.walk import Shape, field_types, shape_of
from finetune.recipe.yaml_text import Node


def merge(base: Node, over: Node, annotation: Any) -> Node:
    """Lay `over` on `base`: mappings key by key, anything else replaced; a changed `kind` replaces its mapping."""
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    shape = shape_of(annotation)
    if "kind" in over.value and _kind(over, shape) != _kind(base, shape):
        return over
    merged = dict(base.value)
    together = Node({**base.value, **over.value}, over.where)
    for key, value in over.value.items():
        merged[key] = merge(merged[key], value, child_type(shape, together, key)) if key in merged else value
    return Node(merged, over.where)


def child_type(shape: Shape, mapping: Node, key: str) -> Any:
    """Return the annotation of a key inside a mapping, or None where the schema knows no such key."""
    section = shape.variant(_kind(mapping, shape))
    return None if section is None else field_types(section).get(key)


def _kind(mapping: Node, shape: Shape) -> Any:
    assert isinstance(mapping.value, dict), "only a mapping has a kind"
    return mapping.value["kind"].value if "kind" in mapping.value else shape.default_kind
