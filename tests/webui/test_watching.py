"""One reader a run, whoever asks: what many threads see is what a fresh reader sees."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import webui.watching
from finetune.run.events import EventLog
from finetune.run.folder import RunFolder
from webui.run_reader import RunReader, Seen
from webui.watching import Watcher


def make_run(path: Path) -> RunFolder:
    run = RunFolder.create(path)
    with EventLog(run.events) as log:
        log.emit("run_started", name=path.name, total_steps=300)
    return run


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Count the readers that are made, and see that no two threads use one at a time."""
    paths: list[Path] = []

    class Counted(RunReader):
        def __init__(self, path: Path | RunFolder) -> None:
            super().__init__(path)
            paths.append(self.run.path)
            self.busy = threading.Lock()

        def update(self) -> Seen:
            assert self.busy.acquire(blocking=False), "two threads use one reader"
            try:
                return super().update()
            finally:
                self.busy.release()

    monkeypatch.setattr(webui.watching, "RunReader", Counted)
    return paths


def test_many_threads_share_one_reader_and_see_what_a_fresh_one_sees(tmp_path: Path, made: list[Path]) -> None:
    run = make_run(tmp_path / "cat")
    watcher = Watcher()
    ended = threading.Event()

    def look(_: int) -> list[int]:
        steps = []
        while not ended.is_set():
            steps.append(watcher.look(run.path).state.step)
        return [*steps, watcher.look(run.path).state.step]

    with ThreadPoolExecutor(4) as pool:
        looking = [pool.submit(look, index) for index in range(4)]
        with EventLog(run.events) as log:
            for step in range(1, 301):
                log.emit("step", step=step, loss=1 / step, learning_rates={"unet": 1e-4})
        ended.set()
        seen = [future.result(timeout=30) for future in looking]
    assert made == [run.path]
    assert all(steps == sorted(steps) and steps[-1] == 300 for steps in seen)
    assert watcher.look(run.path) == RunReader(run.path).update()


def test_the_longest_unasked_reader_is_given_up_first(tmp_path: Path, made: list[Path]) -> None:
    runs = [make_run(tmp_path / f"run-{index:02d}").path for index in range(webui.watching._KEPT + 1)]
    watcher = Watcher()
    for path in runs[:-1]:
        watcher.look(path)
    watcher.look(runs[0])
    watcher.look(runs[-1])
    assert len(made) == len(runs), "each was read once so far"
    watcher.look(runs[0])
    assert len(made) == len(runs), "it was asked for lately"
    assert watcher.look(runs[1]) == RunReader(runs[1]).update()
    assert made[len(runs) :] == [runs[1]], "it had been given up, and nothing is lost by it"


def test_another_log_in_its_place_is_read_anew(tmp_path: Path) -> None:
    run = make_run(tmp_path / "cat")
    watcher = Watcher()
    assert watcher.look(run.path).state.name == "cat"
    run.events.unlink()
    with EventLog(run.events) as log:
        log.emit("run_started", name="dog", total_steps=3)
    seen = watcher.look(run.path)
    assert (seen.replaced, seen.state.name, seen.state.total_steps) == (True, "dog", 3)
