"""Lays one tree of settings over another.

Mappings are merged key by key, lists are replaced whole, and a mapping whose `kind` changes is replaced, so that no
setting of the old kind is left behind; what both kinds share (`Settings.shared_by_kinds`) stays.
"""

from typing import Any

from finetune.recipe.base import Settings
from finetune.recipe.walk import Shape, field_types, shape_of
from finetune.recipe.yaml_text import Node


def merge(base: Node, over: Node, annotation: Any) -> Node:
    """Lay `over` on `base`: mappings key by key, anything else replaced; a changed `kind` drops what is not shared."""
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    shape = shape_of(annotation)
    merged = dict(base.value)
    if "kind" in over.value and _kind(over, shape) != _kind(base, shape):
        shared = _shared(shape.variant(_kind(base, shape)), shape.variant(_kind(over, shape)))
        merged = {key: value for key, value in merged.items() if key in shared}
    together = Node({**merged, **over.value}, over.where)
    for key, value in over.value.items():
        merged[key] = merge(merged[key], value, child_type(shape, together, key)) if key in merged else value
    return Node(merged, over.where)


def child_type(shape: Shape, mapping: Node, key: str) -> Any:
    """Return the annotation of a key inside a mapping, or None where the schema knows no such key."""
    section = shape.variant(_kind(mapping, shape))
    return None if section is None else field_types(section).get(key)


def _shared(old: type[Settings] | None, new: type[Settings] | None) -> frozenset[str]:
    return frozenset() if old is None or new is None else old.shared_by_kinds & new.shared_by_kinds


def _kind(mapping: Node, shape: Shape) -> Any:
    assert isinstance(mapping.value, dict), "only a mapping has a kind"
    return mapping.value["kind"].value if "kind" in mapping.value else shape.default_kind
