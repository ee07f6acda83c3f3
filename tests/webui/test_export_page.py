"""The page Export's handlers, without a browser: what can be chosen, and the command that follows from it."""

import shutil
from pathlib import Path
from shlex import split
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the page's packages are not installed: requirements-page.txt")

import gradio as gr

from finetune.cli.main import parse_line
from finetune.run.events import EventLog
from finetune.run.folder import RunFolder
from webui.desk import Desk
from webui.exporting import ExportChoice, Exports, exported_files
from webui.guard import SENT_ENDINGS
from webui.pages.export import _Page
from webui.places import Places

_RECIPE = """\
schema_version: 1
name: cat
model: {kind: miniature}
data: {sources: [{kind: folder, path: "sample:shapes"}]}
"""


class _Noted(Exports):
    """Notes what is to be exported, and exports nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[ExportChoice] = []

    def start(self, run: RunFolder, choice: ExportChoice) -> None:
        choice.require_possible(run.kept_steps())
        self.asked.append(choice)


@pytest.fixture
def page(tmp_path: Path) -> _Page:
    places = Places.at([tmp_path / "runs"], [], recipes=tmp_path, queue=tmp_path / "q", scratch=tmp_path / "scratch")
    for name, kind in (("cat", "lora"), ("whole", "full")):
        run = RunFolder.create(tmp_path / "runs" / name)
        run.recipe.write_text(f"{_RECIPE}adapter: {{kind: {kind}}}\n", encoding="utf-8")
        with EventLog(run.events) as log:
            for step in range(1, 31):
                log.emit("step", step=step, loss=abs(step - 12) + 1.0)
        for step in (10, 20, 30):
            run.checkpoint(step).mkdir()
            (run.checkpoint(step) / "manifest.json").write_text("{}", encoding="utf-8")
    return _Page(Desk.at(places), _Noted())


def chosen(page: _Page, **changes: Any) -> tuple[Any, ...]:
    values = {
        "key": "cat",
        "step": "newest",
        "formats": ["kohya"],
        "precision": "fp16",
        "metadata": "full",
        "card": False,
    }
    return tuple((values | changes).values())


def test_the_best_step_is_offered_by_name_and_number(page: _Page) -> None:
    dropdown = page.choose("cat")[1]
    names = {value: words for words, value in dropdown.choices}
    assert list(names) == ["newest", "best", "30", "20", "10"]
    assert names["best"] == "best: lowest smoothed loss (step 20)"
    page.places.run("cat").events.write_text("", encoding="utf-8")
    assert [value for _, value in page.choose("cat")[1].choices] == ["newest", "30", "20", "10"]


@pytest.mark.parametrize(
    ("changes", "step", "best", "card"),
    [({}, None, False, False), ({"step": "20"}, 20, False, False), ({"step": "best", "card": True}, None, True, True)],
)
def test_what_is_chosen_is_the_line_and_what_is_started(
    page: _Page, changes: dict[str, Any], step: int | None, best: bool, card: bool
) -> None:
    told = parse_line(split(page.tell_line(*chosen(page, **changes)))[1:])
    assert (told.run_folder, told.step, told.best, told.card) == (str(page.places.run("cat").path), step, best, card)
    page.start(*chosen(page, **changes))
    assert isinstance(page.exports, _Noted)
    (asked,) = page.exports.asked
    assert parse_line(asked.words(page.places.run("cat").path)) == told


@pytest.mark.parametrize(
    "changes",
    [{"step": "15"}, {"step": "--json"}, {"step": "²"}, {"card": "yes"}, {"formats": []}, {"formats": ["../x"]},
     {"precision": "int4"}, {"metadata": "all"}, {"key": "../cat"}, {"key": None}],
)  # fmt: skip
def test_what_is_not_offered_is_told_and_nothing_is_started(page: _Page, changes: dict[str, Any]) -> None:
    with pytest.raises(gr.Error):
        page.start(*chosen(page, **changes))
    assert isinstance(page.exports, _Noted)
    assert page.exports.asked == []


def test_a_whole_model_has_no_formats_and_no_card(page: _Page) -> None:
    shown = page.choose("whole")
    assert (shown[2].visible, shown[5].visible) == (False, False)
    assert "--format" not in shown[6]
    assert "--card" not in shown[6]


def test_a_card_and_its_pictures_are_there_to_download(
    page: _Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    run = page.places.run("cat")
    for name in ("cat.safetensors", "cat-card/README.md", "cat-card/images/01.jpg"):
        (run.exports / name).parent.mkdir(parents=True, exist_ok=True)
        (run.exports / name).write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
    files = next(part for part in page.choose("cat") if isinstance(part, gr.File))
    names = [file["orig_name"] for file in files.value]
    assert (names[0], set(names[1:])) == ("cat.safetensors", {"README.md", "01.jpg"})
    for file in exported_files(run):
        assert page.places.is_served(file.path, shown=False)
        assert file.path.suffix in SENT_ENDINGS


def test_a_run_that_is_deleted_is_told_once(page: _Page, tmp_path: Path) -> None:
    known = page.mark("cat", "")
    shutil.rmtree(tmp_path / "runs" / "cat")
    gone = page.mark("cat", known)
    assert gone == "gone"
    assert "This run is gone" in page.look("cat", known)[1]
    assert page.mark("cat", gone) == gr.skip()
