"""A class caption is the caption without its trigger, and nothing else of it changes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesets.captions import with_trigger
from imagesets.class_captions import class_caption


@pytest.mark.parametrize(
    ("caption", "word", "expected"),
    [
        ("zrk, a dog on grass", "dog", "dog, a dog on grass"),
        ("a photo of zrk running", "dog", "a photo of dog running"),
        ("a photo of ZRK, Zrk", "dog", "a photo of dog, dog"),
        ("zrk, a dog on grass", "", "a dog on grass"),
        ("zrk", "", ""),
        ("a dog, zrk, grass", "", "a dog, grass"),
        ("a dog, zrk", "", "a dog"),
        ("a photo of zrk running", "", "a photo of running"),
        ("a (zrk:1.2) dog, [zrk]", "", "a dog"),
        ("a (zrk:1.2) dog", "big cat", "a (big cat:1.2) dog"),
        ("zrkx, azrk, zrk1", "dog", "zrkx, azrk, zrk1"),
        ("zrk_, _zrk", "dog", "dog_, _dog"),
        ("an  odd ,, caption ", "", "an  odd ,, caption "),
        (r"zrk with \1 and \g<0>", r"\2", r"\2 with \1 and \g<0>"),
    ],
)
def test_the_trigger_is_replaced_or_taken_out(caption: str, word: str, expected: str) -> None:
    assert class_caption(caption, "zrk", word) == expected


def test_without_a_trigger_a_caption_stays() -> None:
    assert class_caption("a dog", "", "cat") == "a dog"


@given(caption=st.text(alphabet="abz rk,.()_1", max_size=30), word=st.sampled_from(["", "dog"]))
def test_what_is_given_the_trigger_loses_it(caption: str, word: str) -> None:
    changed = class_caption(with_trigger(caption, "zrk"), "zrk", word)
    assert with_trigger(changed, "zrk") != changed, "the trigger is no longer in it"
    if with_trigger(caption, "zrk") == caption:  # it had it already
        return
    assert class_caption(caption, "zrk", word) == caption
