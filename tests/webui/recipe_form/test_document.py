"""Edits of a text mean what was asked for, and every other line stays as it is."""

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.recipe import RecipeProblems, shipped_profiles, shipped_recipes
from webui.recipe_form.document import Path, Typed, read, remove, same, set_value, value_at

SHIPPED = [shipped.path.read_text("utf-8") for shipped in [*shipped_recipes(), *shipped_profiles()]]

HAND_MADE = """\
# head

extends: [character, hardware/12gb]   # two
schema_version: 1
name:
purpose: 'it''s mine' # kept
data:
  sources:
  - kind: folder   # dash under the key
    path: a
  -
    kind: kohya
    path: "b: c"
  - {kind: folder, path: c}
  # behind the sources
  background: "#ffffff"
training: {steps: 12, objective: {snr_gamma: 5, timesteps: {}}, optimizer: {betas: [0.9, 0.99]}}
preview:
  prompts:
    - "one"
    - prompt: |
        two
        lines

    -
    - >-
      folded
      text
  # last words
  size: [64,
    64]
empty: {}
none: []"""

TEXTS = st.sampled_from([*SHIPPED, HAND_MADE])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False)
    | st.text(max_size=30).filter(lambda text: not any(0xD800 <= ord(sign) < 0xE000 for sign in text))
    | st.sampled_from(["no", "1e-4", "# not a comment", "a: b", "{x}", "[x]", "- x", "'", '"', " x ", "*a", "&b", "!t"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc_", min_size=1, max_size=5), inner),
    max_leaves=6,
)


def paths(data: Any, before: Path = ()) -> list[Path]:
    found: list[Path] = [before] if before else []
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in entries:
        found += paths(value, (*before, key))
    return found


def put(data: Any, path: Path, value: Any) -> Any:
    data = copy.deepcopy(data)
    place = value_at(data, path[:-1])
    if isinstance(place, list) and path[-1] == len(place):
        place.append(value)
    else:
        place[path[-1]] = value
    return data


def comments(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip().startswith("#")]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=TEXTS, value=VALUES, choice=st.randoms(use_true_random=False))
def test_what_is_set_is_read(text: str, value: Any, choice: Any) -> None:
    data = read(text)
    path = choice.choice(paths(data))
    assert same(read(set_value(text, path, value)), put(data, path, value))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=TEXTS, value=VALUES, choice=st.randoms(use_true_random=False))
def test_what_is_added_is_read_and_every_line_is_still_there(text: str, value: Any, choice: Any) -> None:
    data = read(text)
    holders = [path for path in [(), *paths(data)] if isinstance(value_at(data, path), dict | list)]
    path = choice.choice(holders)
    holder = value_at(data, path)
    new: Path = (*path, len(holder) if isinstance(holder, list) else "zz_new")
    changed = set_value(text, new, value)
    assert same(read(changed), put(data, new, value))
    lines = changed.split("\n")
    is_in_line = not holder and path  # `{}` and `[]` become a block or stay in line
    for line in text.split("\n"):
        if line in lines:
            lines.remove(line)
        else:
            assert is_in_line or set("{}[]") & set(line), line  # a line in brackets that took it up


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=TEXTS, choice=st.randoms(use_true_random=False))
def test_what_is_removed_is_gone_and_nothing_else(text: str, choice: Any) -> None:
    data = read(text)
    path = choice.choice(paths(data))
    expected = copy.deepcopy(data)
    del value_at(expected, path[:-1])[path[-1]]
    assert same(read(remove(text, path)), expected)


def test_a_changed_number_changes_its_letters_alone() -> None:
    text = next(text for text in SHIPPED if "trigger: zrkx" in text)
    changed = set_value(text, ("training", "steps"), 900)
    assert changed == text.replace("steps: 1200", "steps: 900")
    assert set_value(text, ("adapter", "unet", "learning_rate"), Typed("5e-5")) == text.replace("1e-4", "5e-5")
    assert set_value(changed, ("training", "steps"), 1200) == text


def test_a_key_added_and_removed_again_leaves_the_text_as_it_was() -> None:
    for text in SHIPPED:
        added = set_value(text, ("training", "ema", "decay"), 0.5)
        if "ema" not in read(text)["training"]:
            assert added != text
            assert remove(added, ("training", "ema")) == text


def test_new_keys_stand_in_the_order_of_the_schema() -> None:
    order = {(): ("extends", "schema_version", "name", "data")}
    text = set_value(
        "extends: style\nschema_version: 1\n\ndata:\n  x: 1\n", ("name",), "me", lambda p: order.get(p, ())
    )
    assert text == "extends: style\nschema_version: 1\nname: me\n\ndata:\n  x: 1\n"


def test_an_empty_text_takes_a_first_setting() -> None:
    assert set_value("", ("training", "steps"), 5) == "training:\n  steps: 5\n"
    assert set_value("# only words", ("name",), "me") == "# only words\nname: me\n"


@pytest.mark.parametrize("text", ["a: [", "a: 1\na: 2\n", "a: &x 1\nb: *x\n", "- 1\n", "a: !!python/none x\n"])
def test_a_text_that_cannot_be_read_is_not_edited(text: str) -> None:
    with pytest.raises(RecipeProblems):
        set_value(text, ("b",), 1)
