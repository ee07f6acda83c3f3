"""kohya's JSON of captions: the pictures its names mean, caption and tags together, and wrong ones told by name."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesets.errors import SourceError
from imagesets.reading.folder import list_folder
from imagesets.reading.json_captions import parse_json_captions
from imagesets.sources import FolderSource, Listing
from imagesets.wording import Wording
from tests.imagesets.reading.test_kohya import laid, problems, usable


def listed(root: Path, names: list[str], metadata: Any, **options: Any) -> Listing:
    """Write pictures and, beside their folder, the file; list the folder by it."""
    laid(root / "set", dict.fromkeys(names, ""))
    file = root / "meta_cap.json"
    file.write_text(metadata if isinstance(metadata, str) else json.dumps(metadata), encoding="utf-8")
    return list_folder(FolderSource(root / "set", metadata_file=file, **options))


def captions(listing: Listing) -> dict[str, str | None]:
    return {name: caption for name, caption, _ in usable(listing)}


def test_names_are_paths_with_and_without_the_ending(tmp_path: Path) -> None:
    root = tmp_path / "set"
    keys = ["a.png", "b", "sub/c", "sub\\d.png", str(root / "e.png"), str(root / "sub" / "f"), "sub/../g.png", "h.v2"]
    names = ["a.png", "b.png", "sub/c.png", "sub/d.png", "e.png", "sub/f.png", "g.png", "h.v2.png", "i.png"]
    listing = listed(tmp_path, names, {key: {"caption": key, "train_resolution": [64, 64]} for key in keys})
    assert captions(listing) == {**dict(zip(names, keys, strict=False)), "i.png": None}
    assert problems(listing) == {}
    named = listed(tmp_path, names, {key: {"caption": key} for key in keys}, only_named=True)
    assert (len(named.entries), named.ignored) == (8, ("i.png",))


def test_tags_stand_behind_each_line_of_the_caption(tmp_path: Path) -> None:
    metadata = {
        "a": {"caption": "one\ntwo", "tags": "x, y"},
        "b": {"tags": "x"},
        "c": {"caption": "one", "tags": ""},
        "d": {"caption": "", "tags": ["x", "y"]},
        "e": {},
    }
    names = [f"{key}.png" for key in metadata]
    assert captions(listed(tmp_path, names, metadata)) == {
        "a.png": "one two, x, y", "b.png": "x", "c.png": "one", "d.png": "x, y", "e.png": None
    }  # fmt: skip
    lines = captions(listed(tmp_path, names, metadata, wording=Wording(choose_line=True)))
    assert lines["a.png"] == "one, x, y\ntwo, x, y"


def test_a_picture_that_is_not_named_has_its_text_file_or_what_stands_for_it(tmp_path: Path) -> None:
    laid(tmp_path / "set", {"b.txt": "from a file", "a.txt": "x"})
    names = ["a.png", "b.png", "c.png"]
    listing = listed(tmp_path, names, {"a": {"caption": "named"}}, caption_otherwise="a thing")
    assert captions(listing) == {"a.png": "named", "b.png": "from a file", "c.png": "a thing"}
    assert captions(listed(tmp_path, names, {"a": {"caption": "named"}}, captions="metadata"))["b.png"] is None
    assert captions(listed(tmp_path, names, {"a": {"caption": "named"}}, captions="files"))["a.png"] == "x"


@pytest.mark.parametrize(
    ("key", "values", "reason"),
    [
        ("/etc/passwd.png", {}, "is an absolute path: only files inside the folder are read"),
        ("C:\\set\\a.png", {}, "is an absolute path: only files inside the folder are read"),
        ("../a.png", {}, "is a path which lies outside the folder: only files inside it are read"),
        ("sub/../../a.png", {}, "is a path which lies outside the folder"),
        ("z.png", {}, "names no picture that is read from the folder"),
        ("b", {}, "may mean 'b.jpg' or 'b.png': give the name with its ending"),
        ("a", {}, "means 'a.png' again, after 'a.png': remove one"),
        ("c.png", "a cat", 'has \'a cat\', needs {"caption": "…", "tags": "…"}'),
        ("c.png", {"caption": 3}, 'gives "caption" as 3, which is no text'),
        ("c.png", {"tags": [3]}, 'gives "tags" as [3], which is no text'),
        ("c.png", {"caption": "\ud800"}, "its caption holds half a character"),
    ],
    ids=str,
)
def test_a_wrong_name_or_value_is_told_and_the_rest_is_read(
    key: str, values: object, reason: str, tmp_path: Path
) -> None:
    metadata = {"a.png": {"caption": "good"}, key: values}
    listing = listed(tmp_path, ["a.png", "b.png", "b.jpg", "c.png"], metadata)
    assert captions(listing)["a.png"] == "good"
    ((name, problem),) = problems(listing).items()
    assert name == f"meta_cap.json:{key}" or not key.isascii()
    assert problem.startswith(reason)


def test_what_stands_twice_is_told(tmp_path: Path) -> None:
    listing = listed(tmp_path, ["a.png"], '{"a": {"caption": "one"}, "a": {"caption": "two"}}')
    assert captions(listing) == {"a.png": "one"}
    assert problems(listing) == {"meta_cap.json:a": "means 'a.png' again, after 'a': remove one"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[1]", "holds list, not pictures by their names, as {"),
        ('{"a": ', "is not JSON: "),
        ("[" * 100_000, "is not JSON: "),
        ('"a"', "holds str, not pictures"),
        ("{}", "is none with a line in it"),
    ],
    ids=["list", "cut", "nested", "text", "empty"],
)
def test_a_file_that_is_no_such_file_is_refused(content: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        listed(tmp_path, ["a.png"], content, captions="metadata")
    assert str(caught.value).startswith(f"the metadata file {tmp_path / 'meta_cap.json'} {reason}")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    laid(tmp_path, {"a.png": ""})
    for name, reason in (("no.json", "cannot be read: No such file"), ("no.xml", "ends in '.xml'; what ends in .json")):
        with pytest.raises(SourceError, match=reason):
            list_folder(FolderSource(tmp_path, metadata_file=tmp_path / name))
    (tmp_path / "latin.json").write_bytes(b'{"a": {"caption": "caf\xe9"}}')
    with pytest.raises(SourceError, match=r"is not UTF-8 \(byte 22\): save it as UTF-8"):
        list_folder(FolderSource(tmp_path, metadata_file=tmp_path / "latin.json"))


def test_a_table_may_lie_elsewhere_and_the_folders_own_is_not_read_then(tmp_path: Path) -> None:
    laid(tmp_path / "set", {"a.png": "", "sub/b.png": "", "metadata.jsonl": '{"file_name": "a.png", "text": "own"}',
                            "mine.csv": "file_name,text\na.png,named\nsub/b.png,other\n"})  # fmt: skip
    listing = list_folder(FolderSource(tmp_path / "set", metadata_file=tmp_path / "set" / "mine.csv"))
    assert captions(listing) == {"a.png": "named", "sub/b.png": "other"}
    assert listing.ignored == ("metadata.jsonl",)


@given(st.dictionaries(st.text(max_size=8), st.none() | st.text(max_size=4) | st.dictionaries(
    st.sampled_from(["caption", "tags"]), st.none() | st.text(max_size=4) | st.lists(st.text(max_size=2), max_size=2)
), max_size=4))  # fmt: skip
def test_nothing_makes_the_reader_stumble(metadata: Any) -> None:
    read = parse_json_captions(json.dumps(metadata).encode(), Path("/set"), ["a.png", "b.png"], keep_lines=False)
    assert len(read.lines) + len(read.problems) == len(metadata)
    assert set(read.lines) <= {"a.png", "b.png"}
