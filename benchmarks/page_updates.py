"""How soon an event is on the page, and whether the page's memory stays flat over many.

    python benchmarks/page_updates.py [--events 20] [--updates 1000]

A run is written as a trainer writes it, with its lock held. First a real Chromium shows the Monitor, and for each event
the time is taken from its line in the log until its words stand on the page. Then the page is asked as a browser asks
it, an event each time, and its memory is taken before and after. Where there is no Chromium, only the second is done.
"""

import argparse
import contextlib
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "datasets")]

from finetune.recipe import dump_recipe, load_recipe  # noqa: E402
from finetune.run.events import EventLog  # noqa: E402
from finetune.run.folder import RunFolder  # noqa: E402
from tests.webui.asking import call, page_config  # noqa: E402
from tests.webui.attacks import Target  # noqa: E402
from tests.webui.serving import free_port, start_page  # noqa: E402

MIB = 2**20
WARM_UPDATES = 100


def main() -> None:
    """Measure both and print them."""
    parser = argparse.ArgumentParser(description="Time events to the page, and weigh it.")
    parser.add_argument("--events", type=int, default=20)
    parser.add_argument("--updates", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, _running(Path(name)) as log:
        port = free_port()
        page = start_page(Path(name), port=port)
        try:
            chromium = shutil.which("chromium") or shutil.which("google-chrome")
            step = _time_events(log, port, chromium, arguments.events) if chromium else 0
            _weigh(log, Target(port, Path(name), 0), page.pid, step, arguments.updates)
        finally:
            page.terminate()
            page.wait()


@contextlib.contextmanager
def _running(folder: Path) -> Iterator[EventLog]:
    """Lay a run that is being written into a folder."""
    run = RunFolder.create(folder / "runs" / "live")
    run.recipe.write_text(dump_recipe(load_recipe("quickstart", ["name=live"])), "utf-8")
    with run.lock(), EventLog(run.events) as log:
        log.emit("run_started", name="live", total_steps=1_000_000, steps_per_epoch=10, num_pictures=10)
        yield log


def _emit(log: EventLog, step: int) -> None:
    log.emit(
        "step",
        step=step,
        loss=1 / step,
        learning_rates={"unet": 1e-4, "text_encoder": 1e-5},
        grad_norm=0.1,
        seconds=0.5,
        timesteps=[100, 400, 600, 900],
        per_sample=[0.5, 0.1, 0.1, 0.1],
        memory_bytes=MIB,
    )


def _time_events(log: EventLog, port: int, chromium: str, count: int) -> int:
    from playwright.sync_api import sync_playwright

    waited, step = [], 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.goto(f"http://127.0.0.1:{port}/monitor?run=live")
        tab.wait_for_selector("#monitor-head")
        tab.wait_for_timeout(3000)
        for _ in range(count):
            step += 1
            tab.wait_for_timeout(137.0 * (step % 10))  # at all moments between two looks
            begun = time.perf_counter()
            _emit(log, step)
            tab.locator("#monitor-head").filter(has_text=f"step {step:,} of").wait_for(timeout=20_000)
            waited.append(time.perf_counter() - begun)
        browser.close()
    print(f"events on the page after {statistics.median(waited):.2f} s, at most {max(waited):.2f} s of {count}: bar 2")
    return step


def _weigh(log: EventLog, target: Target, pid: int, step: int, updates: int) -> None:
    config = page_config(target, "monitor")
    tick: dict[str, Any] = next(each for each in config["dependencies"] if each["targets"][0][1] == "tick")
    values = {each["id"]: each["props"].get("value") for each in config["components"]}
    run = next(each["id"] for each in config["components"] if each["props"].get("elem_id") == "monitor-run")
    opening = next(each for each in config["dependencies"] if each["outputs"] == [run])
    call(target, opening["id"], [], "weighing01")
    data = ["live" if each == run else values[each] for each in tick["inputs"]]
    process, before = psutil.Process(pid), 0
    for update in range(WARM_UPDATES + updates):
        if update == WARM_UPDATES:
            before = process.memory_info().rss
        step += 1
        _emit(log, step)
        answer = call(target, tick["id"], data, "weighing01")
        assert '"success":true' in answer, answer[-300:]
    after = process.memory_info().rss
    print(
        f"memory {before / MIB:.1f} MiB, after {updates} updates {after / MIB:.1f}: {(after - before) / MIB:+.1f} MiB"
    )


if __name__ == "__main__":
    main()
