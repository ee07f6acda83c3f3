"""Captions come out as written, and what is no caption is said with the file's name."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesets.captions import clean_caption, leads_outside, read_caption_file, read_metadata, with_trigger
from imagesets.errors import PictureError, SourceError


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
def test_a_caption_file_is_one_line_of_text(tmp_path: Path, content: bytes, caption: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    assert read_caption_file(path) == caption


def test_no_caption_file_is_an_empty_caption(tmp_path: Path) -> None:
    assert read_caption_file(tmp_path / "a.txt") == ""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"caf\xe9", r"a\.txt is not UTF-8 text: byte 3"),
        ("a star".encode("utf-16"), r"a\.txt is not UTF-8 text: byte 0"),
        (b"a" * 70_000, r"a\.txt has 70000 bytes; at most 65536"),
    ],
    ids=["latin-1", "utf-16", "a novel"],
)
def test_what_is_no_caption_is_refused_with_the_files_name(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(PictureError, match=reason):
        read_caption_file(path)


@given(st.text())
def test_cleaning_keeps_the_words_and_their_order_on_one_line(text: str) -> None:
    cleaned = clean_caption(text)
    assert cleaned.split() == text.replace("\x00", " ").split()
    assert "\n" not in cleaned
    assert clean_caption(cleaned) == cleaned


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


def test_metadata_gives_captions_by_file_name(tmp_path: Path) -> None:
    path = tmp_path / "metadata.jsonl"
    lines = [
        {"file_name": "b.png", "text": "two\nlines"},
        {"file_name": "sub/a.png"},
        {"file_name": "c.png", "text": "", "score": 3},
    ]
    path.write_text("\n\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    assert read_metadata(path) == {"b.png": "two lines", "sub/a.png": "", "c.png": ""}


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085"])
def test_only_line_feeds_end_a_line_of_metadata(tmp_path: Path, separator: str) -> None:
    """JSON allows these in a text as they are, and Python's own `splitlines` cuts there."""
    path = tmp_path / "metadata.jsonl"
    lines = [{"file_name": f"a{separator}b.png", "text": "one"}, {"file_name": "c.png", "text": "two"}]
    path.write_bytes("\r\n".join(json.dumps(line, ensure_ascii=False) for line in lines).encode())
    assert read_metadata(path) == {f"a{separator}b.png": "one", "c.png": "two"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"file_name": "b.png", "text": "x"', "is not JSON"),
        ("b.png, a star", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('["b.png", "x"]', "needs an object"),
        ('{"text": "x"}', 'needs an object with a text "file_name"'),
        ('{"file_name": 3, "text": "x"}', 'needs an object with a text "file_name"'),
        ('{"file_name": "b.png", "text": 3}', "'b.png' is not a text"),
        ('{"file_name": "b.png", "text": null}', "'b.png' is not a text"),
        ('{"file_name": "a.png", "text": "x"}', "'a.png' stands twice"),
    ],
    ids=["cut short", "no JSON", "nested", "list", "no name", "number", "text is a number", "text is null", "twice"],
)
def test_a_wrong_line_of_metadata_is_told_by_its_number(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "metadata.jsonl"
    path.write_text(f'{{"file_name": "a.png", "text": "x"}}\n\n{line}\n', encoding="utf-8")
    with pytest.raises(SourceError, match=reason) as caught:
        read_metadata(path)
    assert f"{path}:3:" in str(caught.value)


def test_metadata_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "metadata.jsonl"
    path.write_bytes(b'{"file_name": "caf\xe9.png"}')
    with pytest.raises(SourceError, match=r"metadata\.jsonl"):
        read_metadata(path)


@pytest.mark.parametrize(
    "name",
    [
        "../a.png",
        "sub/../../a.png",
        "/etc/a.png",
        "C:\\a.png",
        "C:a.png",
        "..\\a.png",
        "\\\\server\\share\\a.png",
        "..",
    ],
)
def test_names_that_leave_the_folder_are_known(name: str) -> None:
    assert leads_outside(name)


@pytest.mark.parametrize("name", ["a.png", "sub/a.png", "a..b.png", "...png", "sub/..a/b.png", "星.png"])
def test_names_that_stay_in_the_folder_are_let_be(name: str) -> None:
    assert not leads_outside(name)
