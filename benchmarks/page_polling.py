"""What it costs a training that somebody watches it on the page.

    python benchmarks/page_polling.py [--rounds 6] [--seconds 20]

One run of the miniature trains on all cores. By turns, its page is asked once a second as a browser that shows the
Monitor asks it, and left alone. Printed are the median step of either half, and what the page's process computed while
it was asked, as a share of all cores: the first is noisy on a shared machine, the second is not. What the browser
itself takes to draw is not in it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "datasets")]

import psutil  # noqa: E402

from finetune.run.events import read_events  # noqa: E402
from tests.webui.asking import call, page_config  # noqa: E402
from tests.webui.attacks import Target  # noqa: E402
from tests.webui.serving import free_port, start_page  # noqa: E402


def main() -> None:
    """Train, watch by turns, print."""
    parser = argparse.ArgumentParser(description="Time a training with and without somebody watching.")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        training = _start_training(folder)
        port = free_port()
        page = start_page(folder, port=port)
        try:
            _report(*_watch(folder, Target(port, folder, 0), page.pid, arguments.rounds, arguments.seconds))
        finally:
            for process in (page, training):
                process.terminate()
                process.wait()


def _start_training(folder: Path) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'datasets'}"}
    settings = ["training.steps=100000", "preview.prompts=[]", "checkpoint.every_steps=100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "finetune", "train", "quickstart", *settings],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    log = folder / "runs" / "quickstart" / "events.jsonl"
    while sum(event["kind"] == "step" for event in read_events(log)[0]) < 20:
        assert process.poll() is None, "the training ended"
        time.sleep(1)
    return process


def _watch(
    folder: Path, target: Target, pid: int, rounds: int, seconds: float
) -> tuple[list[float], list[float], float]:
    """Return the seconds of every step watched, of every step alone, and the page's share of all cores when asked."""
    config = page_config(target, "monitor")
    tick = next(each for each in config["dependencies"] if each["targets"] and each["targets"][0][1] == "tick")
    values = {each["id"]: each["props"].get("value") for each in config["components"]}
    run = next(each["id"] for each in config["components"] if each["props"].get("elem_id") == "monitor-run")
    opening = next(each for each in config["dependencies"] if each["outputs"] == [run])
    assert "quickstart" in call(target, opening["id"], [], "watching01"), "the page does not list the run"
    data = ["quickstart" if each == run else values[each] for each in tick["inputs"]]
    watched: list[tuple[float, float]] = []
    computed = 0.0
    process = psutil.Process(pid)
    call(target, tick["id"], data, "watching01")
    for _ in range(rounds):
        begun, before = time.time(), process.cpu_times()
        while time.time() < begun + seconds:
            asked = time.time()
            answer = call(target, tick["id"], data, "watching01")
            assert '"success":true' in answer, answer[-300:]
            time.sleep(max(0.0, 1 - (time.time() - asked)))
        after = process.cpu_times()
        computed += after.user + after.system - before.user - before.system
        watched.append((begun, time.time()))
        time.sleep(seconds)
    asked_for = sum(end - begun for begun, end in watched)
    on, off = [], []
    for event in read_events(folder / "runs" / "quickstart" / "events.jsonl")[0]:
        if event["kind"] == "step" and event["time"] > watched[0][0]:
            is_watched = any(begun <= event["time"] <= end for begun, end in watched)
            (on if is_watched else off).append(event["seconds"])
    return on, off, computed / asked_for / (os.cpu_count() or 1)


def _report(on: list[float], off: list[float], share: float) -> None:
    ratio = statistics.median(on) / statistics.median(off)
    mean = statistics.fmean(on) / statistics.fmean(off)
    print(f"a step watched {1000 * statistics.median(on):.1f} ms ({len(on)} steps), alone", end=" ")
    print(f"{1000 * statistics.median(off):.1f} ms ({len(off)}): ratio of medians {ratio:.4f}, of means {mean:.4f}")
    print(f"the page computed {share:.2%} of all cores while it was asked: bar 1 %")
    result: dict[str, Any] = {"ratio": ratio, "share": share}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
