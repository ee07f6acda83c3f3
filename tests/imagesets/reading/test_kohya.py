"""kohya's numbered folders: repeats and captions by name, and every way in which they are usually laid out wrong."""

from pathlib import Path

import pytest

from imagesets.errors import SourceError
from imagesets.reading.kohya import list_kohya
from imagesets.scan import scan_sources
from imagesets.sources import FolderSource, KohyaSource, Listing
from imagesets.wording import Wording
from tests.imagesets.making import encoded, scene


def laid(root: Path, files: dict[str, str]) -> Path:
    """Write files by their paths below a folder: a small picture for each whose text is '', otherwise the text."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text.encode() if text else encoded(scene()))
    return root


def problems(listing: Listing) -> dict[str, str]:
    return {entry.name: entry.problem for entry in listing.entries if entry.problem is not None}


def usable(listing: Listing) -> list[tuple[str, str | None, int]]:
    return [(entry.name, entry.caption, entry.repeats) for entry in listing.entries if entry.problem is None]


def test_number_and_name_of_a_folder_are_repeats_and_caption(tmp_path: Path) -> None:
    root = laid(tmp_path, {
        "10_zrkx cat/a.png": "", "10_zrkx cat/a.txt": "a cat,\nasleep",
        "10_zrkx cat/b.png": "", "10_zrkx cat/b.caption": "a cat awake",
        "10_zrkx cat/c.png": "",
        "3_old_red_house/d.png": "",
        "007/e.png": "",
        "2_/f.png": "",
    })  # fmt: skip
    assert usable(list_kohya(KohyaSource(root))) == [
        ("007/e.png", None, 7),
        ("10_zrkx cat/a.png", "a cat, asleep", 10),
        ("10_zrkx cat/b.png", "a cat awake", 10),
        ("10_zrkx cat/c.png", "zrkx cat", 10),
        ("2_/f.png", None, 2),
        ("3_old_red_house/d.png", "old_red_house", 3),
    ]


def test_an_epoch_shows_the_folders_times_the_sources_repeats_and_the_trigger_goes_before_the_name(
    tmp_path: Path,
) -> None:
    root = laid(tmp_path, {"4_zrkx/a.png": "", "1_thing/b.png": ""})
    report = scan_sources([KohyaSource(root, repeats=3, trigger="zrkx")])
    assert [(sample.name, sample.repeats, sample.caption) for sample in report.samples] == [
        ("1_thing/b.png", 3, "zrkx, thing"),
        ("4_zrkx/a.png", 12, "zrkx"),
    ]
    # Reading the pictures of a numbered folder as they lie gives the same files.
    plain = scan_sources([FolderSource(root)])
    assert [sample.sha256 for sample in plain.samples] == [sample.sha256 for sample in report.samples]
    assert all(sample.load().size == (64, 48) for sample in report.samples)


def test_lines_are_captions_of_their_own_where_the_wording_takes_them_in_turn(tmp_path: Path) -> None:
    root = laid(tmp_path, {"1_x/a.png": "", "1_x/a.caption": "one\n\ntwo"})
    (entry,) = list_kohya(KohyaSource(root, wording=Wording(choose_line=True))).entries
    assert entry.caption == "one\ntwo"


def test_two_captions_of_one_picture_must_agree(tmp_path: Path) -> None:
    root = laid(tmp_path, {
        "1_x/same.png": "", "1_x/same.txt": "a cat\n", "1_x/same.caption": " a cat",
        "1_x/else.png": "", "1_x/else.txt": "a cat", "1_x/else.caption": "a dog",
    })  # fmt: skip
    listing = list_kohya(KohyaSource(root))
    assert usable(listing) == [("1_x/same.png", "a cat", 1)]
    assert problems(listing) == {
        "1_x/else.png": "its captions else.txt and else.caption differ: remove the one that is not meant"
    }


def test_captions_without_a_picture_and_other_files_are_told(tmp_path: Path) -> None:
    root = laid(tmp_path, {"1_x/a.png": "", "1_x/b.caption": "x", "1_x/c.tags": "x", "1_x/a.npz": "x", "notes.md": "x",
                           "metadata.jsonl": "{}"})  # fmt: skip
    listing = list_kohya(KohyaSource(root))
    assert listing.unused_captions == ("1_x/b.caption",)
    assert listing.ignored == ("1_x/a.npz", "1_x/c.tags", "metadata.jsonl", "notes.md")


@pytest.mark.parametrize(
    ("files", "name", "problem"),
    [
        (["0_cat/a.png"], "0_cat", "seen 0 times: begin it with 1 or more, or move it out"),
        (["2026_beach/a.png"], "2026_beach", "more than 1000: if 2026 is a year or a date, put a number before it, as "
         "1_2026_beach"),
        (["9" * 200 + "_x/a.png"], "9" * 200 + "_x", "more than 1000"),
        (["a.png"], "a.png", "it lies in no numbered folder: move it into one, as 10_zrkx cat"),
        (["5_cat/more/a.png", "5_cat/more/b.png"], "5_cat/more", "it holds 2 pictures and lies inside a numbered folder"
         ", where folders are not read: move them up into 5_cat"),
        (["0_cat/more/a.png"], "0_cat/more", "seen 0 times"),
        (["cats/a.png"], "cats", "it holds 1 picture, and its name does not begin with how often they are seen: call "
         "it 1_cats, or move it out"),
        (["cats/5_red/a.png"], "cats/5_red", "lies in cats, which has no number: give cats one, as 1_cats"),
        (["-3_cat/a.png"], "-3_cat", "its name does not begin with how often"),
        (["5 cat/a.png"], "5 cat", "its name does not begin with how often"),
        (["5_cat.png/a.png"], "5_cat.png", "it is a folder with a picture's name: rename it"),
        (["5_cat/a.bmp"], "5_cat/a.bmp", ".bmp files are not read: convert it"),
        (["5_cat/a.txt"], "5_cat", "it holds no JPEG, PNG or WebP file: put pictures into it, or remove it"),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_what_does_not_fit_is_told_by_name_and_the_rest_is_read(
    files: list[str], name: str, problem: str, tmp_path: Path
) -> None:
    root = laid(tmp_path, {"1_good/g.png": "", **{file: "x" if file.endswith(".txt") else "" for file in files}})
    listing = list_kohya(KohyaSource(root))
    assert usable(listing) == [("1_good/g.png", "good", 1)]
    ((found, reason),) = problems(listing).items()
    assert found == name
    assert problem in reason


@pytest.mark.parametrize(
    ("files", "below", "message"),
    [
        (["img/5_cat/a.png", "reg/1_cat/b.png", "log/c.txt"], "", "Its folder img does: give {root}/img"),
        (["pictures/5_cat/a.png"], "", "Its folder pictures does: give {root}/pictures"),
        (["reg/1_cat/b.png"], "", "Its folder reg does: give {root}/reg"),
        (["5_cat/a.png"], "5_cat", "It is such a folder itself: give the one it lies in, {root}"),
        (["cats/a.png", "b.png"], "", "Call them as 10_zrkx cat: ten times, and what has no caption is captioned 'zrkx "
         "cat'; or take kind: folder, which reads pictures as they lie"),
        (["5_cat/a.txt"], "", "nor any JPEG, PNG or WebP file (2 other things were passed over)"),
        ([], "nowhere", "does not exist. Give a folder that holds them"),
    ],
    ids=["img", "another name", "reg", "itself", "no number", "empty", "missing"],
)  # fmt: skip
def test_a_folder_without_a_numbered_one_is_refused_with_what_to_do(
    files: list[str], below: str, message: str, tmp_path: Path
) -> None:
    laid(tmp_path, {file: "x" if file.endswith(".txt") else "" for file in files})
    with pytest.raises(SourceError) as caught:
        list_kohya(KohyaSource(tmp_path / below))
    assert message.format(root=tmp_path) in str(caught.value)


def test_a_regularisation_folder_beside_them_is_passed_over_and_named(tmp_path: Path) -> None:
    root = laid(tmp_path, {"5_cat/a.png": "", "reg/1_cat/b.png": ""})
    listing = list_kohya(KohyaSource(root))
    assert (usable(listing), listing.ignored) == ([("5_cat/a.png", "cat", 5)], ("reg/1_cat/b.png",))


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    laid(tmp_path / "elsewhere", {"a.png": "", "a.txt": "secret"})
    root = laid(tmp_path / "set", {"1_x/g.png": "", "1_x/h.png": ""})
    (root / "5_cat").symlink_to(tmp_path / "elsewhere")
    (root / "1_x" / "g.caption").symlink_to(tmp_path / "elsewhere" / "a.txt")
    listing = list_kohya(KohyaSource(root))
    assert usable(listing) == [("1_x/h.png", "x", 1)]
    assert problems(listing) == {
        "5_cat": "it is a link that leads out of the folder: copy what it points to into the folder",
        "1_x/g.png": "its caption g.caption is a link that leads out of the folder: copy it in",
    }
