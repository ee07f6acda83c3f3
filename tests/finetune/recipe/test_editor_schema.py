"""The JSON schema accepts what ships, refuses what the loader refuses, and explains every setting."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune.recipe import json_schema, load_recipe, shipped_recipes
from finetune.recipe.yaml_text import read_yaml

SCHEMA = json_schema()
TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}
MEANT = {"$schema", "$defs", "title", "description", "default"}


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """A small validator of the keywords the schema uses; any other keyword is an error, so none goes unchecked."""
    return all(_holds(value, word, given, schema) for word, given in schema.items() if word not in MEANT)


def _holds(value: Any, word: str, given: Any, schema: dict[str, Any]) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match word:
        case "$ref":
            return fits(value, SCHEMA["$defs"][given.removeprefix("#/$defs/")])
        case "anyOf":
            return any(fits(value, choice) for choice in given)
        case "oneOf":
            return sum(fits(value, choice) for choice in given) == 1
        case "type":
            whole = given in ("integer", "number") and isinstance(value, bool)
            return isinstance(value, TYPES[given]) and not whole
        case "const":
            return bool(value == given)
        case "enum":
            return value in given
        case "minimum":
            return not number or value >= given
        case "maximum":
            return not number or value <= given
        case "exclusiveMinimum":
            return not number or value > given
        case "exclusiveMaximum":
            return not number or value < given
        case "multipleOf":
            return not number or value % given == 0
        case "minLength":
            return not isinstance(value, str) or len(value) >= given
        case "pattern":
            return not isinstance(value, str) or re.search(given, value) is not None
        case "minItems":
            return not isinstance(value, list) or len(value) >= given
        case "maxItems":
            return not isinstance(value, list) or len(value) <= given
        case "prefixItems":
            return not isinstance(value, list) or all(map(fits, value, given))
        case "items":
            return not isinstance(value, list) or all(fits(entry, given) for entry in value)
        case "required":
            return not isinstance(value, dict) or all(key in value for key in given)
        case "properties":
            return not isinstance(value, dict) or all(fits(value[key], given[key]) for key in value if key in given)
        case "additionalProperties":
            assert given is False
            return not isinstance(value, dict) or set(value) <= set(schema["properties"])
    raise AssertionError(f"a keyword this test does not know: {word}")


def written(text: str) -> Any:
    node = read_yaml(text, lambda line: f"line {line}", [])
    assert node is not None
    return node.plain()


VALID: dict[str, Any] = {
    "schema_version": 1,
    "model": {"kind": "miniature"},
    "data": {"sources": [{"kind": "folder", "path": "x"}]},
}


def test_shipped_recipes_fit_as_written_and_as_resolved() -> None:
    for shipped in shipped_recipes():
        assert fits(written(shipped.path.read_text("utf-8")), SCHEMA), shipped.name
        assert fits(load_recipe(shipped.name).model_dump(mode="json"), SCHEMA), shipped.name


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"extends": ["style", "hardware/24gb"]},
        {"training": {"optimizer": {"weight_decay": 0.1}}},
        {"training": {"optimizer": {"kind": "prodigy", "d_coef": 2}, "lr_schedule": {"warmup_steps": 3}}},
        {"preview": {"prompts": ["a", {"prompt": "b", "size": [64, 64]}]}},
        {"adapter": {"unet": {"targets": ["attn2.to_k"], "alpha": None}, "text_encoder": {}}},
        {"refiner": None},
        {"data": {"sources": [{"kind": "folder", "path": "x", "wording": {"shuffle": True, "variants": None}}]}},
    ],
)
def test_what_the_loader_takes_fits(change: dict[str, Any], tmp_path: Path) -> None:
    assert fits({**VALID, **change}, SCHEMA)
    (tmp_path / "recipe.yaml").write_text(json.dumps({**VALID, **change}))
    load_recipe(str(tmp_path / "recipe.yaml"))


@pytest.mark.parametrize(
    "change",
    [
        {"sed": 1},
        {"seed": -1},
        {"seed": "1"},
        {"schema_version": 2},
        {"model": {"kind": "mini"}},
        {"model": {"kind": "hub", "id": "x"}},
        {"model": {}},
        {"data": {"sources": []}},
        {"data": {"sources": [{"kind": "folder", "path": "x", "wording": {"separator": ""}}]}},
        {"data": {"sources": [{"kind": "folder", "path": "x", "wording": {"tag_dropout": 1.5}}]}},
        {"training": {"optimizer": {"kind": "auto", "d_coef": 2}}},
        {"training": {"optimizer": {"betas": [0.9]}}},
        {"preview": {"prompts": [3]}},
        {"preview": {"prompts": [{"prompt": "a", "size": [65, 64]}]}},
        {"adapter": {"unet": {"rank": 0}}},
        {"adapter": {"unet": {"targets": "everything"}}},
        {"export": {"formats": []}},
    ],
)
def test_what_the_loader_refuses_does_not_fit(change: dict[str, Any]) -> None:
    assert not fits({**VALID, **change}, SCHEMA)


def test_a_file_that_extends_nothing_needs_model_and_data() -> None:
    assert fits({"extends": "style"}, SCHEMA)
    assert not fits({"schema_version": 1}, SCHEMA)


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        part = list(part.values())
    if isinstance(part, list):
        for entry in part:
            yield from references(entry)


def test_it_is_whole_and_explains_every_setting() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    assert {reference.removeprefix("#/$defs/") for reference in references(SCHEMA)} == set(SCHEMA["$defs"])
    for name, definition in [("Recipe", SCHEMA), *SCHEMA["$defs"].items()]:
        for key, value in definition["properties"].items():
            section = SCHEMA["$defs"].get(value.get("$ref", "").removeprefix("#/$defs/"), {})
            assert value.get("description") or section.get("description"), f"{name}.{key}"


def test_two_calls_do_not_share_their_answer() -> None:
    json_schema()["properties"].clear()
    assert json_schema() == SCHEMA
