"""What a person does with the page, from the first click to the file, in a real browser."""

import json
import re
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from safetensors import safe_open

from finetune.run.events import read_events
from tests.browser.conftest import SMALL, Visit

Begin = Callable[..., Visit]


def finished(run: Path) -> bool:
    return any(event["kind"] == "run_finished" for event in read_events(run / "events.jsonl")[0])


def starts_of(run: Path) -> list[int | None]:
    """Return the step that each start of a run went on from."""
    return [each["resumed_from"] for each in read_events(run / "events.jsonl")[0] if each["kind"] == "run_started"]


def test_from_the_first_click_to_the_exported_file(visit: Begin) -> None:
    page = visit()
    page.open()
    page.wait_for_text("#runs-list", "No run yet")
    page.tab.click("#runs-quickstart")

    # The monitor opens by itself, and a reload in the middle shows the same run.
    page.tab.wait_for_url(re.compile(r"/monitor\?run=quickstart"))
    page.wait_for_text("#monitor-head", "Running, step", seconds=120)
    page.reload()
    page.wait_for_text("#monitor-head", "Running, step", seconds=30)
    assert page.tab.locator("#monitor-run input").input_value() == "quickstart"
    page.tab.wait_for_selector("#monitor-plot-loss svg.marks path")
    page.tab.wait_for_selector("#monitor-wall img")
    second = page.tab.context.new_page()
    second.goto(page.tab.url)
    second.locator("#monitor-head").filter(has_text="Running, step").wait_for()
    page.wait_for_text("#monitor-head", "Finished, step 100 of 100", seconds=240)
    second.locator("#monitor-head").filter(has_text="Finished, step 100 of 100").wait_for()
    second.close()
    assert finished(page.folder / "runs/quickstart")
    page.wait_for_text("#monitor-wall", "step 100: a <zig> on a white background")

    # Before and after: both pictures are there, and the keyboard or the mouse moves the slider.
    page.tab.locator("#monitor-slider").scroll_into_view_if_needed()
    pair = page.tab.locator("#monitor-slider img")
    assert [address.rpartition("/")[2] for address in pair.evaluate_all("all => all.map(each => each.src)")] == [
        "01-lora-off.png",
        "01-lora.png",
    ]
    before = pair.nth(1).get_attribute("style")
    box = page.tab.locator("#monitor-slider .slider-wrap").bounding_box()
    page.tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.tab.mouse.down()
    page.tab.mouse.move(box["x"] + box["width"] / 2 - 60, box["y"] + box["height"] / 2, steps=4)
    page.tab.mouse.up()
    assert pair.nth(1).get_attribute("style") != before

    draw_and_download(page)
    export_and_download(page)


def draw_and_download(page: Visit) -> None:
    page.open("playground?run=quickstart", "#playground-draw")
    prompt = page.tab.locator("#playground-prompt textarea")
    page.wait_for_value(prompt, "a <zig> on a white background")
    prompt.fill("a <zig> on a black background")
    for name in ("Base", "Base + LoRA", "Base + LoRA + refiner"):
        box = page.tab.locator("#playground-columns").get_by_label(name, exact=True)
        if not box.is_checked():
            box.check()
    page.tab.click("#playground-draw")
    page.tab.locator("#playground-pictures img").nth(2).wait_for(timeout=180_000)
    page.reload()
    page.tab.locator("#playground-pictures img").nth(2).wait_for()
    addresses = page.tab.locator("#playground-pictures img").evaluate_all("all => all.map(each => each.src)")
    pictures = [page.tab.request.get(address).body() for address in dict.fromkeys(addresses)]
    assert len(set(pictures)) >= 3
    place = page.folder / "drawn.png"
    place.write_bytes(pictures[0])
    with Image.open(place) as picture:
        assert json.loads(picture.text["atelier"])["prompt"] == "a <zig> on a black background"


def export_and_download(page: Visit) -> None:
    page.open("export?run=quickstart", "#export-start")
    page.reload()
    page.tab.click("#export-start")
    link = page.tab.locator("#export-files a[download]").first
    link.wait_for(timeout=120_000)
    with page.tab.expect_download() as waiting:
        link.click()
    place = page.folder / "downloaded.safetensors"
    waiting.value.save_as(place)
    with safe_open(place, "np") as file:
        assert file.metadata()["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
        assert len(list(file.keys())) > 100


def test_a_run_is_stopped_and_goes_on(visit: Begin) -> None:
    page = visit()
    (page.folder / "small.yaml").write_text(SMALL.format(steps=400, every=400))
    page.open("recipe?recipe=small", "#recipe-start")
    page.wait_for_text("#recipe-summary", "No problem")
    page.tab.click("#recipe-start")
    page.tab.click("a[href*='monitor?run=small']")
    page.wait_for_text("#monitor-head", "Running, step", seconds=120)
    page.tab.click("#monitor-stop")
    page.wait_for_text("#monitor-head", "Stopped and saved", seconds=60)
    stopped = next(e for e in read_events(page.folder / "runs/small/events.jsonl")[0] if e["kind"] == "run_finished")
    assert stopped["status"] == "stopped"
    page.reload()
    page.tab.locator("#monitor-resume:not([disabled])").click()
    page.wait_until(lambda: len(starts_of(page.folder / "runs/small")) == 2, seconds=120)
    assert starts_of(page.folder / "runs/small") == [None, stopped["step"]]
    page.wait_for_text("#monitor-head", "Running, step", seconds=30)
    page.tab.click("#monitor-stop")
    page.wait_for_text("#monitor-head", "Stopped and saved", seconds=60)


def test_two_runs_are_queued_and_both_finish(visit: Begin) -> None:
    page = visit()
    (page.folder / "small.yaml").write_text(SMALL.format(steps=4, every=4))
    page.open()
    page.tab.get_by_role("button", name="Add a run").click()
    page.choose("#queue-recipe", "small.yaml")
    for name in ("first", "second"):
        page.tab.locator("#queue-overrides textarea").fill(f"name={name}")
        page.tab.click("#queue-add")
        page.wait_for_text("#queue-item-1" if name == "first" else "#queue-item-2", f"name={name}")
    page.reload()
    page.wait_for_text("#queue-item-2", "name=second")
    page.wait_for_text("#queue-item-1", "Finished", seconds=120)
    page.wait_for_text("#queue-item-2", "Finished", seconds=120)
    assert finished(page.folder / "runs/first")
    assert finished(page.folder / "runs/second")
    page.wait_for_text("#runs-list", "2 runs")
