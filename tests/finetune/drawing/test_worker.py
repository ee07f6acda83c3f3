"""The generation worker as a process: nothing but answers on its stdout, and it ends when it is not needed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def start():
    """Return a function that starts a worker, which is gone when the test is."""
    started = []

    def start_worker(*arguments):
        path = os.pathsep.join([str(ROOT), str(ROOT / "datasets")])
        worker = subprocess.Popen(
            [sys.executable, "-m", "finetune.drawing.worker", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        started.append(worker)
        return worker

    yield start_worker
    for worker in started:
        worker.kill()
        worker.wait()
        for pipe in (worker.stdin, worker.stdout, worker.stderr):
            pipe.close()


def _say(worker, **line):
    worker.stdin.write(json.dumps(line) + "\n")
    worker.stdin.flush()


def _until(worker, *kinds):
    """Return the answers up to the first of these kinds."""
    answers = []
    for line in worker.stdout:
        answers.append(json.loads(line))
        if answers[-1]["kind"] in kinds:
            return answers
    raise AssertionError(f"it ended after {answers}: {worker.stderr.read()}")


def test_it_draws_refuses_cancels_and_ends_with_its_stdin(start, run, tmp_path):
    worker = start()
    asked = {"kind": "draw", "folder": str(tmp_path), "source": str(run), "prompt": "a cat", "size": [32, 32]}
    assert _until(worker, "ready")[-1]["version"] == 1
    worker.stdin.write("no line of ours\n")
    worker.stdin.flush()
    assert "JSON" in _until(worker, "failed")[-1]["message"]
    _say(worker, **asked, id="1", seeds=[1, 2])
    answers = _until(worker, "done")
    assert [Path(one["path"]).name for one in answers if one["kind"] == "picture"] == ["001-base.png", "002-base.png"]
    assert {one["id"] for one in answers} == {"1"}
    _say(worker, **{**asked, "source": "nothing-here"}, id="2")
    assert _until(worker, "failed")[-1]["exit_code"] == 2
    _say(worker, **asked, id="3", num_inference_steps=1000)
    _until(worker, "progress")
    _say(worker, kind="cancel", id="3")
    assert _until(worker, "cancelled", "done")[-1]["kind"] == "cancelled"
    _say(worker, **asked, id="4", num_inference_steps=1000)
    _until(worker, "progress")
    began = time.monotonic()
    worker.stdin.close()  # the page has died
    assert worker.wait(timeout=30) == 0
    assert time.monotonic() - began < 10, "it did not draw to the end for nobody"


def test_it_ends_when_nothing_is_asked_for(start):
    worker = start("--idle", "0.2")
    assert "the memory is free again" in _until(worker, "ended")[-1]["reason"]
    assert worker.wait(timeout=30) == 0
