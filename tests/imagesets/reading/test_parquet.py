"""metadata.parquet says what the same metadata.jsonl says, and no file of that name can take its reader down."""

import json
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from imagesets.errors import DecoderError, PictureError
from imagesets.files import FileInFolder
from imagesets.opening.decoding_process import DecodingLimits
from imagesets.reading import metadata_tables
from imagesets.reading.folder import list_folder
from imagesets.reading.metadata import MetadataLine, parse_metadata
from imagesets.reading.metadata_tables import read_metadata_file
from imagesets.reading.parquet import LIMITS, parquet_as_lines
from imagesets.sources import FolderSource
from imagesets.wording import Wording
from tests.imagesets.making import encoded, scene
from tests.imagesets.reading.test_metadata_tables import ROWS

TABLE = "metadata.parquet"


def written(table: pa.Table | dict[str, Any], **options: Any) -> bytes:
    """Return a table as the bytes of a Parquet file."""
    stream = BytesIO()
    parquet.write_table(table if isinstance(table, pa.Table) else pa.table(table), stream, **options)
    return stream.getvalue()


def read(root: Path, content: bytes, *, keep_lines: bool = False) -> list[MetadataLine]:
    (root / TABLE).write_bytes(content)
    return read_metadata_file(FileInFolder(root, TABLE), keep_lines=keep_lines)


def test_a_table_says_what_the_lines_say(tmp_path: Path) -> None:
    lines = parse_metadata("\n".join(map(json.dumps, ROWS)).encode())
    table = {column: [row[column] for row in ROWS] for column in ROWS[0]}
    assert read(tmp_path, written({"id": [[1]] * len(ROWS), **table})) == lines
    texts = pa.array(table["text"], pa.large_string())
    other = written({**table, "text": texts}, use_dictionary=False, row_group_size=2, compression="zstd")
    assert read(tmp_path, other) == lines
    assert read(tmp_path, written({**table, "text": texts.dictionary_encode()})) == lines


def test_columns_of_nothing_say_nothing(tmp_path: Path) -> None:
    nothing = {"file_name": ["a.png"], "text": pa.nulls(1), "aesthetic_score": pa.nulls(1)}
    assert read(tmp_path, written(nothing)) == [MetadataLine(1, "a.png")]


def test_lists_are_captions_of_their_own_where_lines_are(tmp_path: Path) -> None:
    for texts in (
        pa.array([["one", "two \n three"], None, [], ["four"]]),
        pa.array([["one", "two \n three"], None, [], ["four"]], pa.large_list(pa.large_string())),
    ):
        content = written({"file_name": ["a.png", "b.png", "c.png", "d.png"], "text": texts})
        lines = read(tmp_path, content, keep_lines=True)
        assert [line.caption for line in lines] == ["one\ntwo\nthree", None, "", "four"]
        assert "wording: {choose_line: true}" in (read(tmp_path, content)[0].problem or "")


LATIN = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\4\0\0\0"), pa.py_buffer(b"caf\xe9"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (written({"name": ["a.png"]}), "it has no column \"file_name\", only 'name'"),
        (written({"file_name": [3]}), 'it has a column "file_name" of int64: needs one of text'),
        (written({"file_name": ["a.png"], "text": [[3]]}), 'it has a column "text" of list<'),
        (written({"file_name": ["a.png"], "aesthetic_score": ["7"]}), '"aesthetic_score" of string: needs one of numb'),
        (written(pa.table([["a"], ["b"]], names=["file_name", "file_name"])), '"file_name" 2 times'),
        (written({"file_name": ["a.png"]})[:-20], "it cannot be read as Parquet: "),
        (written({"file_name": ["a.png"]})[:40], "it cannot be read as Parquet: "),
        (b"", "it cannot be read as Parquet: "),
        (b"file_name,text\na.png,x\n", "it cannot be read as Parquet: "),
    ],
    ids=["no name", "numbers", "list of numbers", "score", "twice", "cut", "cut short", "empty", "csv"],
)
def test_a_wrong_table_is_refused_with_the_reason(content: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(PictureError) as caught:
        read(tmp_path, content)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({"file_name": ["a.png"], "text": LATIN}, "names 'a.png', but its caption holds half a character"),
        ({"file_name": pa.array([None], pa.string())}, 'needs a "file_name"'),
        ({"file_name": ["/etc/passwd"]}, "an absolute path: only files inside the folder are read"),
    ],
    ids=["latin-1", "no name", "absolute"],
)
def test_a_wrong_row_has_its_problem(table: dict[str, Any], reason: str, tmp_path: Path) -> None:
    (line,) = read(tmp_path, written(table))
    assert (line.number, line.file_name) == (1, "")
    assert reason in (line.problem or "")


def test_a_table_of_nothing_but_wrong_rows_is_told_of_by_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata_tables, "MAX_WRONG_ROWS", 3)
    lines = read(tmp_path, written({"file_name": [f"/{index}" for index in range(9)]}))
    assert [line.number for line in lines] == [1, 2, 3, 4]
    assert lines[-1].problem == "is not read, after 3 wrong ones: mend those first"


def test_a_small_file_cannot_fill_the_memory(tmp_path: Path) -> None:
    """One text of 8 MiB in 100,000 rows is a file of kilobytes and, written out, 800 GiB."""
    index = pa.array([0] * 100_000, pa.int32())
    text = pa.DictionaryArray.from_arrays(index, pa.array(["x" * 2**23]))
    content = written(pa.table({"file_name": pa.array(["a.png"] * 100_000), "text": text}), compression="zstd")
    assert len(content) < 2**20
    with pytest.raises(PictureError, match=r"takes more than 1536 MiB of memory|cannot be read as Parquet"):
        read(tmp_path, content)


def test_one_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    (tmp_path / TABLE).write_bytes(b"x")
    limits = DecodingLimits(2**30, cpu_seconds=0.5, wall_seconds=600.0, max_pixels=2**20)
    module = "tests.imagesets.reading.tiresome_child"
    with pytest.raises(PictureError, match=r"^reading it takes more than 0\.5 seconds of work: split it up"):
        parquet_as_lines(FileInFolder(tmp_path, TABLE), limits, module)
    limits = DecodingLimits(2**30, cpu_seconds=600.0, wall_seconds=0.5, max_pixels=2**20)
    with pytest.raises(PictureError, match=r"^reading it takes more than"):
        parquet_as_lines(FileInFolder(tmp_path, TABLE), limits, module)


def test_one_that_ends_its_reader_is_refused(tmp_path: Path) -> None:
    (tmp_path / TABLE).write_bytes(b"abort")
    with pytest.raises(PictureError, match=r"^reading it ends the process that does so: it is damaged"):
        parquet_as_lines(FileInFolder(tmp_path, TABLE), LIMITS, "tests.imagesets.reading.tiresome_child")
    with pytest.raises(DecoderError, match="No module named 'no_such'"):
        parquet_as_lines(FileInFolder(tmp_path, TABLE), LIMITS, "no_such")


SOUND = written({"file_name": ["a.png", "b.png"], "text": ["x", None], "aesthetic_score": [1.0, 2.0]})


def test_no_flipped_byte_is_more_than_a_problem(tmp_path: Path) -> None:
    for place in range(7, len(SOUND), len(SOUND) // 10):
        content = bytearray(SOUND)
        content[place] ^= 0xFF
        with suppress(PictureError):
            lines = read(tmp_path, bytes(content))
            assert all((line.problem is None) != (line.file_name == "") for line in lines)


def test_a_folder_takes_captions_from_it(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(encoded(scene()))
    names, texts = ["a.png", "b.png", "c.png"], [["one", "uno"], ["two"], ["three"]]
    (tmp_path / TABLE).write_bytes(written({"file_name": names, "text": texts, "aesthetic_score": [3.0, None, None]}))
    source = FolderSource(tmp_path, captions="metadata", wording=Wording(choose_line=True))
    listing = list_folder(source)
    usable = [(entry.name, entry.caption, entry.aesthetic_score) for entry in listing.entries if not entry.problem]
    assert usable == [("a.png", "one\nuno", 3.0), ("b.png", "two", None)]
    assert [(entry.name, entry.problem) for entry in listing.entries if entry.problem] == [
        ("metadata.parquet:3", "names 'c.png', and there is no such picture in the folder")
    ]
    assert listing.ignored == ()
    (tmp_path / TABLE).write_bytes(SOUND[:-9])
    (wrong,) = [entry for entry in list_folder(source).entries if entry.problem]
    assert (wrong.name, (wrong.problem or "")[:28]) == (TABLE, "it cannot be read as Parquet")


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(SOUND)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / TABLE).symlink_to(tmp_path / "secret")
    with pytest.raises(PictureError, match="it leads out of the folder"):
        read_metadata_file(FileInFolder(tmp_path / "set", TABLE))
