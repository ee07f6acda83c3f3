"""Captions come out as written, and what is no caption is said with the file's name."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesets.captions import clean_caption, decode_caption, with_trigger
from imagesets.errors import CaptionError


@pytest.mark.parametrize(
    ("content", "caption"),
    [
        (b"a star on a white background\n", "a star on a white background"),
        (b"\xef\xbb\xbfa star", "a star"),
        (b"a star,\r\n  blue\t and\x00orange \n\n", "a star, blue and orange"),
        ("ein Stern, größer als 星\n".encode(), "ein Stern, größer als 星"),
        (b"", ""),
        (b" \n\t ", ""),
    ],
    ids=["plain", "byte order mark", "several lines", "not English", "empty", "blank"],
)
def test_a_caption_file_is_one_line_of_text(content: bytes, caption: str) -> None:
    assert decode_caption(content, "a.txt") == caption


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"caf\xe9", r"its caption a\.txt is not UTF-8 but another encoding \(byte 3 is 0xe9\): save it as UTF-8"),
        ("a star".encode("utf-16"), r"its caption a\.txt is not UTF-8 but UTF-16 \(byte 0 is 0xff\)"),
        (b"a" * 70_000, r"a\.txt has 70000 bytes; at most 65536"),
    ],
    ids=["latin-1", "utf-16", "a novel"],
)
def test_what_is_no_caption_is_refused_with_the_files_name(content: bytes, reason: str) -> None:
    with pytest.raises(CaptionError, match=reason):
        decode_caption(content, "a.txt")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_cleaning_keeps_the_words_and_their_order_on_one_line(text: str) -> None:
    cleaned = clean_caption(text)
    assert cleaned.split() == "".join(" " if unicodedata.category(one) == "Cc" else one for one in text).split()
    assert "\n" not in cleaned
    assert clean_caption(cleaned) == cleaned


@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\r\n \t")))
def test_kept_lines_are_clean_each_and_none_is_empty(text: str) -> None:
    lines = clean_caption(text, keep_lines=True).split("\n")
    assert all(clean_caption(line) == line for line in lines)
    assert lines == [""] or "" not in lines
    assert " ".join(lines).split() == clean_caption(text).split()
    assert decode_caption(text.encode(), "a.txt", keep_lines=True).split("\n") == (
        clean_caption(text.removeprefix("\ufeff"), keep_lines=True).split("\n")
    )


@pytest.mark.parametrize(
    ("caption", "trigger", "expected"),
    [
        ("a star", "", "a star"),
        ("a star", "<zig>", "<zig>, a star"),
        ("", "<zig>", "<zig>"),
        ("a <zig> on grey", "<zig>", "a <zig> on grey"),
        ("A ZIG on grey", "zig", "A ZIG on grey"),
        ("a zigzag", "zig", "zig, a zigzag"),
        ("a zigzag and a zig", "zig", "a zigzag and a zig"),
        ("zig, a star", "zig", "zig, a star"),
        ("sks2 dog", "sks", "sks, sks2 dog"),
        ("a photo of a sks dog", "sks dog", "a photo of a sks dog"),
    ],
)
def test_the_trigger_word_is_put_in_front_where_it_is_not_a_word_of_the_caption(
    caption: str, trigger: str, expected: str
) -> None:
    assert with_trigger(caption, trigger) == expected
    assert with_trigger(expected, trigger) == expected


def test_half_a_character_is_refused() -> None:
    with pytest.raises(CaptionError, match="a lone surrogate"):
        clean_caption("a star \ud83d")
