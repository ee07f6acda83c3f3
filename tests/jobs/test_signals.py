"""Real signals: the first saves and stops, the second ends at once."""

import signal
import time

import pytest

from finetune.training.checkpoint import load_checkpoint, newest_whole_checkpoint


def wait_for_step(job, process, step: int) -> None:
    deadline = time.monotonic() + 120
    events = job.runs / "job" / "events.jsonl"
    while not (events.exists() and f'"kind": "step", "step": {step},' in events.read_text(encoding="utf-8")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_stops(job, number: int, code: int) -> None:
    process = job.start("training.steps=5000", "checkpoint.every_steps=4000")
    wait_for_step(job, process, 2)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Saving, then stopping" in errors
    assert "--resume" in output
    last = max(job.losses())
    assert load_checkpoint(job.runs / "job" / "checkpoints" / f"step-{last:06d}").step == last
    assert job.events()[-1]["kind"] == "run_finished"
    assert job.events()[-1]["status"] == "stopped"


@pytest.mark.slow
def test_a_second_signal_ends_at_once_and_what_was_saved_is_whole(job) -> None:
    process = job.start("training.steps=5000", "checkpoint.every_steps=2", driver=["slow-saves", "2.0"])
    wait_for_step(job, process, 3)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130
    assert time.monotonic() - started < 2.0
    checkpoint, _ = newest_whole_checkpoint(job.runs / "job" / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.step == 2


def test_commands_save_and_stop(job) -> None:
    from finetune.run.commands import send_command
    from finetune.run.folder import RunFolder

    process = job.start("training.steps=5000", "checkpoint.every_steps=4000")
    wait_for_step(job, process, 1)
    run = RunFolder.open(job.runs / "job")
    (run.commands / "0000-dance.json").write_text("{}")
    saved = send_command(run, "save")
    stopped = send_command(run, "stop")
    process.communicate(timeout=60)
    assert process.returncode == 0
    events = job.events()
    assert [event["id"] for event in events if event["kind"] == "command_done"] == [saved, stopped]
    assert any("dance" in event["message"] for event in events if event["kind"] == "warning")
    assert events[-1]["status"] == "stopped"
