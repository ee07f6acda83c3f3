"""What is shown, selected and planned; the page's handlers without a browser: text stays text, conflicts are told."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from webui.dataset_desk import view as looking
from webui.dataset_desk.captions import read_captions
from webui.dataset_desk.errors import EditError
from webui.dataset_desk.operations import OPERATIONS, Given, plan
from webui.dataset_desk.report import Report, ShownBucket, ShownPicture
from webui.dataset_desk.tokens import count_tokens
from webui.dataset_desk.view import PAGE, WITHOUT_CAPTION, Filter, View
from webui.pages.dataset.answers import Answers, Histories
from webui.pages.dataset.changing import Changing
from webui.pages.dataset.choosing import Asked, Choosing
from webui.pages.dataset.editing import Editing
from webui.pages.dataset.gallery import Gallery
from webui.pages.dataset.parts import Parts
from webui.pages.dataset.words import finding_words, page_words, picture_words, plan_words, token_words
from webui.places import Places

SUMMARY = {"pictures": 0, "unusable": 0, "showings_per_epoch": None, "buckets": 2, "errors": 0, "warnings": 0,
           "notes": 0}  # fmt: skip
HOSTILE = "<img src=x onerror=alert(1)>"


def picture(index: int, name: str, bucket: tuple[int, int], *findings: str) -> ShownPicture:
    return ShownPicture(
        index, name, Path(f"{index}.webp"), (9, 9), bucket, 1.0, 0.0, (0.0, 0.0, 1.0, 1.0), 1, "", 0, "", findings
    )


def view_of(folder: Path, captions: dict[str, str]) -> View:
    for name, text in captions.items():
        (folder / name).write_bytes(b"")
        if text:
            (folder / name).with_suffix(".txt").write_text(text, "utf-8")
    names = sorted(captions)
    pictures = tuple(
        picture(index, name, (64, 64) if index % 2 else (32, 96), *(["blank"] if index == 1 else []))
        for index, name in enumerate(names)
    )
    buckets = (ShownBucket((32, 96), 1, 1, 1, 0), ShownBucket((64, 64), 1, 1, 1, 0))
    report = Report("set", SUMMARY | {"pictures": len(names)}, (), buckets, pictures, (), (), "CLIP", 225)
    return looking.with_captions(View("set", folder, number=1, report=report), read_captions(folder))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = (tmp_path / "set").resolve()
    root.mkdir()
    return root


def test_what_is_shown_is_what_every_part_of_the_filter_lets_through(folder: Path) -> None:
    view = view_of(folder, {"a.png": "Cat, sky", "b.png": "category", "c.png": "", "d.png": "cat, tree"})

    def shown(**chosen: Any) -> list[str]:
        return [each.name for each in looking.filtered(view, Filter(**chosen)).shown]

    assert shown() == ["a.png", "c.png", "b.png", "d.png"]
    assert shown(tag="cat") == ["a.png", "d.png"]
    assert shown(words="CAT") == ["a.png", "b.png", "d.png"]
    assert shown(words="d.p") == ["d.png"]
    assert shown(bucket=(64, 64), tag="cat") == ["d.png"]
    assert shown(finding="blank") == ["b.png"]
    assert shown(finding=WITHOUT_CAPTION) == ["c.png"]
    (folder / "c.txt").write_text("cat", "utf-8")
    view = looking.with_captions(view, read_captions(folder))
    assert shown(finding=WITHOUT_CAPTION) == []
    assert view.tags(2) == [("cat", 3), ("sky", 1)]


def test_what_is_not_edited_here_is_still_read(folder: Path) -> None:
    view = view_of(folder, {"a.png": "mine", "b.png": "ours"})
    assert view.report is not None
    trained = tuple(dataclasses.replace(each, caption=f"{each.name} as trained") for each in view.report.pictures)
    view = dataclasses.replace(view, report=dataclasses.replace(view.report, pictures=trained))
    (folder / "b.txt").unlink()
    (folder / "b.txt").symlink_to(folder / "a.txt")
    view = looking.with_captions(view, read_captions(folder))
    assert (view.text_of("a.png"), view.text_of("b.png")) == ("mine", "b.png as trained")
    assert view.captions["b.png"].slot is None
    shards = looking.with_captions(view, [])
    assert [each.text for each in shards.captions.values()] == ["a.png as trained", "b.png as trained"]
    assert all(each.problem for each in shards.captions.values())


def test_pages_hold_every_picture_once_and_a_selection_outlives_a_filter(folder: Path) -> None:
    view = view_of(folder, {f"{index:03d}.png": f"tag {index % 3}" for index in range(2 * PAGE + 5)})
    pages, seen = view, []
    for _ in range(view.num_pages):
        seen += [each.name for each in pages.on_page]
        pages = looking.turned(pages, 1)
    assert view.num_pages == 3
    assert seen == [each.name for each in view.shown]
    assert pages.page == looking.turned(pages, 1).page == 2
    some = looking.selecting_shown(looking.filtered(view, Filter(tag="tag 1")))
    other = looking.toggled(looking.filtered(some, Filter(tag="tag 2")), "002.png")
    assert {each.picture for each in other.chosen(selected=True)} == {*some.selected, "002.png"}
    assert {each.text for each in other.chosen(selected=False)} == {"tag 2"}
    first, last = view.shown[0].name, view.shown[-1].name
    assert looking.neighbour(view, first, -1) is None
    assert looking.neighbour(view, last, 1) is None
    assert looking.neighbour(view, first, 1) == view.shown[1]


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_a_plan_changes_nothing_and_says_all_it_would_write(name: str, folder: Path) -> None:
    view = view_of(folder, {"a.png": "tree, tree ,  zrkx", "b.png": "sky, zrkx", "c.png": ""})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    given = Given(find="tree", replacement="oak", tag="zrkx", new_tag="zrk", keep_first=1)
    found = plan(list(view.captions.values()), OPERATIONS[name], given)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert found.num_files == len(found.puts) == len(found.changes) > 0
    assert all(old == view.text_of(picture) != new for picture, old, new in found.changes)
    assert found.what


def test_text_from_files_is_never_markup(folder: Path) -> None:
    view = view_of(folder, {f"{HOSTILE}.png": HOSTILE})
    long = " ".join([HOSTILE] * 100)
    found = plan(list(view.captions.values()), OPERATIONS["add-end"], Given(tag="x"))
    unchangeable = dataclasses.replace(found, unchangeable=((HOSTILE, HOSTILE),))
    assert view.report is not None
    for html in (
        token_words(count_tokens(long, "sdxl", 150), HOSTILE),
        plan_words(unchangeable, 1, HOSTILE),
        picture_words(view.shown[0], Path(f"/{HOSTILE}.webp")),
        page_words(view),
        finding_words(view.report),
    ):
        assert HOSTILE not in html
    assert "Marked: is not read" in token_words(count_tokens(long, "sdxl", 150))


class Page:
    """A page's handlers as a browser would call them."""

    def __init__(self, root: Path, scratch: Path) -> None:
        places = Places.at([root], [root], recipes=root, queue=root / "queue", scratch=scratch)

        @dataclasses.dataclass(frozen=True)
        class OnlyPlaces:
            places: Places

        # The parts stand for themselves by their names: to build them would start what Gradio serves with.
        self.parts = Parts(**{each.name: each.name for each in dataclasses.fields(Parts)})  # type: ignore[arg-type]
        histories = Histories(scratch / "history")
        self.answers = Answers(self.parts, histories)
        self.choosing = Choosing(OnlyPlaces(places), self.parts, self.answers)  # type: ignore[arg-type]
        self.gallery = Gallery(self.parts, self.answers)
        self.editing = Editing(self.parts, self.answers, histories)
        self.changing = Changing(self.parts, self.answers, histories, self.editing)


@pytest.fixture
def page(tmp_path: Path) -> Page:
    return Page(tmp_path, tmp_path / "scratch")


def test_a_caption_is_saved_and_what_others_wrote_meanwhile_is_shown_first(folder: Path, page: Page) -> None:
    view = view_of(folder, {"a.png": "mine", "b.png": "other"})
    parts = page.parts
    opened = view.captions["a.png"]
    answer = page.editing.save(view, opened, "new", False)
    assert (folder / "a.txt").read_text("utf-8") == "new"
    view, opened = answer[parts.view], answer[parts.opened]
    assert view.text_of("a.png") == opened.text == "new"
    assert answer[parts.caption].info is None, "no word of there being none"
    (folder / "a.txt").write_text("theirs", "utf-8")
    answer = page.editing.save(view, opened, "newer", False)
    assert answer[parts.theirs] == "theirs"
    assert (folder / "a.txt").read_text("utf-8") == "theirs"
    taken = page.editing.take(view, opened, False, "sdxl", 225)
    assert taken[parts.caption] == "theirs"
    page.editing.overwrite(view, opened, "newer", False)
    assert (folder / "a.txt").read_text("utf-8") == "newer"


def test_a_preview_is_applied_as_it_was_shown_or_not_at_all(folder: Path, page: Page) -> None:
    view = view_of(folder, {"a.png": "tree", "b.png": "tree, sky"})
    parts = page.parts
    asked = ("shown", "remove", "", "", False, False, "tree", "", 0)
    answer = page.changing.preview(view, *asked)
    planned = answer[parts.plan]
    (folder / "b.txt").write_text("theirs", "utf-8")
    after = (view, None, "", False, "sdxl", 225)
    with pytest.raises(gr.Error, match=r"b\.txt.*changed by something else"):
        page.changing.apply(planned, *after)
    assert (folder / "a.txt").read_text("utf-8") == "tree"
    view = page.changing.reread(*after)[parts.view]
    planned = page.changing.preview(view, *asked)[parts.plan]
    view = page.changing.apply(planned, view, *after[1:])[parts.view]
    assert [(folder / name).read_text("utf-8") for name in ("a.txt", "b.txt")] == ["", "theirs"]
    page.changing.undo(view, *after[1:])
    assert (folder / "a.txt").read_text("utf-8") == "tree"
    with pytest.raises(gr.Error, match="not saved"):
        page.changing.redo(view, view.captions["b.png"], "half written", False, "sdxl", 225)


def test_a_folder_is_inspected_from_the_page(folder: Path, page: Page) -> None:
    from PIL import Image

    Image.new("RGB", (64, 64), "#123456").save(folder / "a.png")
    parts = page.parts
    answer = page.choosing.inspect("set", ".txt", View())
    assert answer[parts.watched] == Asked("set", folder, ".txt")
    for _ in range(600):
        if parts.view in answer:
            break
        time.sleep(0.1)
        answer = page.choosing.tick(answer[parts.watched], View())
    view = answer[parts.view]
    assert [each.name for each in view.shown] == ["a.png"]
    thumbnail = view.shown[0].thumbnail
    assert thumbnail is not None
    assert thumbnail.is_relative_to(page.choosing.desk.places.scratch)


def test_what_gradio_shows_as_markdown_holds_nothing_of_a_file(folder: Path, page: Page) -> None:
    view = view_of(folder, {"a.png": "", "**b**.png": "tree"})
    (folder / "**b**.txt").unlink()
    (folder / "**b**.txt").symlink_to(folder / "c")
    view = looking.with_captions(view, read_captions(folder))
    parts = page.parts
    for picture in view.shown:
        answer = page.editing.open_caption(view, picture, None, "", with_cuts=False, model="sdxl", limit=75)
        box = answer[parts.caption]
        assert picture.name in box.label
        assert "b" not in str(box.info).split()
        assert box.interactive == (picture.name == "a.png")
        assert ("is a link" in answer[parts.tokens].value) == (picture.name == "**b**.png")


@pytest.mark.parametrize("name", ["../set", "/etc", "", None, "missing", "sample:none", "a\0b"])
def test_only_folders_of_the_pages_places_are_inspected(name: str | None, page: Page) -> None:
    with pytest.raises(gr.Error):
        page.choosing.inspect(name, ".txt", View())
    with pytest.raises(gr.Error):
        page.choosing.inspect("set", ".exe", View())


def test_what_no_list_offers_is_refused(folder: Path, page: Page) -> None:
    view = view_of(folder, {"a.png": "tree"})
    with pytest.raises(gr.Error, match="no such bucket"):
        page.gallery.filter(view, "1x1", "", "", "", False)
    with pytest.raises(gr.Error, match="no such change"):
        page.changing.choose_operation("format")
    with pytest.raises(gr.Error, match="Tokens"):
        page.editing.type(view, view.captions["a.png"], "x", "sdxl", 10**9)
    sample = page.choosing.desk.places.picture_folder("sample:quickstart")
    with pytest.raises(gr.Error, match="Copy the folder"):
        page.changing.undo(dataclasses.replace(view, folder=sample), None, "", False, "sdxl", 225)
    with pytest.raises(EditError):
        plan([], OPERATIONS["replace"], Given())
