"""Takes pictures of every page as a browser shows it, wide and narrow, light and dark, of a real run.

    python docs/take_page_pictures.py [--folder FOLDER]        (make page-pictures)

FOLDER (build/page-demo) holds what is shown; what is missing there is made first: the quickstart and a smaller run
beside it, trained, which takes some minutes. All pictures go to `build/page-pictures`; three of them, made small, to
`docs/pictures`, where the README shows them. Needs the tests' packages and a Chromium on the PATH. It checks nothing.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "datasets")]

from tests.browser.conftest import CHROMIUM  # noqa: E402
from tests.jobs.conftest import child_environment  # noqa: E402
from tests.webui.serving import serve_page  # noqa: E402

OUT = ROOT / "build/page-pictures"
README_PICTURES = ROOT / "docs/pictures"

SIZES = {"1280": (1280, 900), "390": (390, 844)}
SCHEMES = ("light", "dark")
RUNS = {"quickstart": [], "rank-4": ["name=rank-4", "adapter.unet.rank=4", "training.steps=60"]}
WITH_PROBLEM = """\
# My first recipe: the quickstart with another rank.
extends: quickstart
schema_version: 1
name: my-first
training:
  steps: 200
adapter:
  unet:
    rank: 0
"""
# Pictures out of sight are not loaded before they are scrolled to.
_LOAD_ALL = "document.querySelectorAll('img').forEach(each => { each.loading = 'eager'; })"
_PATIENCE_MS = 180_000
_SETTLE_MS = 1500


def main() -> None:
    """Make what is to be shown, serve it, and take the pictures."""
    parser = argparse.ArgumentParser(description="Take pictures of the web page.")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/page-demo", help="holds what is shown")
    folder = parser.parse_args().folder.resolve()
    if CHROMIUM is None:
        sys.exit("no Chromium on the PATH. Install it (Debian: apt install chromium)")
    prepare(folder)
    OUT.mkdir(parents=True, exist_ok=True)
    with serve_page(folder) as port, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for size, scheme, tab in _tabs(browser, f"http://127.0.0.1:{port}"):
            for name, show in PAGES.items():
                show(tab)
                take(tab, OUT / f"{name}-{size}-{scheme}.png")
        browser.close()
    for name, (of, top, height) in FOR_README.items():
        shrink(OUT / f"{of}.png", README_PICTURES / f"page-{name}.webp", top, height)


def prepare(folder: Path) -> None:
    """Train what is not there yet, and put something into a queue that is paused."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, settings in RUNS.items():
        events = folder / "runs" / name / "events.jsonl"
        if not events.exists():
            _atelier(folder, "train", "quickstart", *settings)
        elif '"status": "finished"' not in events.read_text("utf-8"):
            _atelier(folder, "train", str(events.parent), "--resume")
    (folder / "my-first.yaml").write_text(WITH_PROBLEM, "utf-8")
    queue = folder / "runs/_queue/queue.json"
    if not queue.exists() or not json.loads(queue.read_bytes())["items"]:
        _atelier(folder, "queue", "pause")
        for rank in (16, 32):
            _atelier(folder, "queue", "add", "quickstart", f"name=rank-{rank}", f"adapter.unet.rank={rank}")


def _atelier(folder: Path, *words: str) -> None:
    subprocess.run([sys.executable, "-m", "finetune", *words], cwd=folder, env=child_environment(), check=True)


@contextmanager
def _context(browser: Any, origin: str, size: tuple[int, int], scheme: str) -> Iterator[Page]:
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, base_url=origin, reduced_motion="reduce"
    )
    try:
        tab = context.new_page()
        tab.set_default_timeout(_PATIENCE_MS)
        yield tab
    finally:
        context.close()


def _tabs(browser: Any, origin: str) -> Iterator[tuple[str, str, Page]]:
    for size, pixels in SIZES.items():
        for scheme in SCHEMES:
            with _context(browser, origin, pixels, scheme) as tab:
                yield size, scheme, tab


def show_runs(tab: Page) -> None:
    """Show the list, two runs compared, and the queue."""
    tab.goto("/")
    tab.locator("#runs-list img").nth(1).wait_for()
    tab.get_by_role("button", name="Compare").click()
    for run in RUNS:
        tab.locator("#runs-chosen input").click()
        tab.locator("[role=option]").filter(has_text=run).first.click()
    tab.locator("h1").first.click()
    for run in RUNS:
        tab.locator("#runs-plot svg.marks text").filter(has_text=run).first.wait_for()


def show_monitor(tab: Page) -> None:
    """Show a finished run with its previews, and before and after under the slider."""
    tab.goto("/monitor?run=quickstart")
    tab.locator("#monitor-plot-loss svg.marks path").first.wait_for()
    tab.locator("#monitor-wall img").nth(3).wait_for()
    tab.locator("#monitor-slider").scroll_into_view_if_needed()
    tab.locator("#monitor-slider img").nth(1).wait_for()


def show_dataset(tab: Page) -> None:
    """Show the quickstart's pictures with what is cut away, and a caption with its tokens."""
    tab.goto("/dataset?folder=sample:quickstart")
    tab.wait_for_timeout(_SETTLE_MS)
    if tab.locator("#dataset-gallery img").count() == 0:  # else an earlier tab had it inspected
        tab.locator("#dataset-inspect").click()
    tab.locator("#dataset-gallery img").nth(3).wait_for()
    tab.locator("#dataset-cuts input").check()
    tab.wait_for_timeout(_SETTLE_MS)
    while tab.locator("#dataset-picture img").count() == 0:  # a click is lost where the gallery is just drawn anew
        tab.locator("#dataset-gallery button").first.click()
        tab.wait_for_timeout(_SETTLE_MS)


def show_recipe(tab: Page) -> None:
    """Show a recipe as it is begun."""
    tab.goto("/recipe")
    tab.locator("#recipe-summary").filter(has_text="No problem").wait_for()


def show_problem(tab: Page) -> None:
    """Show a recipe with a problem beside its field."""
    tab.goto("/recipe?recipe=my-first")
    tab.locator("#recipe-summary").filter(has_text="adapter.unet.rank").wait_for()
    tab.locator(".setting-problem p.error").first.wait_for()


def show_playground(tab: Page) -> None:
    """Show a grid over strengths; it is drawn once and found again by the tabs that follow."""
    tab.goto("/playground?run=quickstart")
    tab.wait_for_timeout(_SETTLE_MS)
    if tab.locator("#playground-pictures img").count() == 0:
        tab.get_by_role("button", name="Grid").click()
        tab.locator("#playground-strengths input, #playground-strengths textarea").first.fill("0.5, 1")
        for name in ("Base", "Base + LoRA", "Base + LoRA + refiner"):
            tab.locator("#playground-columns").get_by_label(name, exact=True).check()
        tab.locator("#playground-draw").click()
        tab.locator("#playground-status").filter(has_text="pictures drawn").wait_for()
    tab.locator("#playground-pictures img").first.wait_for()


def show_export(tab: Page) -> None:
    """Show a run's exported file and what stands in it."""
    tab.goto("/export?run=quickstart")
    tab.locator("#export-facts dt").first.wait_for()


def take(tab: Page, path: Path) -> None:
    """Take a picture of the whole page, once it has come to rest."""
    tab.evaluate(_LOAD_ALL)
    tab.wait_for_timeout(_SETTLE_MS)
    tab.evaluate("window.scrollTo(0, 0)")
    tab.screenshot(path=path, full_page=True)
    print(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path, flush=True)


def shrink(source: Path, target: Path, top: int, height: int) -> None:
    """Cut what the README shows out of a picture, and write it small."""
    with Image.open(source) as picture:
        bottom = min(picture.height, top + height)
        picture.convert("RGB").crop((0, top, picture.width, bottom)).save(target, quality=80, method=6)
    print(f"{target.name}: {target.stat().st_size / 1000:.0f} kB")


PAGES: dict[str, Callable[[Page], None]] = {
    "runs": show_runs,
    "monitor": show_monitor,
    "dataset": show_dataset,
    "recipe": show_recipe,
    "recipe-problem": show_problem,
    "playground": show_playground,
    "export": show_export,
}

FOR_README = {
    "monitor": ("monitor-1280-light", 0, 1195),
    "recipe": ("recipe-problem-1280-light", 0, 1190),
    "playground": ("playground-1280-dark", 0, 1105),
}
"""Which picture, and which part of it: from the top, so many pixels high."""


if __name__ == "__main__":
    main()
