"""Readers of a run's log: beside the writer, after a kill, over torn, damaged and replaced files."""

import json
import os
import random
from pathlib import Path

import pytest

import webui.run_reader
from finetune.run.events import EventLog, read_events
from finetune.run.folder import RunFolder
from webui.run_reader import RunReader
from webui.run_state import RunState, fold


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "cat")


def write_steps(run: RunFolder, *steps: int, loss: float = 1.0) -> None:
    with EventLog(run.events) as log:
        for step in steps:
            log.emit("step", step=step, loss=loss, learning_rates={"unet": 1e-4})


@pytest.mark.parametrize("chunk", [1, 100, 1 << 20])
def test_readers_that_look_at_any_moment_agree(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(webui.run_reader, "_CHUNK_BYTES", chunk)
    write_steps(run, *range(1, 60))
    content = run.events.read_bytes()
    expected = fold(RunState(), read_events(run.events)[0])
    draws = random.Random(chunk)
    readers = [RunReader(run) for _ in range(3)]
    for end in [*sorted(draws.sample(range(len(content)), 25)), len(content)]:
        run.events.write_bytes(content[:end])  # as far as a writer has come, in the middle of a line as often as not
        for reader in readers:
            if draws.random() < 0.6 or end == len(content):
                seen = reader.update()
                assert seen.state.step == content[:end].count(b"\n")
                assert not seen.replaced
    assert all(reader.state == expected for reader in readers)


def test_a_run_is_interrupted_when_nobody_holds_its_lock(run: RunFolder) -> None:
    reader = RunReader(run)
    assert reader.update().status == "interrupted"
    with run.lock():
        assert reader.update().status == "running"
        write_steps(run, 1, 2)
        assert reader.update().status == "running"
    assert reader.update().status == "interrupted"
    with EventLog(run.events) as log:
        log.emit("run_finished", step=2, status="finished")
    assert reader.update().status == "finished"


def test_a_run_that_ends_between_two_looks_is_not_called_interrupted(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_steps(run, 1)
    reader = RunReader(run)

    def end_run_and_say_unlocked(_run: RunFolder) -> bool:
        with EventLog(run.events) as log:
            log.emit("run_finished", step=1, status="finished")
        return False

    monkeypatch.setattr(webui.run_reader, "is_locked", end_run_and_say_unlocked)
    assert reader.update().status == "finished"


def test_a_damaged_line_is_told(run: RunFolder) -> None:
    write_steps(run, 1, 2, 3)
    lines = run.events.read_bytes().splitlines(keepends=True)
    run.events.write_bytes(lines[0] + b"\0\xff" + lines[1][2:] + lines[2])
    state = RunReader(run).update().state
    assert state.curve("step").tolist() == [1, 3]
    assert state.num_damaged == 1
    assert f"byte {len(lines[0])}" in state.warnings[0].message


def test_a_log_that_shrank_or_was_replaced_is_read_anew(run: RunFolder, tmp_path: Path) -> None:
    reader = RunReader(run)
    write_steps(run, 1, 2, 3, loss=1.0)
    assert not reader.update().replaced
    shorter = run.events.read_bytes().splitlines(keepends=True)[0]
    run.events.write_bytes(shorter)
    seen = reader.update()
    assert seen.replaced
    assert seen.state.curve("step").tolist() == [1]

    size = run.events.stat().st_size
    other = RunFolder.create(tmp_path / "other")
    write_steps(other, 1, 2, 3, 4, loss=2.0)
    for write in (lambda: other.events.replace(run.events), lambda: run.events.write_bytes(b"{}\n" + b" " * 999)):
        write()
        assert run.events.stat().st_size > size, "only its content can tell this one from a log that grew"
        assert reader.update().replaced
    run.events.unlink()
    seen = reader.update()
    assert seen.replaced
    assert seen.state == RunState()
    assert not reader.update().replaced


def test_a_line_longer_than_a_chunk_is_one_line(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webui.run_reader, "_CHUNK_BYTES", 64)
    with EventLog(run.events) as log:
        log.emit("warning", message="x" * 5000)
        log.emit("step", step=1, loss=0.5)
    state = RunReader(run).update().state
    assert (state.num_warnings, state.num_damaged, state.loss) == (1, 0, 0.5)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_plain_file_is_no_log(run: RunFolder, tmp_path: Path, kind: str) -> None:
    elsewhere = tmp_path / "elsewhere.jsonl"
    elsewhere.write_text(json.dumps({"seq": 1, "kind": "step", "step": 7}) + "\n")
    if kind == "link":
        run.events.symlink_to(elsewhere)
    elif kind == "pipe":
        os.mkfifo(run.events)
    else:
        run.events.mkdir()
    assert RunReader(run).update().state == RunState()


@pytest.mark.parametrize("at", [0, -1], ids=["its beginning", "its end"])
def test_a_log_of_equal_length_with_another_beginning_or_end_is_another(run: RunFolder, at: int) -> None:
    write_steps(run, *range(1, 10))
    reader = RunReader(run)
    reader.update()
    lines = run.events.read_bytes().splitlines(keepends=True)
    lines[at] = lines[at].replace(b'"loss": 1.0', b'"loss": 3.0')
    run.events.write_bytes(b"".join(lines))
    seen = reader.update()
    assert seen.replaced
    assert seen.state.curve("loss")[at] == 3.0
    assert not reader.update().replaced
