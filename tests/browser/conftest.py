"""A real Chromium in front of a real page. Where there is none, these tests are skipped, and say so."""

import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from finetune.recipe import dump_recipe, load_recipe
from finetune.run.events import EventLog
from finetune.run.folder import RunFolder
from tests.webui.serving import serve_page

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name)) is not None),
    None,
)
AXE = Path(sys.prefix) / "axe/node_modules/axe-core/axe.min.js"
PATIENCE_MS = 30_000

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a browser where there is none."""
    reason = (
        "no Chromium on the PATH: the page is not tested in a browser. Install it (Debian: apt install chromium)"
        if CHROMIUM is None
        else ""
    )
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.browser)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@dataclass
class Visit:
    """A page that is served from a folder, and one tab of a browser that looks at it."""

    folder: Path
    port: int
    tab: Any

    def open(self, path: str = "", wait_for: str = "h1") -> None:
        self.tab.goto(f"http://127.0.0.1:{self.port}/{path}")
        self.tab.wait_for_selector(wait_for)

    def reload(self) -> None:
        self.tab.reload()
        self.tab.wait_for_selector("h1")

    def text(self, selector: str) -> str:
        return str(self.tab.locator(selector).inner_text())

    def wait_for_text(self, selector: str, words: "str | re.Pattern[str]", *, seconds: float = 30) -> None:
        self.tab.locator(selector).filter(has_text=words).first.wait_for(timeout=1000 * seconds)

    def wait_for_value(self, field: Any, value: str) -> None:
        """Wait until the page has filled a field, so that what is typed then stays."""
        give_up = time.monotonic() + PATIENCE_MS / 1000
        while field.input_value() != value:
            assert time.monotonic() < give_up, f"{field.input_value()!r} is not {value!r}"
            self.tab.wait_for_timeout(50)

    def wait_until(self, holds: Callable[[], bool], *, seconds: float = PATIENCE_MS / 1000) -> None:
        """Wait until something holds outside the browser."""
        give_up = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < give_up, "it does not come"
            self.tab.wait_for_timeout(50)

    def choose(self, selector: str, words: str) -> None:
        """Choose an entry of a dropdown, by typing it as a person would."""
        field = self.tab.locator(f"{selector} input").first
        field.click()
        self.tab.locator("[role=option]").filter(has_text=words).first.click()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        # Nothing of a test is worth a sandbox, and containers do not allow one.
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Visit]]:
    """Return what opens a tab on a page served from this test's folder.

    The test fails where a script of the page does, where an answer is an error, and where anything is asked elsewhere.
    """
    stack = []

    def begin(
        width: int = 1280, height: int = 900, scheme: str = "light", folder: Path = tmp_path, **words: str
    ) -> Visit:
        serving = serve_page(folder, **words)
        port = serving.__enter__()
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True
        )
        tab = context.new_page()
        tab.set_default_timeout(PATIENCE_MS)
        problems: list[str] = []
        own = (f"http://127.0.0.1:{port}/", "data:", "blob:")
        tab.on("request", lambda sent: None if sent.url.startswith(own) else problems.append(f"fetched {sent.url}"))
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("response", lambda answer: problems.append(f"{answer.status} {answer.url}") if _is_bad(answer) else None)
        stack.append((serving, context, problems))
        return Visit(folder, port, tab)

    yield begin
    found = []
    for serving, context, problems in stack:
        context.close()
        serving.__exit__(None, None, None)
        found += problems
    _end_runners(tmp_path)
    assert not found


def _end_runners(folder: Path) -> None:
    """End the runner of a queue, which outlives the page that started it."""
    for process in psutil.process_iter(["cmdline"]):
        if str(folder / "runs" / "_queue") in (process.info["cmdline"] or []):
            process.terminate()


def _is_bad(answer: Any) -> bool:
    return bool(answer.status >= 400)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page starts computes on one thread, as the tests beside it do."""
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")


SMALL = """\
extends: quickstart
schema_version: 1
name: small
training:
  steps: {steps}
  micro_batch_size: 4
  global_batch_size: 4
preview:
  every_steps: {every}
  num_inference_steps: 2
  prompts:
    - a <zig> on a white background
    - a green circle on a grey background
checkpoint:
  every_steps: {every}
"""
"""The quickstart in small: what a test trains in seconds."""


@pytest.fixture
def finished_run() -> Callable[[Path], Path]:
    """Return what lays a finished run into a folder: curves, a warning, previews of two prompts at three steps."""

    def lay(folder: Path) -> Path:
        run = RunFolder.create(folder / "runs" / "shown")
        recipe = load_recipe("quickstart", ["name=shown"])
        run.recipe.write_text(dump_recipe(recipe), "utf-8")
        with EventLog(run.events) as log:
            log.emit("run_started", name="shown", total_steps=40, steps_per_epoch=4, num_pictures=10)
            for step in range(41):
                if step:
                    log.emit(
                        "step",
                        step=step,
                        loss=1 / step,
                        learning_rates={"unet": 1e-4},
                        grad_norm=0.1,
                        seconds=0.5,
                        timesteps=[100, 900],
                        per_sample=[0.5, 0.1],
                        memory_bytes=2**30,
                    )
                if step % 20 == 0:
                    log.emit("preview", step=step, pictures=_lay_previews(run, step))
            log.emit("warning", step=3, message="the step took long")
            log.emit("run_finished", step=40, status="finished", exports=[])
        return run.path

    return lay


def _lay_previews(run: RunFolder, step: int) -> list[str]:
    names = ["lora-off", "lora-off-refiner"] + (["lora", "lora-refiner"] if step else [])
    pictures = []
    for prompt in (1, 2):
        for shade, name in enumerate(names):
            path = run.preview(step) / f"{prompt:02d}-{name}.png"
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (64, 64), (60 * shade, 4 * step, 100 * prompt)).save(path)
            pictures.append(str(path.relative_to(run.path)))
    return pictures
