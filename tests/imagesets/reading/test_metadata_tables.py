"""metadata.csv says what the same metadata.jsonl says, and is as hard to hurt with."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesets.errors import SourceError
from imagesets.reading import metadata_tables
from imagesets.reading.folder import list_folder
from imagesets.reading.metadata import MetadataLine, parse_metadata
from imagesets.reading.metadata_tables import parse_csv
from imagesets.sources import FolderSource
from imagesets.wording import Wording
from tests.imagesets.making import encoded, scene


def folder_of(path: Path, *names: str, **files: bytes) -> Path:
    """Make a folder of pictures with metadata files, by their endings."""
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(encoded(scene()))
    for ending, content in files.items():
        (path / f"metadata.{ending}").write_bytes(content)
    return path


ROWS: list[dict[str, Any]] = [
    {"file_name": "b.png", "text": 'two\nlines, and a "word"', "aesthetic_score": 7.5},
    {"file_name": "./sub//a.png", "text": None, "aesthetic_score": None},
    {"file_name": "../out.png", "text": "x", "aesthetic_score": None},
    {"file_name": "/etc/a.png", "text": "x", "aesthetic_score": None},
    {"file_name": "c.png", "text": "星", "aesthetic_score": 11.0},
    {"file_name": "b.png", "text": "again", "aesthetic_score": None},
    {"file_name": "d.png", "text": "last", "aesthetic_score": float("nan")},
]


def test_a_table_says_what_the_lines_say() -> None:
    lines = parse_metadata("\n".join(map(json.dumps, ROWS)).encode())
    assert [line.problem is None for line in lines] == [True, True, False, False, False, False, False]
    cells = [
        ["" if row[column] is None else '"' + str(row[column]).replace('"', '""') + '"' for column in row]
        for row in ROWS
    ]
    content = "file_name,text,aesthetic_score\r\n" + "\r\n\r\n".join(map(",".join, cells)) + "\r\n"
    for mark in ("", "\ufeff"):
        rows = parse_csv((mark + content).encode())
        # The first row begins in line 2 and has two lines; an empty one lies between each two.
        assert [row.number for row in rows] == [2, 5, 7, 9, 11, 13, 15]
        assert [(row.file_name, row.caption, row.aesthetic_score) for row in rows] == [
            (line.file_name, line.caption, line.aesthetic_score) for line in lines
        ]
        problems = [line.problem and line.problem.replace("after line 1:", "after line 2:") for line in lines]
        assert [row.problem for row in rows] == problems


def test_other_columns_and_their_order_do_not_matter() -> None:
    assert parse_csv(b"id, text ,file_name\n7,x,a.png\n") == [MetadataLine(2, "a.png", "x")]


@pytest.mark.parametrize(
    ("content", "number", "reason"),
    [
        (b"file_name,text\na.png,a star, striped\n", 2, '3 values for 2 columns (file_name, text): put a text that'),
        (b"file_name,text\na.png\n", 2, "has 1 values for 2 columns"),
        (b"file_name;text\na.png;x\n", 1, "has no column \"file_name\", only 'file_name;text': the first line gives"),
        (b"a.png,x\n", 1, "has no column \"file_name\", only 'a.png', 'x': the first line gives the columns"),
        (b"file_name,text,text\na.png,x,y\n", 1, 'has the column "text" 2 times'),
        (b"file_name,text\na.png,caf\xe9\n", 2, "is not UTF-8: save the file as UTF-8"),
        ("file_name,text\n".encode("utf-16"), 1, "is not UTF-8: save the file as UTF-8"),
        (b'file_name,text\na.png,"x\nb.png,y\n', 2, "is not CSV: unexpected end of data; the lines after it"),
        (b"file_name,text\na.png," + b"x" * 200_000, 2, "is not CSV: field larger than field limit"),
        (b"file_name,text\n,x\n", 2, 'needs a "file_name"'),
        (b"file_name,aesthetic_score\na.png,high\n", 2, "an \"aesthetic_score\" of 'high': needs a number from"),
        (b"file_name,aesthetic_score\na.png,1_0\n", 2, "an \"aesthetic_score\" of '1_0'"),
    ],
    ids=["commas", "short", "semicolons", "no header", "twice", "latin-1", "utf-16", "open quote", "huge", "no name",
         "no score", "underscore"],
)  # fmt: skip
def test_a_wrong_line_of_a_csv_has_its_problem(content: bytes, number: int, reason: str) -> None:
    (line,) = parse_csv(content)
    assert (line.number, line.file_name) == (number, "")
    assert reason in (line.problem or "")


def test_rows_after_a_wrong_one_are_read() -> None:
    rows = parse_csv(b"file_name,text\na.png,caf\xe9\nb.png,x,y\nc.png,z\n")
    assert [(row.number, row.problem is None) for row in rows] == [(2, False), (3, False), (4, True)]


@given(st.binary(max_size=100))
def test_no_content_makes_the_csv_reader_stumble(content: bytes) -> None:
    for line in parse_csv(b"file_name,text\n" + content):
        assert (line.problem is None) != (line.file_name == "")


def test_a_table_of_nothing_but_wrong_rows_is_told_of_by_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata_tables, "MAX_WRONG_ROWS", 3)
    lines = parse_csv(b"file_name\na.png\n" + b"/a.png\n" * 3)
    assert [(line.number, line.problem is None) for line in lines] == [(2, True), (3, False), (4, False), (5, False),
                                                                       (6, False)]  # fmt: skip
    assert lines[-1].problem == "is not read, after 3 wrong ones: mend those first"
    assert len(parse_csv(b"file_name\n" + b"/a.png\n" * 2)) == 2


@pytest.mark.parametrize("captions", ["auto", "metadata"])
def test_a_folder_takes_captions_from_a_table(tmp_path: Path, captions: Any) -> None:
    content = b"file_name,text,aesthetic_score\na.png,one,3\nsub/b.png,two,\nc.png,three,\n"
    folder = folder_of(tmp_path, "a.png", "sub/b.png", csv=content)
    listing = list_folder(FolderSource(folder, captions=captions))
    usable = [(entry.name, entry.caption, entry.aesthetic_score) for entry in listing.entries if not entry.problem]
    assert usable == [("a.png", "one", 3.0), ("sub/b.png", "two", None)]
    (wrong,) = [entry for entry in listing.entries if entry.problem]
    assert wrong.name == "metadata.csv:4"
    assert wrong.problem == "names 'c.png', and there is no such picture in the folder"
    assert listing.ignored == ()


def test_two_tables_in_one_folder_are_refused_with_which_to_remove(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "sub/a.png")
    folder_of(tmp_path / "sub", csv=b"file_name\na.png\n", jsonl=b'{"file_name": "a.png"}')
    with pytest.raises(SourceError) as caught:
        list_folder(FolderSource(folder))
    assert str(caught.value) == (
        f"the folder {folder / 'sub'} holds metadata.csv and metadata.jsonl, of which one can be read: to go by "
        "metadata.csv, remove metadata.jsonl; to go by metadata.jsonl, remove metadata.csv; or take captions: files"
    )
    assert [entry.caption for entry in list_folder(FolderSource(folder, captions="files")).entries] == [None]
    (folder / "sub" / "metadata.jsonl").rename(folder / "metadata.jsonl")
    assert len(list_folder(FolderSource(folder)).entries) == 2, "one in each of two folders is allowed"


@pytest.mark.parametrize("sub", ["a", "z"])
def test_a_folders_own_table_has_the_last_word(tmp_path: Path, sub: str) -> None:
    folder = folder_of(
        tmp_path, f"{sub}/a.png", jsonl=json.dumps({"file_name": f"{sub}/a.png", "text": "far"}).encode()
    )
    folder_of(folder / sub, csv=b"file_name,text\na.png,near\n")
    assert [entry.caption for entry in list_folder(FolderSource(folder)).entries] == ["near"]


def test_a_table_that_is_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_bytes(b"file_name,text\na.png,secret\n")
    folder = folder_of(tmp_path / "set", "a.png")
    (folder / "metadata.csv").symlink_to(tmp_path / "secret.csv")
    sound, wrong = list_folder(FolderSource(folder)).entries
    assert (sound.name, sound.caption) == ("a.png", None)
    assert (wrong.name, wrong.problem) == ("metadata.csv", "it leads out of the folder: copy the file into it")


def test_lines_of_a_text_are_captions_of_their_own_where_the_wording_takes_them_in_turn(tmp_path: Path) -> None:
    files = {
        "jsonl": b'{"file_name": "a.png", "text": "one\\n two "}\n'
        b'{"file_name": "b.png", "text": ["three", "four\\nfive"]}',
        "csv": b'file_name,text\na.png,"one\r\n\r\n two"\nb.png,"three\nfour\nfive"\n',
    }
    for ending, content in files.items():
        folder = folder_of(tmp_path / ending, "a.png", "b.png", **{ending: content})
        taken = list_folder(FolderSource(folder, wording=Wording(choose_line=True))).entries
        assert [entry.caption for entry in taken] == ["one\ntwo", "three\nfour\nfive"]
        joined = {entry.name: entry.caption or entry.problem for entry in list_folder(FolderSource(folder)).entries}
        assert joined["a.png"] == "one two"
    (line,) = parse_metadata(b'{"file_name": "b.png", "text": ["three", "four"]}')
    assert line.problem == (
        "names 'b.png', but it has a list of captions: give the source wording: {choose_line: true}, which takes them "
        "in turn, or write one text"
    )


def test_a_broken_head_is_told_once_and_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the table and however many its columns."""
    judged: list[int] = []
    monkeypatch.setattr(metadata_tables, "columns_problem", lambda columns: judged.append(len(columns)))
    assert len(parse_csv(b"file_name,text\n" + b"a.png,x\n" * 100)) == 100
    assert judged == [2]
