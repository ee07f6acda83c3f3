"""Whatever a stranger's file or command line holds, the answer is a recipe or a list of problems."""

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.recipe import RecipeProblems, describe_fields, load_recipe

KEYS = sorted({part for field in describe_fields() for part in field.key.split(".")} | {"extends", "<<", "0", "-1", ""})
TOKENS = [
    "\n",
    "\n  ",
    "\n- ",
    ": ",
    ":",
    "- ",
    "? ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "'",
    '"',
    "#",
    "&a ",
    "*a",
    "!!x ",
    "|\n",
]
TOKENS += [">\n ", "---\n", "...\n", "%YAML 1.1\n", "\t", "\x00", "\ufeff", "\x85", "\u2028", "1e-4", "0x1F", ".nan"]
TOKENS += ["9" * 50, "-.inf", "true", "no", "null", "~", "style", "hardware/12gb", "recipe.yaml", "../x.yaml", "@", "`"]

YAML_LIKE = st.lists(st.sampled_from(TOKENS + KEYS) | st.text(max_size=5), max_size=40).map("".join)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(KEYS)
KNOWN_KEYS = st.sampled_from(KEYS)
TREES: st.SearchStrategy[Any] = st.recursive(
    SCALARS | st.sampled_from(["miniature", "hub", "folder", "generated", "prodigy", "adamw", "ensemble"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KNOWN_KEYS, inner, max_size=5),
    max_leaves=25,
)
PATHS = st.lists(st.sampled_from(KEYS), min_size=1, max_size=5).map(".".join)
OVERRIDES = st.lists(st.builds("{}={}".format, PATHS, YAML_LIKE) | st.text(max_size=20), max_size=4)

VALID = """\
schema_version: 1
model: {kind: miniature}
data: {sources: [{kind: folder, path: pictures}]}
preview: {prompts: [a cat]}
"""

MANY = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def load(path: Path, content: bytes, overrides: list[str]) -> None:
    path.write_bytes(content)
    with contextlib.suppress(RecipeProblems):
        load_recipe(str(path), overrides)


@given(text=YAML_LIKE)
@MANY
def test_text_like_yaml(text: str, tmp_path: Path) -> None:
    load(tmp_path / "recipe.yaml", text.encode("utf-8", "surrogatepass"), [])


@given(content=st.binary(max_size=60))
@MANY
def test_bytes(content: bytes, tmp_path: Path) -> None:
    load(tmp_path / "recipe.yaml", content, [])


@given(tree=st.dictionaries(KNOWN_KEYS, TREES, max_size=6), overrides=OVERRIDES)
@MANY
def test_trees_of_known_keys(tree: dict[str, Any], overrides: list[str], tmp_path: Path) -> None:
    load(tmp_path / "recipe.yaml", json.dumps(tree).encode(), overrides)


@given(overrides=OVERRIDES)
@MANY
def test_overrides_of_a_valid_recipe(overrides: list[str], tmp_path: Path) -> None:
    load(tmp_path / "recipe.yaml", VALID.encode(), overrides)


@given(reference=st.text(max_size=20) | st.sampled_from(["", ".", "/", "~", "style/", "../style", "a\x00", "x" * 5000]))
@MANY
def test_references(reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeProblems):
        load_recipe(reference + "?")


@pytest.mark.parametrize(
    "unit", ["[", "{a: ", "- a\n", "a:\n ", "? ", "[,", "a ", "'", "#", "%", "\n", "!", "&a ", "a: 1\n"]
)
def test_a_mebibyte_of_anything_is_answered_soon(unit: str, tmp_path: Path) -> None:
    content = (unit * ((1 << 20) // len(unit))).encode()
    began = time.perf_counter()
    load(tmp_path / "recipe.yaml", content, [])
    assert time.perf_counter() - began < 60
