"""SIGKILL of the page at random moments: the runs it started, watched and told end as if it had never been."""

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors import safe_open

from finetune.queue import Queue
from finetune.run.events import Event, read_events
from finetune.run.folder import RunFolder
from tests.jobs.conftest import child_environment
from tests.webui.asking import call, page_config
from tests.webui.attacks import Target, request
from tests.webui.serving import begin_page, free_port, start_page

pytest.importorskip("gradio", reason="the page's packages are not installed: requirements-page.txt")

NUM_KILLS = 20
STEPS = 120
RECIPE = f"""\
extends: quickstart
schema_version: 1
name: small
training: {{steps: {STEPS}, micro_batch_size: 4, global_batch_size: 4}}
preview: {{every_steps: {STEPS // 2}, num_inference_steps: 2, prompts: [a <zig> on a white background]}}
checkpoint: {{every_steps: {STEPS // 4}}}
"""

_PATIENCE_SECONDS = 180.0
_ANSWER_SECONDS = 60.0
_WORKER_ENDS_SECONDS = 60.0  # it waits 20 s for a model that is being opened


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(os.name == "nt", reason="the queue's runner needs Linux or macOS")
def test_twenty_kills_of_the_page_change_no_byte_of_what_it_started(tmp_path: Path) -> None:
    (tmp_path / "apart").mkdir()
    whole = result_of(train_without_a_page(tmp_path / "apart"))
    assert list(whole.steps) == list(range(1, STEPS + 1))
    assert whole.checkpoint
    assert whole.export
    visitor = Visitor(tmp_path / "served", random.Random(5))
    try:
        for _ in range(NUM_KILLS):
            visitor.begin_and_kill()
        visitor.stop_and_kill()
        runs = visitor.finish_all()
        visitor.draw_and_kill()
    finally:
        visitor.end()
    assert visitor.kills["while a run trained"] >= NUM_KILLS // 3, visitor.kills
    assert visitor.kills["as it started"] >= 3, visitor.kills
    assert visitor.kills["after it had started"] >= NUM_KILLS // 2, visitor.kills
    for run in runs:
        events = events_of(run)
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert result_of(run) == whole, run.path.name


@dataclass(frozen=True)
class Result:
    """What a run computed: each step, and every byte of what it has left."""

    steps: dict[int, tuple[float, ...]]
    checkpoint: dict[str, str]
    export: dict[str, str]


def train_without_a_page(folder: Path) -> RunFolder:
    (folder / "small.yaml").write_text(RECIPE)
    command = [sys.executable, "-m", "finetune", "train", "small.yaml"]
    finished = subprocess.run(
        command, cwd=folder, env=child_environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return RunFolder(folder / "runs/small")


def events_of(run: RunFolder) -> list[Event]:
    return read_events(run.events)[0] if run.events.exists() else []


def result_of(run: RunFolder) -> Result:
    """Return what a finished run computed; a step that was repeated after a resume counts as it was last."""
    last = run.checkpoint(STEPS)
    (export,) = run.exports.glob("*.safetensors")
    with safe_open(export, "np") as file:  # its metadata holds the run's name
        tensors = {name: hashlib.sha256(file.get_tensor(name).tobytes()).hexdigest() for name in file.keys()}  # noqa: SIM118
    return Result(
        steps={
            event["step"]: (event["loss"], event["grad_norm"], *event["per_sample"], *event["timesteps"])
            for event in events_of(run)
            if event["kind"] == "step"
        },
        checkpoint={
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(last.glob("*.safetensors"))
        },
        export=tensors,
    )


class Visitor:
    """Starts the page, asks it as a browser does, and kills it without waiting for what was asked."""

    def __init__(self, folder: Path, draws: random.Random) -> None:
        folder.mkdir()
        (folder / "small.yaml").write_text(RECIPE)
        self.folder, self.draws = folder, draws
        self.scratch = str(folder / "scratch")  # what a killed page leaves there
        Path(self.scratch).mkdir()
        self.target = self.next_target()
        self.queue = Queue(folder / "runs/_queue")
        self.kills: Counter[str] = Counter()
        self.num_added = 0
        self._page: subprocess.Popen[bytes] | None = None
        self._config: dict[str, dict[str, Any]] = {}
        self._num_sessions = 0

    def begin_and_kill(self) -> None:
        """Start the page, let it do something, and kill it at some moment of either."""
        if self.num_added and self.draws.random() < 0.35:
            self.target = self.next_target()
            self._page = begin_page(self.folder, port=self.target.port, TMPDIR=self.scratch)
            time.sleep(self.draws.uniform(0, 3))
            self.kill("as it started")
            return
        self.start()
        content = self.queue.read()
        busy = content.active() is not None
        if not busy and content.waiting():
            self.ask("", "queue-go-on")
        elif not busy or len(content.waiting()) == 0:
            self.add_run(wait=self.draws.random() < 0.7)
        elif (run := self.training()) is None:
            self.watch(None)
        else:
            self.watch(run.path.name)
            order = self.draws.choice(["monitor-save", "monitor-preview", None])
            if order is not None:
                self.ask("monitor", order, {"monitor-run": run.path.name}, wait=self.draws.random() < 0.5)
        time.sleep(self.draws.uniform(0, 0.8))
        self.kill("after it had started")

    def stop_and_kill(self) -> None:
        """Stop a run by the page, and resume it by the next page, killing each at once."""
        self.start()
        self.wait_until(self.has_waiting_and_runner)
        self.wait_until(lambda: self.training() is not None)
        stopped = self.training()
        assert stopped is not None
        self.ask("monitor", "monitor-stop", {"monitor-run": stopped.path.name}, wait=False)
        self.wait_until(lambda: not stopped.is_locked())
        assert events_of(stopped)[-1].get("status") == "stopped"
        self.kill("as it had stopped a run")
        self.start()
        self.ask("monitor", "monitor-resume", {"monitor-run": stopped.path.name})
        self.kill("as it had resumed a run")
        self.wait_until(lambda: events_of(stopped)[-1].get("status") == "finished")

    def finish_all(self) -> list[RunFolder]:
        """Let the queue come to its end, and return the folders of all runs."""
        content = self.queue.read()
        if content.waiting() and not self.queue.has_runner():
            self.start()
            self.ask("", "queue-go-on")
            self.kill("as it had started a runner")
        self.wait_until(lambda: self.queue.read().active() is None and not self.queue.read().waiting())
        runs = [RunFolder(path) for path in sorted((self.folder / "runs").glob("run-*"))]
        assert len(runs) >= 2
        assert [event["status"] for run in runs for event in events_of(run)[-1:]] == ["finished"] * len(runs)
        return runs

    def draw_and_kill(self) -> None:
        """Let the page start its generation worker, kill it as it draws, and look for what is left."""
        self.start()
        given = {
            "playground-source": "recipe:quickstart",
            "playground-prompt": "a <zig> on a white background",
            "playground-negative": "",
            "playground-strengths": "",
            "playground-steps": 30,
            "playground-height": 64,
            "playground-width": 64,
            "playground-num-seeds": 8,
        }
        self.ask("playground", "playground-draw", given)
        self.wait_until(lambda: any("finetune.drawing.worker" in line for line in self.processes().values()))
        self.kill("as it had a worker")
        give_up = time.monotonic() + _WORKER_ENDS_SECONDS
        while (left := self.own_processes()) and time.monotonic() < give_up:
            time.sleep(0.1)
        assert not left, "what the page started for itself ends with it"

    def own_processes(self) -> dict[int, str]:
        """Return what runs from the folder, but for the queue's runner, which outlives the page by design."""
        return {pid: line for pid, line in self.processes().items() if "queue run" not in line}

    def processes(self) -> dict[int, str]:
        """Return the command of every process that was started in the folder: what it starts is started there, too."""
        found = {}
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == self.folder:
                    found[process.pid] = " ".join(process.cmdline())
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue  # gone meanwhile, or not ours
        return found

    def end(self) -> None:
        """End everything that runs from the folder."""
        if self._page is not None:
            self._page.kill()
            self._page.wait()
        for pid in self.processes():
            psutil.Process(pid).kill()

    def next_target(self) -> Target:
        """Return where the next page listens: a port that was given up may be another program's meanwhile."""
        return Target(free_port(), self.folder, 64_000_000)

    def start(self) -> None:
        self.target = self.next_target()
        self._page = start_page(self.folder, port=self.target.port, TMPDIR=self.scratch)

    def kill(self, when: str) -> None:
        assert self._page is not None
        self.kills["while a run trained"] += self.training() is not None
        assert self._page.poll() is None, (self.folder / "page.log").read_text()
        self._page.kill()
        self._page.wait()
        self._page = None
        self.kills[when] += 1
        self.queue.read()  # refuses a file that is not whole

    def add_run(self, *, wait: bool) -> None:
        """Put a run into the queue, which starts a runner where there is none."""
        self.num_added += 1
        given = {"queue-recipe": "small.yaml", "queue-overrides": f"name=run-{self.num_added:02d}"}
        self.ask("", "queue-add", given, wait=wait)

    def training(self) -> RunFolder | None:
        """Return the run that trains now, if one has taken its first step."""
        item = self.queue.read().active()
        run = None if item is None else RunFolder(Path(item.run))
        if run is None or not run.is_locked():
            return None
        return run if any(event["kind"] == "step" for event in events_of(run)) else None

    def has_waiting_and_runner(self) -> bool:
        """See to it that something is to be run."""
        content = self.queue.read()
        if not content.waiting() and content.active() is None:
            self.add_run(wait=True)
        elif not self.queue.has_runner():
            self.ask("", "queue-go-on")
        return self.queue.has_runner()

    def watch(self, run: str | None) -> None:
        """Look at the monitor as an open tab does."""
        session = self.open("monitor")
        for _ in range(self.draws.randrange(1, 4)):
            self.call("monitor", self.handler("monitor", "tick", None), {"monitor-run": run}, session)

    def ask(self, page: str, part: str, given: dict[str, Any] | None = None, *, wait: bool = True) -> None:
        """Press a button in a tab that was opened for it."""
        session = self.open(page)
        self.call(page, self.handler(page, "click", part), given or {}, session, wait=wait)

    def open(self, page: str) -> str:
        """Open a tab, and return its session: what its lists offer is known to the page from then on."""
        self._num_sessions += 1
        session = f"session{self._num_sessions}"
        if page not in self._config:
            self._config[page] = page_config(self.target, page)
        for dependency in self._config[page]["dependencies"]:
            if dependency["backend_fn"] and not dependency["inputs"] and [0, "load"] in dependency["targets"]:
                call(self.target, dependency["id"], [], session, patience_seconds=_ANSWER_SECONDS)
        return session

    def handler(self, page: str, event: str, part: str | None) -> dict[str, Any]:
        names = self.names(page)
        (found,) = [
            dependency
            for dependency in self._config[page]["dependencies"]
            if any(kind == event and names.get(each) == part for each, kind in dependency["targets"])
        ]
        return found

    def names(self, page: str) -> dict[int, str | None]:
        return {part["id"]: part["props"].get("elem_id") for part in self._config[page]["components"]}

    def call(
        self, page: str, handler: dict[str, Any], given: dict[str, Any], session: str, *, wait: bool = True
    ) -> None:
        """Call a handler with the values that are given, and those of the page as it is opened for all others."""
        names = self.names(page)
        parts = {part["id"]: part for part in self._config[page]["components"]}
        data = [
            given[name] if (name := names[each]) in given
            else None if parts[each]["type"] == "state" else parts[each]["props"].get("value")
            for each in handler["inputs"]
        ]  # fmt: skip
        if wait:
            answer = call(self.target, handler["id"], data, session, patience_seconds=_ANSWER_SECONDS)
            # A run may end between being seen and being told something; nothing else goes wrong.
            assert '"success":true' in answer or "Nothing trains here now" in answer, answer
            return
        body = {"data": data, "fn_index": handler["id"], "session_hash": session, "event_data": None}
        headers = {"Origin": self.target.origin, "Content-Type": "application/json"}
        answer = request(self.target, "POST", "/gradio_api/queue/join", headers, json.dumps(body).encode())
        assert answer.status == 200, answer.body

    def wait_until(self, holds: Callable[[], bool]) -> None:
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while not holds():
            assert time.monotonic() < give_up, (self.folder / "page.log").read_text()
            time.sleep(0.02)
