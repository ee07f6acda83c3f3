"""A run in words: every way it can be has its own, what is not known is left out, and text stays as it is."""

from pathlib import Path
from shlex import split
from typing import Any

import pytest

from finetune.cli.main import parse_line
from finetune.run.commands import COMMAND_KINDS
from webui.monitor.words import STATUS_WORDS, ago, command_lines, duration, facts, headline, messages, rate
from webui.run_reader import Seen
from webui.run_state import RunState, fold

HOSTILE = "<img src=x onerror=alert(1)>"


def seen(*events: dict[str, Any], locked: bool = True) -> Seen:
    state = fold(RunState(), [{"seq": index + 1, **event} for index, event in enumerate(events)])
    return Seen(state, state.status(locked=locked))


def started(**more: Any) -> dict[str, Any]:
    return {"kind": "run_started", "name": "cat", "total_steps": 2000, "time": 1000.0, **more}


def step(number: int, **more: Any) -> dict[str, Any]:
    return {"kind": "step", "step": number, "loss": 0.125, "seconds": 0.5, **more}


STAGE = {"kind": "stage", "name": "train", "done": None, "total": None}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "0 s"), (0.4, "0 s"), (45, "45 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (599.4, "9 min 59 s"),
        (600, "10 min"), (3599, "59 min"), (3600, "1 h 00 min"), (7500, "2 h 05 min"), (172_799, "47 h 59 min"),
        (172_800, "2 days 0 h"), (273_600, "3 days 4 h"),
    ],
)  # fmt: skip
def test_lengths_of_time_are_said_as_people_do(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_moments_and_speeds() -> None:
    assert [ago(100.0, now) for now in (90.0, 100.0, 159.9, 160.0, 279.0, 7300.0)] == [
        "just now", "just now", "just now", "1 min ago", "2 min ago", "2 h 00 min ago",
    ]  # fmt: skip
    assert (rate(2.0), rate(1.0), rate(0.25)) == ("2.00 steps/s", "1.00 steps/s", "4.00 s/step")


@pytest.mark.parametrize(
    ("events", "locked", "words"),
    [
        ([], True, "Starting: opening the model"),
        ([started()], True, "Starting: opening the model"),
        ([started(), {"kind": "stage", "name": "latents", "done": 1200, "total": 3000}], True,
         "Encoding pictures, 1,200 of 3,000"),
        ([started(), {"kind": "stage", "name": "previews", "done": 0, "total": 1}], True, "Drawing previews, 0 of 1"),
        ([started(), STAGE, step(500)], True, "Running, step 500 of 2,000, about 12 min left"),
        ([started(), STAGE, step(2000), {"kind": "stage", "name": "export"}], True,
         "Exporting, step 2,000 of 2,000, about 0 s left"),
        ([started(), STAGE, step(500)], False, "Interrupted, step 500 of 2,000"),
        ([], False, "Interrupted"),
        ([started(), step(500), {"kind": "run_finished", "status": "stopped"}], False,
         "Stopped and saved, step 500 of 2,000"),
        ([started(), step(500), {"kind": "run_finished", "status": "failed"}], False, "Failed, step 500 of 2,000"),
        ([started(), step(2000), {"kind": "run_finished", "status": "finished"}], False,
         "Finished, step 2,000 of 2,000"),
        ([started(total_steps=None), STAGE, step(7)], True, "Running"),
    ],
)  # fmt: skip
def test_how_a_run_is_in_one_line(events: list[dict[str, Any]], locked: bool, words: str) -> None:
    assert headline(seen(*events, locked=locked)) == words


def test_every_status_has_words_of_its_own() -> None:
    assert len(set(STATUS_WORDS.values())) == len(STATUS_WORDS) == 5


def test_what_is_known_is_told_and_nothing_else() -> None:
    assert facts(seen()) == []
    found = dict(
        facts(
            seen(
                started(
                    steps_per_epoch=400, num_pictures=1234, num_parameters=23_000_000, environment={"device": "cpu"}
                ),
                started(resumed_from=0, steps_per_epoch=400),
                step(
                    500, grad_norm=1.23456, memory_bytes=3 * 2**30, learning_rates={"unet": 1e-4, "text_encoder": 5e-5}
                ),
            )
        )
    )
    assert found.pop("Started").startswith("1970-01-01")
    assert found == {
        "Loss": "0.125",
        "Loss, this step": "0.125",
        "Speed": "2.00 steps/s",
        "Gradient norm": "1.23",
        "Memory": "3.00 GiB",
        "Epoch": "1.2 of 5.0",
        "Pictures": "1,234",
        "Parameters trained": "23,000,000",
        "Learning rate, text encoder": "5e-05",
        "Learning rate, U-Net": "0.0001",
        "Starts": "2",
        "Device": "cpu",
    }
    assert "Loss, this step" not in dict(facts(seen(started(), step(1, loss=None))))


def test_only_what_failed_or_was_cut_off_is_an_alarm() -> None:
    for status in ("finished", "stopped"):
        assert messages(seen(started(), {"kind": "run_finished", "status": status}, locked=False)) == []
    assert messages(seen(started())) == []
    (failed,) = messages(seen({"kind": "run_finished", "status": "failed", "message": HOSTILE}, locked=False))
    assert failed == ("error", HOSTILE)
    ((weight, words),) = messages(seen({"kind": "run_finished", "status": "failed"}, locked=False))
    assert weight == "error"
    assert words
    ((weight, words),) = messages(seen(started(), locked=False))
    assert weight == "warning"
    assert "Resume" in words


def test_warnings_are_told_newest_first_and_how_many_more_there_were() -> None:
    warnings = [
        {"kind": "warning", "step": None if index == 0 else index, "message": f"w{index}"} for index in range(205)
    ]
    told = messages(seen(started(), *warnings))
    assert told[:2] == [("warning", "Step 204: w204"), ("warning", "Step 203: w203")]
    assert told[-1] == ("note", "5 earlier warnings are in events.jsonl.")
    assert len(told) == 201
    state = fold(RunState(), [{"seq": None, "kind": "warning", "message": "damaged"}])
    assert messages(Seen(state, "running"))[0] == (
        "warning", "1 lines of the log could not be read and are left out.",
    )  # fmt: skip


def test_the_lines_beside_the_buttons_are_what_the_command_line_takes() -> None:
    run = Path("/tmp/my runs/a'cat; ls")
    lines = dict(command_lines(run))
    told = [parse_line(split(lines[name])[1:]) for name in ("Save now", "Preview now", "Stop and save")]
    assert [line.run_folder for line in told] == [run] * 3
    assert {line.order for line in told} == set(COMMAND_KINDS)
    assert split(lines["Resume"]) == ["atelier", "train", str(run), "--resume"]
