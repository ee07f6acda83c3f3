"""Weights in a text: what is bracketed weighs what it says, everything else stays text to the letter."""

import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesets.emphasis import MAX_WEIGHT, Segment, parse_weights, places_in, split_outside_brackets

ANYTHING = st.text("ab ,:1.2()[]\\", max_size=40)
UP, DOWN = 1.1, round(1 / 1.1, 6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("a cat", [("a cat", 1.0)]),
        ("a (cat)", [("a ", 1.0), ("cat", UP)]),
        ("((cat)) (((cat)))", [("cat", 1.21), (" ", 1.0), ("cat", 1.331)]),
        ("[cat] [[cat]]", [("cat", DOWN), (" ", 1.0), ("cat", 0.826446)]),
        ("a (red cat:1.3), x", [("a ", 1.0), ("red cat", 1.3), (", x", 1.0)]),
        ("(cat : 0.5 ) (cat:.5) (cat:2.)", [("cat ", 0.5), (" ", 1.0), ("cat", 0.5), (" ", 1.0), ("cat", 2.0)]),
        ("(a (b:2) c:3)", [("a ", 3.0), ("b", 6.0), (" c", 3.0)]),
        ("(a (b):3)", [("a ", 3.0), ("b", 3.3)]),
        ("([a])", [("a", 1.0)]),
        ("(a:0)", [("a", 0.0)]),
        ("(a:1.0) b", [("a b", 1.0)]),
        (r"cat \(animal\)", [("cat (animal)", 1.0)]),
        (r"(cat \(animal\):1.2)", [("cat (animal)", 1.2)]),
        (r"(a\:1.2)", [("a\\", 1.2)]),
        (r"\[a\] \\ \a", [(r"[a] \\ \a", 1.0)]),
        ("(a:-1)", [("a:-1", UP)]),
        ("(a:1,2)", [("a:1,2", UP)]),
        ("[a:1.2]", [("a:1.2", DOWN)]),
        ("(a:b:2)", [("a:b", 2.0)]),
        ("() (:1.2) [ ] :) :(", [("() (:1.2) [ ] :) :(", 1.0)]),
        ("(a", [("(a", 1.0)]),
        ("a) b]", [("a) b]", 1.0)]),
        ("((a)", [("(", 1.0), ("a", UP)]),
        ("(a [b) c]", [("a [b", UP), (" c]", 1.0)]),
        ("(a:1e9) (a:999)", [("a:1e9", UP), (" ", 1.0), ("a", MAX_WEIGHT)]),
    ],
)
def test_by_hand(text: str, expected: list[tuple[str, float]]) -> None:
    assert parse_weights(text) == [Segment(*piece) for piece in expected]


@given(st.text(max_size=60).filter(lambda text: not set("()[]") & set(text)))
def test_a_text_without_brackets_is_itself(text: str) -> None:
    assert parse_weights(text) == ([Segment(text, 1.0)] if text else [])


@given(st.text("ab ,:1()[]", max_size=40))
def test_escaped_brackets_are_text(text: str) -> None:
    escaped = re.sub(r"([()\[\]])", r"\\\1", text)
    assert parse_weights(escaped) == ([Segment(text, 1.0)] if text else [])


TREES: Any = st.recursive(
    st.text("ab ,", min_size=1, max_size=5).filter(str.strip),
    lambda inner: st.tuples(st.sampled_from(["()", "[]", "1.5", "0.25"]), st.lists(inner, min_size=1, max_size=3)),
    max_leaves=12,
)


def _written(tree: Any) -> str:
    if isinstance(tree, str):
        return tree
    kind, inner = tree
    content = "".join(map(_written, inner))
    return {"()": f"({content})", "[]": f"[{content}]"}.get(kind, f"({content}:{kind})")


def _letters(tree: Any, weight: float) -> list[tuple[str, float]]:
    if isinstance(tree, str):
        return [(letter, weight) for letter in tree]
    kind, inner = tree
    factor = {"()": 1.1, "[]": 1 / 1.1, "1.5": 1.5, "0.25": 0.25}[kind]
    return [letter for each in inner for letter in _letters(each, weight * factor)]


@given(st.lists(TREES, max_size=4))
def test_every_letter_weighs_what_its_brackets_multiply_to(trees: list[Any]) -> None:
    expected = [letter for tree in trees for letter in _letters(tree, 1.0)]
    segments = parse_weights("".join(map(_written, trees)))
    found = [(letter, segment.weight) for segment in segments for letter in segment.text]
    assert "".join(letter for letter, _ in found) == "".join(letter for letter, _ in expected)
    for (_, weight), (_, wanted) in zip(found, expected, strict=True):
        assert weight == pytest.approx(min(wanted, MAX_WEIGHT), abs=1e-6)


@given(ANYTHING)
def test_anything_is_read_and_nothing_is_made_up(text: str) -> None:
    segments = parse_weights(text)
    places = places_in(text)
    assert places == sorted(set(places))
    assert "".join(text[place] for place in places) == "".join(segment.text for segment in segments)
    assert all(segment.text and 0.0 <= segment.weight <= MAX_WEIGHT for segment in segments)
    assert all(one.weight != other.weight for one, other in pairwise(segments))


@given(ANYTHING)
def test_parts_joined_again_are_the_text(text: str) -> None:
    assert ",".join(split_outside_brackets(text, ",")) == text


@pytest.mark.parametrize(
    ("text", "separator", "expected"),
    [
        ("a, (b, c:1.2), d", ",", ["a", " (b, c:1.2)", " d"]),
        ("a, (b, c, d", ",", ["a", " (b", " c", " d"]),
        (r"a \(x, y\), b", ",", [r"a \(x", r" y\)", " b"]),
        ("a [b  c] d", "", ["a", "[b  c]", "d"]),
        ("a, ((b, c), d), e", ",", ["a", " ((b, c), d)", " e"]),
    ],
)
def test_a_separator_counts_outside_brackets(text: str, separator: str, expected: list[str]) -> None:
    assert split_outside_brackets(text, separator) == expected


@pytest.mark.parametrize(
    "text", ["(" * 50_000, "[(" * 25_000 + ")" * 25_000, "(a" * 20_000 + ":2)" * 20_000, "(" + " " * 60_000 + ")",
             "(a:" + "1" * 60_000 + "x)", "(a:" + "9" * 60_000 + ")", "(a" + ":" * 60_000 + ")"],
    ids=["open", "crossed", "deep", "blank", "digits", "number", "colons"],
)  # fmt: skip
def test_hostile_texts_cost_no_more_than_their_length(text: str) -> None:
    """Each would take minutes, or overflow, where the cost grows by the square of the length."""
    assert len("".join(segment.text for segment in parse_weights(text))) <= len(text)
