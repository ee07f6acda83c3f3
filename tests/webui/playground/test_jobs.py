"""Jobs in their order, with a worker that draws nothing: what is said, what is remembered, what a crash leaves."""

import json
import sys
import time

import pytest
from PIL import Image

from finetune.errors import RecipeError
from webui.playground.jobs import MOST_WAITING, Playground

# Speaks the worker's lines. A prompt says what it does: 'crash' ends it, 'wait' draws until it is cancelled.
_FAKE = """
import json, os, sys

def say(**line):
    print(json.dumps(line), flush=True)

say(kind="ready", version=1)
for text in sys.stdin:
    asked = json.loads(text)
    job = asked["id"]
    if asked["kind"] == "cancel":
        say(kind="cancelled", id=job)
        continue
    marker = os.path.join(asked["folder"], "..", "was-idle")
    if asked["prompt"] == "idle" and not os.path.exists(marker):
        open(marker, "w").close()
        say(kind="ended", reason="nothing was asked for")
        sys.exit(0)
    say(kind="progress", id=job, stage="drawing", picture=1, pictures=1, step=0, steps=2)
    if asked["prompt"] == "crash":
        print("the model is not a model", file=sys.stderr, flush=True)
        sys.exit(3)
    if asked["prompt"] == "babble":
        print("Loading weights", flush=True)
    elif asked["prompt"] == "refuse":
        say(kind="failed", id=job, message="no such recipe", exit_code=2)
    elif asked["prompt"] != "wait":
        say(kind="picture", id=job, path=asked["folder"] + "/1.png", title="base", column="base", seed=0, settings={})
        say(kind="done", id=job, grid=None, warnings=["a long prompt"])
"""


@pytest.fixture
def playground(tmp_path):
    script = tmp_path / "fake.py"
    script.write_text(_FAKE, encoding="utf-8")
    playground = Playground(tmp_path / "jobs", [sys.executable, str(script)])
    yield playground
    playground.close()


def _ask(playground, prompt):
    return playground.ask({"source": "quickstart", "prompt": prompt})


def _until(playground, name, *statuses):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        job = playground.look(name)
        if job.status in statuses:
            return job
        time.sleep(0.02)
    raise AssertionError(f"still {playground.look(name)}")


def test_a_job_is_drawn_and_remembered_on_the_disk(playground):
    name = _ask(playground, "a cat")
    job = _until(playground, name, "done")
    assert [picture.column for picture in job.pictures] == ["base"]
    assert job.words == "a long prompt"
    assert playground.newest() == name
    record = json.loads((playground.folder / name / "job.json").read_text(encoding="utf-8"))
    assert (record["status"], record["request"]["prompt"], len(record["pictures"])) == ("done", "a cat", 1)


def test_one_is_drawn_at_a_time_and_a_few_wait(playground):
    drawn = _ask(playground, "wait")
    _until(playground, drawn, "drawing")
    waiting = [_ask(playground, "a cat") for _ in range(MOST_WAITING)]
    assert [playground.ahead_of(name) for name in waiting] == [1, 2, 3]
    with pytest.raises(RecipeError, match="3 jobs wait already"):
        _ask(playground, "a cat")
    playground.cancel(waiting[1])
    assert playground.look(waiting[1]).status == "cancelled"
    playground.cancel(drawn)
    assert _until(playground, drawn, "cancelled").pictures == ()
    for name in (waiting[0], waiting[2]):
        _until(playground, name, "done")


@pytest.mark.parametrize(
    ("prompt", "words"), [("crash", "the model is not a model"), ("babble", "ended"), ("refuse", "no such recipe")]
)
def test_what_goes_wrong_is_told_and_the_next_job_is_drawn(playground, prompt, words):
    first, second = _ask(playground, prompt), _ask(playground, "a cat")
    job = _until(playground, first, "failed")
    assert words in job.words
    assert _until(playground, second, "done").pictures


def test_a_job_that_meets_an_ending_worker_is_drawn_by_the_next(playground):
    assert _until(playground, _ask(playground, "idle"), "done", "failed").status == "done"
    assert (playground.folder / "was-idle").exists()


def test_a_worker_that_cannot_be_started_is_told(tmp_path):
    playground = Playground(tmp_path / "jobs", [str(tmp_path / "nothing")])
    assert "cannot be started" in _until(playground, _ask(playground, "a cat"), "failed").words


def test_a_request_that_cannot_be_drawn_is_refused_before_it_is_sent(playground):
    with pytest.raises(RecipeError, match="choose a LoRA"):
        playground.ask({"source": "quickstart", "prompt": "a cat", "columns": ("lora",)})
    assert playground.newest() is None


def test_closing_ends_the_worker(playground):
    _until(playground, _ask(playground, "wait"), "drawing")
    process = playground._worker._process
    playground.close()
    assert process.poll() == 0


@pytest.mark.slow
def test_the_real_worker_understands_the_page(tmp_path):
    playground = Playground(tmp_path / "jobs")
    try:
        name = playground.ask(
            {"source": "quickstart", "prompt": "a cat", "size": (32, 32), "num_inference_steps": 2, "seeds": (1, 2)}
        )
        deadline = time.monotonic() + 120
        while not playground.look(name).is_over and time.monotonic() < deadline:
            time.sleep(0.1)
        job = playground.look(name)
    finally:
        playground.close()
    assert (job.status, job.words) == ("done", "")
    assert all(open_picture(picture.path) == (32, 32) for picture in job.pictures)
    assert len(job.pictures) == 2
    assert job.grid is not None


def open_picture(path):
    with Image.open(path) as image:
        return image.size
