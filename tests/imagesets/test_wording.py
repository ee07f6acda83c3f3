"""Wordings are pure functions of their key: tags are permuted and dropped, never made up, and kept ones stay."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesets.wording import Wording, num_wordings, plain_words, word

WORDS = st.text("abcdefgh ", min_size=1, max_size=6).map(lambda text: " ".join(text.split())).filter(bool)
TAGS = st.lists(WORDS, max_size=12)
KEYS = st.tuples(st.integers(0, 99), st.just("caption"), st.integers(0, 99))
WORDINGS = st.builds(
    Wording,
    keep_first=st.integers(0, 5),
    shuffle=st.booleans(),
    tag_dropout=st.sampled_from([0.0, 0.3, 1.0]),
    wildcards=st.booleans(),
    choose_line=st.booleans(),
    prefix=st.sampled_from(["", "a photo of", "photo,"]),
    suffix=st.sampled_from(["", ", sharp", "on grey"]),
    variants=st.sampled_from([None, 1, 3]),
)


def split(caption: str) -> list[str]:
    return caption.split(", ") if caption else []


@given(st.text("abc,{}|\\ ", max_size=40))
def test_as_it_stands_nothing_is_done(text: str) -> None:
    caption = " ".join(text.split())
    assert word(caption, Wording(), (1,)) == plain_words(caption, Wording()) == caption


@given(TAGS, KEYS, st.integers(0, 14))
def test_shuffling_is_a_permutation_of_all_but_the_first(tags: list[str], key, kept: int) -> None:
    worded = split(word(", ".join(tags), Wording(shuffle=True, keep_first=kept), key))
    assert sorted(worded) == sorted(tags)
    assert worded[:kept] == tags[:kept]


@given(TAGS, KEYS, st.integers(0, 14), st.sampled_from([0.2, 0.7, 1.0]))
def test_what_is_left_stands_in_its_order_behind_the_kept(tags: list[str], key, kept: int, dropout: float) -> None:
    numbered = [f"{tag} {place}" for place, tag in enumerate(tags)]
    worded = split(word(", ".join(numbered), Wording(tag_dropout=dropout, keep_first=kept), key))
    assert worded[:kept] == numbered[:kept]
    places = [numbered.index(tag) for tag in worded]
    assert places == sorted(set(places))
    if dropout == 1.0:
        assert worded == numbered[:kept]


@given(TAGS, KEYS, WORDINGS)
def test_one_key_gives_one_wording(tags: list[str], key, wording: Wording) -> None:
    caption = ", ".join(tags)
    assert word(caption, wording, key) == word(caption, replace(wording), tuple(key))


@given(TAGS, TAGS, TAGS, KEYS, st.sampled_from([0.0, 0.5, 1.0]), st.booleans())
def test_what_signs_part_off_is_kept_at_both_ends(
    front: list[str], middle: list[str], back: list[str], key, dropout: float, shuffle: bool
) -> None:
    wording = Wording(shuffle=shuffle, tag_dropout=dropout, keep_separator="|||", keep_first=3)
    caption = "|||".join(", ".join(part) for part in (front, middle, back))
    worded = split(word(caption, wording, key))
    assert worded[: len(front)] == front
    assert worded[len(worded) - len(back) :] == back
    left = worded[len(front) : len(worded) - len(back)]
    assert not Counter(left) - Counter(middle)
    assert dropout > 0 or sorted(left) == sorted(middle)
    assert split(plain_words(caption, wording)) == [*front, *middle, *back]
    assert word(", ".join(middle), wording, key) == word(", ".join(middle), replace(wording, keep_separator=""), key)


def test_signs_are_gone_in_the_end() -> None:
    """As kohya's documentation gives it: one sign keeps both ends, another holds tags together as one."""
    caption = "1girl, hatsune miku ||| stage, sky;;;cloud ;;; day, smile ||| best quality, rating: general"
    wording = Wording(shuffle=True, keep_separator="|||", secondary_separator=";;;")
    orders = {word(caption, wording, (turn,)) for turn in range(100)}
    assert len(orders) == 6
    front, back = "1girl, hatsune miku, ", ", best quality, rating: general"
    assert {order[len(front) : -len(back)] for order in orders} >= {"sky, cloud, day, smile, stage"}
    assert all(order.startswith(front) and order.endswith(back) and "sky, cloud, day" in order for order in orders)
    undrawn = replace(wording, shuffle=False)
    assert word(caption, undrawn, (1,)) == plain_words(caption, undrawn) == plain_words(caption, wording)
    assert word("a ||| b ||| c ||| d", undrawn, (1,)) == "a, b, c, d"


def test_ends_that_hold_the_sign_are_parted_with_the_caption() -> None:
    wording = Wording(shuffle=True, keep_separator="|||", prefix="1girl |||", suffix=", grainy ||| sharp")
    orders = {word("tall, old", wording, (turn,)) for turn in range(100)}
    assert len(orders) == 6
    assert all(order.startswith("1girl, ") and order.endswith(", sharp") for order in orders)
    assert plain_words("tall, old", wording) == "1girl, tall, old, grainy, sharp"
    assert plain_words("", wording) == "1girl, grainy, sharp"
    assert word("tall, old ||| near", replace(wording, suffix=""), (1,)).endswith(", near")


TEN = ", ".join(f"tag{number}" for number in range(10))


def test_another_key_gives_another_order_and_all_orders_come_up() -> None:
    orders = {word(TEN, Wording(shuffle=True), (seed,)) for seed in range(100)}
    assert len(orders) == 100
    three = [word("a, b, c", Wording(shuffle=True), (0, turn)) for turn in range(6000)]
    counts = {order: three.count(order) for order in set(three)}
    assert len(counts) == 6
    assert all(abs(count - 1000) < 5 * 29 for count in counts.values()), counts  # five deviations


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_tags_are_dropped_as_often_as_asked(rate: float) -> None:
    wording = Wording(tag_dropout=rate, keep_first=2, shuffle=True)
    left = [split(word(TEN, wording, (7, turn))) for turn in range(1000)]
    deviation = (rate * (1 - rate) / 1000) ** 0.5
    for number in range(2, 10):
        dropped = sum(f"tag{number}" not in tags for tags in left) / 1000
        assert abs(dropped - rate) < 5 * deviation, number
    assert all(tags[:2] == ["tag0", "tag1"] for tags in left)


def test_dropping_and_shuffling_do_not_go_together() -> None:
    """Whether tags are dropped does not change the order of the others."""
    for turn in range(50):
        both = split(word(TEN, Wording(shuffle=True, tag_dropout=0.5), (turn,)))
        assert [tag for tag in split(word(TEN, Wording(shuffle=True), (turn,))) if tag in both] == both


@pytest.mark.parametrize(
    ("caption", "choices"),
    [
        ("a {red|blue} star", {"a red star", "a blue star"}),
        ("a {red|{dark |}blue} star", {"a red star", "a dark blue star", "a blue star"}),
        ("{{a|b}|c} d", {"a d", "b d", "c d"}),
        ("{a|b}{c|d}", {"ac", "ad", "bc", "bd"}),
        ("a { star", {"a { star"}),
        ("a } star | b", {"a } star | b"}),
        ("a {b|{c|d} e", {"a {b|c e", "a {b|d e"}),
        (r"\{a\|b\} {c\|d|e}", {"{a|b} c|d", "{a|b} e"}),
        ("{a}", {"a"}),
        ("{|very} old", {"old", "very old"}),
    ],
)
def test_a_wildcard_is_one_of_its_choices_and_each_comes_up(caption: str, choices: set[str]) -> None:
    wording = Wording(wildcards=True)
    assert {word(caption, wording, (seed,)) for seed in range(200)} == choices
    assert plain_words(caption, wording) in choices
    assert word(caption, Wording(), (0,)) == caption


def test_a_choice_may_hold_several_tags() -> None:
    wording = Wording(wildcards=True, shuffle=True)
    seen = {tuple(sorted(split(word("a, {b, c|d}", wording, (seed,))))) for seed in range(50)}
    assert seen == {("a", "b", "c"), ("a", "d")}


def test_deep_wildcards_take_no_time() -> None:
    assert word("{a|" * 20_000 + "b" + "}" * 20_000, Wording(wildcards=True), (0,)) in {"a", "b"}


@pytest.mark.parametrize("separator", ["|", " | ", "; "])
def test_another_separator(separator: str) -> None:
    tags = ["a, b", "c", "d, e"]
    worded = word(" | ".join(tags).replace("|", separator.strip()), Wording(separator=separator, shuffle=True), (3,))
    assert sorted(worded.split(separator)) == tags


@given(st.integers(0, 30))
def test_lines_are_taken_in_turn(turn: int) -> None:
    lines = ["one, first", "two", "three"]
    wording = Wording(choose_line=True)
    assert word("\n".join(lines), wording, (turn * 7,), turn) == lines[turn % 3]


@pytest.mark.parametrize(
    ("prefix", "caption", "suffix", "expected"),
    [
        ("a photo of", "a star", "on grey", "a photo of a star on grey"),
        ("photo, ", "a star", ", sharp", "photo, a star, sharp"),
        ("photo,", "", ", sharp", "photo, sharp"),
        ("a photo", "", ", sharp", "a photo, sharp"),
        ("photo,", "", "", "photo"),
        ("", "", ", sharp", "sharp"),
        ("", "", "", ""),
    ],
)
def test_ends(prefix: str, caption: str, suffix: str, expected: str) -> None:
    assert word(caption, Wording(prefix=prefix, suffix=suffix), (0,)) == expected


@given(TAGS, KEYS, WORDINGS)
def test_ends_neither_move_nor_drop(tags: list[str], key, wording: Wording) -> None:
    worded = word(", ".join(tags), replace(wording, prefix="front", suffix="back"), key)
    assert worded.startswith("front ")
    assert worded.endswith(" back")


@pytest.mark.parametrize(
    ("wording", "expected"),
    [
        (Wording(), 1),
        (Wording(choose_line=True), 3),
        (Wording(shuffle=True), None),
        (Wording(wildcards=True, variants=4), 4),
        (Wording(tag_dropout=0.1, variants=4, choose_line=True), 12),
        (Wording(prefix="a", variants=4), 1),
    ],
)
def test_how_many_wordings_there_are(wording: Wording, expected: int | None) -> None:
    assert num_wordings("a\nb\nc", wording) == expected


@given(KEYS, st.integers(0, 1))
def test_a_pair_of_brackets_is_one_tag_where_they_hold_weights(key, kept: int) -> None:
    tags = ["one", "(red hat, scarf:1.2)", "[blue, [green, grey]]", "two (three", "four"]
    wording = Wording(shuffle=True, keep_first=kept, keep_brackets=True)
    worded = word(", ".join(tags), wording, key)
    rest = worded
    for tag in sorted(tags, key=len, reverse=True):
        assert tag in rest
        rest = rest.replace(tag, "", 1)
    assert not rest.strip(" ,")
    assert worded.startswith(", ".join(tags[:kept]))
    plain = replace(wording, keep_brackets=False)
    assert not all("(red hat, scarf:1.2)" in word(", ".join(tags), plain, (*key, turn)) for turn in range(40))
