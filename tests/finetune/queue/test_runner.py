"""Runners that are killed at any moment lose and double nothing; a stand-in for the training notes what it saw."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import finetune
from finetune.queue import Queue, Runner, start_runner

ROOT = Path(finetune.__file__).parents[1]

STAND_IN = '''
"""Takes the words of `train`; notes its beginning and its end; SIGTERM makes it save and stop, as a training does."""
import json, os, signal, sys, time

settings = dict(word.split("=", 1) for word in sys.argv[2:] if "=" in word)
journal = os.open(os.path.dirname(os.path.abspath(__file__)) + "/journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def note(what):
    words = {"what": what, "name": settings["name"], "argv": sys.argv[1:], "cwd": os.getcwd(),
             "leads": os.getpgid(0) == os.getpid(), "pid": os.getpid()}
    os.write(journal, (json.dumps(words) + "\\n").encode())

def stop(number, frame):
    note("saved")
    os._exit(143)

signal.signal(signal.SIGTERM, stop)
note("begin")
print("training", settings["name"], flush=True)
ends = time.monotonic() + float(settings["training.steps"]) / 1000
while time.monotonic() < ends and not os.path.exists(os.path.dirname(os.path.abspath(__file__)) + "/let-go"):
    time.sleep(0.01)
note("end")
sys.exit(int(settings["seed"]))
'''

RUNNER = """
import sys
from finetune.queue import Queue, Runner
Runner(Queue(sys.argv[1]), program=[sys.executable, sys.argv[2]], poll_seconds=0.02).run(until_empty=True)
"""

Wait = Callable[[Callable[[], object]], None]


class Bench:
    """A queue whose command is the stand-in, and what that wrote down."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.queue = Queue(folder / "queue")
        self.stand_in = folder / "stand_in.py"
        self.stand_in.write_text(STAND_IN)
        self.started: list[subprocess.Popen[bytes]] = []

    def add(self, name: str, milliseconds: int, code: int = 0) -> int:
        """Queue a stand-in; two settings say how long it takes and how it ends."""
        words = [f"name={name}", f"training.steps={milliseconds}", f"seed={code}"]
        return self.queue.add("quickstart", [*words, f"output_dir={self.folder / 'runs'}"]).id

    def start_runner(self) -> "subprocess.Popen[bytes]":
        paths = os.pathsep.join([str(ROOT), str(ROOT / "datasets")])
        with (self.folder / "runners.err").open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, "-c", RUNNER, str(self.queue.folder), str(self.stand_in)],
                env={**os.environ, "PYTHONPATH": paths},
                stderr=errors,
            )
        self.started.append(process)
        return process

    def runner(self) -> Runner:
        return Runner(self.queue, program=[sys.executable, str(self.stand_in)], poll_seconds=0.02)

    def complaints(self) -> str:
        return (self.folder / "runners.err").read_text()

    def notes(self, what: str) -> list[dict[str, Any]]:
        path = self.folder / "journal"
        lines = path.read_text().splitlines() if path.exists() else []
        return [note for note in map(json.loads, lines) if note["what"] == what]

    def names(self, what: str) -> list[str]:
        return [note["name"] for note in self.notes(what)]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "datasets")]))
    made = Bench(tmp_path)
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
            process.wait()
    for item in made.queue.read().items:
        for identity in (item.keeper, item.process):
            if identity is not None and item.state == "running" and psutil.pid_exists(identity.pid):
                os.kill(identity.pid, signal.SIGKILL)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_items_run_in_order_as_a_person_would_type_them(bench: Bench) -> None:
    bench.add("a", 10)
    bench.add("b", 10, code=5)
    seen: list[tuple[int, str]] = []
    runner = bench.runner()
    runner.listener = lambda item: seen.append((item.id, item.state))
    runner.run(until_empty=True)
    assert bench.names("begin") == bench.names("end") == ["a", "b"]
    items = bench.queue.read().items
    assert [(item.state, item.exit_code) for item in items] == [("finished", 0), ("failed", 5)]
    assert seen[-1] == (2, "failed")
    begun = bench.notes("begin")[0]
    assert begun["argv"] == ["train", "quickstart", *items[0].overrides]
    assert begun["cwd"] == str(Path.cwd())
    assert begun["leads"], "the command is a process group of its own"
    log = bench.queue.log_of(1).read_text()
    assert "train quickstart name=a" in log.splitlines()[0]
    assert log.splitlines()[1] == "training a"


def test_kills_of_the_runner_at_random_moments_lose_and_double_nothing(bench: Bench) -> None:
    names = [f"n{index}" for index in range(4)]
    codes = [0, 5, 3, 0]
    for name, code in zip(names, codes, strict=True):
        bench.add(name, 300, code=code)
    draws = random.Random(7)
    # Each runner is let live until it has come so far, and some moment longer: some die between claim and keeper, some
    # while the keeper begins, some while the training runs, some as it ends.
    moments: list[Callable[[], object]] = [
        lambda: bench.queue.read().active() is not None,
        lambda: bench.notes("begin"),
        lambda: bench.notes("end"),
        bench.queue.has_runner,
    ]
    states = set()
    for kill in range(6):
        process = bench.start_runner()
        moment = moments[kill % len(moments)]
        wait_for(lambda process=process, moment=moment: moment() or process.poll() is not None)
        time.sleep(draws.uniform(0, 0.3) if kill >= 2 else 0)
        active = bench.queue.read().active()
        states.add(None if active is None else active.state)
        process.kill()
        process.wait()
    last = bench.start_runner()
    assert last.wait(timeout=60) == 0, bench.complaints()
    assert bench.names("begin") == names, "each was begun once, in its turn"
    assert bench.names("end") == names, "each ended by itself, whoever was watching"
    items = bench.queue.read().items
    assert [item.exit_code for item in items] == codes, "how each ended is known, though its runner was killed"
    assert {"starting", "running"} <= states, "the kills did not fall where they were to prove something"


def test_a_training_outlives_its_runner_and_the_next_one_waits_for_it(bench: Bench) -> None:
    bench.add("a", 60_000)
    bench.add("b", 10)
    first = bench.start_runner()
    wait_for(lambda: bench.notes("begin"))
    first.kill()
    first.wait()
    pid = bench.notes("begin")[0]["pid"]
    assert psutil.pid_exists(pid)
    second = bench.start_runner()
    wait_for(bench.queue.has_runner)
    third = bench.start_runner()
    assert third.wait(timeout=30) == 1
    assert "already" in bench.complaints(), "two runners never run at once"
    assert bench.names("begin") == ["a"], "the second item waits for the first"
    (bench.folder / "let-go").touch()
    assert second.wait(timeout=60) == 0
    assert bench.names("begin") == bench.names("end") == ["a", "b"]
    assert [item.exit_code for item in bench.queue.read().items] == [0, 0]


def test_a_training_whose_keeper_was_killed_too_is_waited_for_and_called_lost(bench: Bench) -> None:
    bench.add("a", 60_000)
    bench.add("b", 10)
    runner = bench.start_runner()
    wait_for(lambda: bench.notes("begin"))
    item = bench.queue.read().item(1)
    assert item is not None
    assert item.keeper is not None
    os.kill(item.keeper.pid, signal.SIGKILL)
    time.sleep(0.3)
    assert bench.names("begin") == ["a"]
    (bench.folder / "let-go").touch()
    assert runner.wait(timeout=60) == 0
    assert [(note["what"], note["name"]) for note in all_notes(bench)] == [
        ("begin", "a"),
        ("end", "a"),
        ("begin", "b"),
        ("end", "b"),
    ]
    assert [item.state for item in bench.queue.read().items] == ["lost", "finished"]


def all_notes(bench: Bench) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (bench.folder / "journal").read_text().splitlines()]


def test_cancelling_lets_a_running_one_save_and_goes_on_with_the_next(bench: Bench) -> None:
    bench.add("a", 30_000)
    bench.add("b", 30_000)
    bench.add("c", 10)
    runner = bench.start_runner()
    wait_for(lambda: bench.notes("begin"))
    bench.queue.cancel(2)
    assert bench.queue.cancel(1).cancel_requested
    assert runner.wait(timeout=60) == 0
    assert bench.names("saved") == ["a"]
    assert bench.names("begin") == ["a", "c"]
    assert [(item.state, item.exit_code) for item in bench.queue.read().items] == [
        ("cancelled", 143),
        ("cancelled", None),
        ("finished", 0),
    ]


def test_a_command_that_cannot_be_started_fails_and_the_queue_goes_on(bench: Bench) -> None:
    bench.add("a", 10)
    Runner(bench.queue, program=[str(bench.folder / "no-such-program")], poll_seconds=0.02).run(until_empty=True)
    item = bench.queue.read().items[0]
    assert (item.state, item.exit_code) == ("failed", 127)
    assert "no-such-program" in bench.queue.log_of(1).read_text()


def test_a_keeper_that_fails_is_told_and_not_tried_for_ever(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.add("a", 10)
    bench.add("b", 10)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    bench.runner().run(until_empty=True)
    items = bench.queue.read().items
    assert [item.state for item in items] == ["failed", "failed"]
    assert str(bench.queue.log_of(1)) in items[0].message
    assert not (bench.folder / "journal").exists()


def test_a_runner_is_started_in_the_background_once_and_can_be_interrupted(bench: Bench) -> None:
    bench.add("a", 10)
    bench.queue.pause()
    first = start_runner(bench.queue)
    bench.started.append(first)
    wait_for(bench.queue.has_runner)
    second = start_runner(bench.queue)
    bench.started.append(second)
    assert second.wait(timeout=60) == 1
    assert "already" in (bench.queue.folder / "runner.log").read_text()
    assert os.getsid(first.pid) == first.pid, "it outlives the terminal, or the page, that started it"
    first.send_signal(signal.SIGINT)
    assert first.wait(timeout=60) == 130
    assert not bench.queue.has_runner()
    assert bench.queue.read().items[0].state == "waiting"


def test_a_claim_whose_runner_died_before_its_keeper_is_taken_up_once(bench: Bench) -> None:
    bench.add("a", 10)
    assert bench.queue.claim_next("gone") is not None
    bench.runner().run(until_empty=True)
    assert bench.names("begin") == bench.names("end") == ["a"]
    bench.add("b", 10)
    bench.queue.claim_next("gone")
    bench.queue.release(2, "gone")
    words = [sys.executable, "-m", "finetune.queue.keeper", str(bench.queue.folder), "2", "gone"]
    subprocess.run([*words, sys.executable, str(bench.stand_in)], check=True)
    assert bench.names("begin") == ["a"], "a keeper that comes late begins nothing"
    bench.runner().run(until_empty=True)
    assert bench.names("begin") == ["a", "b"]
