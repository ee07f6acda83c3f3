"""The caption editor and the recipe form, typed into as a person would, in a real browser."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.browser.conftest import Visit

Begin = Callable[..., Visit]

SCRIPT = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


def lay_pictures(folder: Path, captions: list[str]) -> Path:
    pictures = folder / "cats"
    pictures.mkdir()
    for index, caption in enumerate(captions):
        shade = (40 + 30 * index, 90, 200 - 30 * index)
        Image.new("RGB", (96 + 16 * index, 64), shade).save(pictures / f"cat-{index}.png")
        (pictures / f"cat-{index}.txt").write_text(caption)
    return pictures


def open_desk(page: Visit) -> None:
    page.open("dataset?folder=cats", "#dataset-inspect")
    page.wait_until(lambda: page.tab.locator("#dataset-folder input").input_value().startswith("cats"))
    page.tab.click("#dataset-inspect")
    page.tab.locator("#dataset-gallery img").first.wait_for(timeout=60_000)


def open_picture(page: Visit, name: str) -> None:
    page.tab.locator("#dataset-gallery button").filter(has_text=name).first.click()


def test_a_caption_is_edited_and_its_tokens_and_its_file_follow(visit: Begin) -> None:
    page = visit()
    pictures = lay_pictures(page.folder, ["a grey cat", "a black cat, sitting", "a cat"])
    open_desk(page)
    open_picture(page, "cat-0.png")
    caption = page.tab.locator("#dataset-caption textarea")
    page.wait_for_value(caption, "a grey cat")
    page.wait_for_text("#dataset-tokens", re.compile(r"\b3\b"))
    caption.fill("a grey cat on a red sofa, looking up")
    page.wait_for_text("#dataset-tokens", re.compile(r"\b10\b"))
    page.tab.click("#dataset-save")
    page.wait_until(lambda: (pictures / "cat-0.txt").read_text() == "a grey cat on a red sofa, looking up")

    page.reload()
    open_desk(page)
    open_picture(page, "cat-0.png")
    page.wait_for_value(page.tab.locator("#dataset-caption textarea"), "a grey cat on a red sofa, looking up")


def test_a_change_made_elsewhere_is_noticed_and_not_overwritten(visit: Begin) -> None:
    page = visit()
    pictures = lay_pictures(page.folder, ["a grey cat", "a cat"])
    open_desk(page)
    open_picture(page, "cat-0.png")
    caption = page.tab.locator("#dataset-caption textarea")
    page.wait_for_value(caption, "a grey cat")
    (pictures / "cat-0.txt").write_text("changed elsewhere")
    caption.fill("mine")
    page.tab.click("#dataset-save")
    page.wait_for_text("#dataset-theirs", "changed elsewhere")
    assert (pictures / "cat-0.txt").read_text() == "changed elsewhere"


def test_scripts_in_captions_names_and_recipes_stay_text(visit: Begin) -> None:
    page = visit()
    pictures = lay_pictures(page.folder, [SCRIPT, f"a cat {SCRIPT}"])
    evil = pictures / "<img src=x onerror=alert(1)>.png"
    Image.new("RGB", (64, 64), "red").save(evil)
    run = page.folder / "runs" / "<b onmouseover=alert(1)>run"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(f"schema_version: 1\npurpose: {SCRIPT!r}\n")
    (run / "events.jsonl").write_text(
        '{"seq": 1, "time": 1.0, "kind": "warning", "step": null, "message": "<img src=x onerror=alert(2)>"}\n'
        '{"seq": 2, "time": 2.0, "kind": "run_finished", "step": 1, "status": "failed", '
        '"message": "<script>document.title=3</script>", "exports": []}\n'
    )
    (page.folder / "evil.yaml").write_text(f"extends: quickstart\nschema_version: 1\npurpose: {SCRIPT!r}\n")
    shown: list[str] = []
    page.tab.on("dialog", lambda dialog: (shown.append(dialog.message), dialog.dismiss()))
    open_desk(page)
    open_picture(page, "cat-0.png")
    page.tab.wait_for_timeout(500)
    for place in ("", "monitor", "recipe?recipe=evil", "playground", "export"):
        page.open(place)
        page.tab.wait_for_timeout(1500)
        assert "owned" not in page.tab.title()
    assert not shown
    page.open("monitor")
    page.wait_for_text("#monitor-messages", "<img src=x onerror=alert(2)>")


def test_a_mistake_is_told_beside_its_field_and_mended_there(visit: Begin) -> None:
    page = visit()
    (page.folder / "mine.yaml").write_text(
        "# keep this line\nextends: quickstart\nschema_version: 1\nname: mine\n"
        "adapter:\n  unet:\n    rank: 0 # too few\n"
    )
    page.open("recipe?recipe=mine", "#recipe-start")
    page.wait_for_text("#recipe-summary", "adapter.unet.rank")
    page.wait_for_text("#recipe-summary", "line 7")
    rank = page.tab.get_by_label(re.compile("U-Net: rank")).first
    page.wait_for_value(rank, "0")
    rank.fill("12")
    page.wait_for_text("#recipe-summary", "No problem")
    page.wait_for_text("#recipe-yaml", "rank: 12 # too few")
    page.reload()
    page.wait_for_value(page.tab.get_by_label(re.compile("U-Net: rank")).first, "12")
    page.tab.click("#recipe-save")
    page.wait_until(lambda: "rank: 12 # too few" in (page.folder / "mine.yaml").read_text())
    assert (page.folder / "mine.yaml").read_text().startswith("# keep this line\nextends: quickstart\n")


@pytest.mark.parametrize("yaml", ["training: {steps: -1}", "adapter: [", "modle: {kind: miniature}"])
def test_what_is_wrong_in_the_yaml_is_told_as_it_is_typed(visit: Begin, yaml: str) -> None:
    page = visit()
    page.open("recipe", "#recipe-start")
    page.wait_for_text("#recipe-summary", "No problem")
    editor = page.tab.locator("#recipe-yaml .cm-content")
    editor.click()
    page.tab.keyboard.press("Control+End")
    page.tab.keyboard.type(f"\n{yaml}")
    page.tab.locator("#recipe-summary").filter(has_not_text="No problem").wait_for()
    page.wait_for_text("#recipe-summary", {"t": "training.steps", "a": "line", "m": "model"}[yaml[0]])
