"""The recipe's JSON schema, draft 2020-12, for editors: completion, tooltips and underlined mistakes while typing.

It describes a file as it is written, so it knows `extends` and asks for less of a file that extends another. It cannot
say what holds between settings (a batch that divides another); `load_recipe` does.
"""

from typing import Any

from finetune.recipe.schema import Recipe

_EXTENDS = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    "title": "Extends",
    "description": "A shipped recipe or profile by name, a .yaml file relative to this one, or a list of them; this "
    "file wins over what it extends, a later entry over an earlier.",
}


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe's file as plain data."""
    schema = Recipe.model_json_schema(mode="validation")
    required = schema.pop("required")
    _tell_kinds_apart(schema, schema["$defs"])
    schema["properties"] = {"extends": _EXTENDS, **schema["properties"]}
    # What a base fills in need not stand in the file that extends it.
    schema["anyOf"] = [{"required": ["extends"]}, {"required": required}]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Atelier recipe",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def _tell_kinds_apart(part: Any, definitions: dict[str, Any]) -> None:
    """Let exactly one kind fit in every `oneOf`: a kind that is not the default has to be named.

    pydantic marks no `kind` as required, because each has a default in Python, so a mapping without one would fit
    several kinds and an editor would refuse it. `discriminator`, which belongs to OpenAPI, is left out.
    """
    if isinstance(part, list):
        for entry in part:
            _tell_kinds_apart(entry, definitions)
    if not isinstance(part, dict):
        return
    part.pop("discriminator", None)
    default = part.get("default")
    default_kind = default.get("kind") if isinstance(default, dict) else None
    for choice in part.get("oneOf", []):
        definition = definitions.get(choice.get("$ref", "").rpartition("/")[2], {})
        kind = definition.get("properties", {}).get("kind")
        if kind is not None and kind["const"] != default_kind:
            definition["required"] = sorted({"kind", *definition.get("required", [])})
    for entry in part.values():
        _tell_kinds_apart(entry, definitions)
