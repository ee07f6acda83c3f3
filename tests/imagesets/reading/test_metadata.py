"""metadata.jsonl line by line: what it says, and what is wrong with it, all at once."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesets.reading.metadata import MetadataLine, parse_metadata


def lines(*entries: object) -> bytes:
    return "\n".join(json.dumps(entry) for entry in entries).encode()


def test_each_line_gives_a_caption_to_a_file() -> None:
    content = lines(
        {"file_name": "b.png", "text": "two\nlines"},
        {"file_name": "sub/a.png"},
        {"file_name": "c.png", "text": "", "score": 3},
        {"file_name": "d.png", "text": None},
    )
    assert parse_metadata(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n\r\n")) == [
        MetadataLine(1, "b.png", "two lines"),
        MetadataLine(3, "sub/a.png", None),
        MetadataLine(5, "c.png", ""),
        MetadataLine(7, "d.png", None),
    ]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085"])
def test_only_line_feeds_end_a_line(separator: str) -> None:
    """JSON allows these in a text as they are, and Python's own `splitlines` cuts there."""
    entries = [{"file_name": f"a{separator}b.png", "text": "one"}, {"file_name": "c.png", "text": "two"}]
    content = "\r\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries).encode()
    assert [(line.file_name, line.problem) for line in parse_metadata(content)] == [
        (f"a{separator}b.png", None),
        ("c.png", None),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"file_name": "b.png", "text": "x"', "is not JSON"),
        (b"b.png, a star", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"file_name": "caf\xe9.png"}', "is not UTF-8 (byte 18 of the line)"),
        (b'["b.png", "x"]', 'needs a "file_name"'),
        (b'{"text": "x"}', 'needs a "file_name"'),
        (b'{"file_name": 3, "text": "x"}', 'needs a "file_name"'),
        (b'{"file_name": "b.png", "text": ["x", 3]}', "names 'b.png', but its caption is no text: ['x', 3]"),
        (b'{"file_name": "b.png", "text": "\\ud800"}', "names 'b.png', but its caption holds half a character"),
        (b'{"file_name": "a.png", "text": "x"}', "names 'a.png' again, after line 1: remove one"),
    ],
    ids=["cut", "no JSON", "nested", "latin-1", "list", "no name", "number", "list of texts", "surrogate", "twice"],
)
def test_a_wrong_line_has_its_problem_and_the_others_are_read(line: bytes, reason: str) -> None:
    first, second, third = parse_metadata(b'{"file_name": "a.png", "text": "x"}\n' + line + b'\n{"file_name": "z.png"}')
    assert (first.problem, third.problem) == (None, None)
    assert second.number == 2
    assert second.problem is not None
    assert reason in second.problem


@pytest.mark.parametrize(
    "name",
    ["../a.png", "sub/../../a.png", "/etc/a.png", "C:\\a.png", "C:a.png", "..\\a.png", "\\\\server\\share\\a.png",
     "..", "a/../..", "\\a.png"],
)  # fmt: skip
def test_names_that_leave_the_folder_are_refused(name: str) -> None:
    (line,) = parse_metadata(lines({"file_name": name}))
    assert line.problem is not None
    assert line.problem.startswith(f"names {name!r}, ")
    assert "inside" in line.problem


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("a.png", "a.png"),
        ("./sub//a.png", "sub/a.png"),
        ("sub/../a.png", "a.png"),
        ("a..b.png", "a..b.png"),
        ("...png", "...png"),
        ("sub/..a/b.png", "sub/..a/b.png"),
        ("星.png", "星.png"),
    ],
)
def test_names_that_stay_inside_are_brought_to_one_form(name: str, normal: str) -> None:
    (line,) = parse_metadata(lines({"file_name": name, "text": "x"}))
    assert line == MetadataLine(1, normal, "x")


@pytest.mark.parametrize(("given_score", "score"), [(7, 7.0), (0, 0.0), (10, 10.0), (6.25, 6.25), (None, None)])
def test_a_line_may_give_a_score(given_score: float | None, score: float | None) -> None:
    (line,) = parse_metadata(lines({"file_name": "a.png", "aesthetic_score": given_score}))
    assert line == MetadataLine(1, "a.png", None, score)
    assert line.aesthetic_score is None or type(line.aesthetic_score) is float


@pytest.mark.parametrize("given_score", [-0.1, 10.5, "7", True, [7], float("nan"), float("inf")])
def test_a_score_that_is_none_is_refused(given_score: object) -> None:
    (line,) = parse_metadata(lines({"file_name": "a.png", "aesthetic_score": given_score}))
    assert line.problem is not None
    assert line.problem.startswith("gives 'a.png' an \"aesthetic_score\" of ")
    assert line.problem.endswith("needs a number from 0 to 10")


@given(st.binary(max_size=100))
def test_no_content_makes_the_reader_stumble(content: bytes) -> None:
    for line in parse_metadata(content):
        assert (line.problem is None) != (line.file_name == "")
