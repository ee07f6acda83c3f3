"""The list of runs and the queue in words, and several runs' curves side by side."""

from pathlib import Path
from shlex import split
from typing import Any, get_args

import pytest

from finetune.cli.main import parse_line
from finetune.queue.items import Item, ItemState, QueueContent
from webui.run_state import RunState, fold
from webui.runs import RunSummary
from webui.runs_list import MEASURES, can_remove, compared, counted, facts_of, item_words, queue_headline


def item(number: int, state: ItemState = "waiting", **more: Any) -> Item:
    values = {
        "id": number,
        "recipe": "cat.yaml",
        "cwd": "/",
        "run": "runs/cat",
        "state": state,
        "added_at": 1.0,
        **more,
    }
    return Item(**values)


def content(*items: Item, paused: bool = False) -> QueueContent:
    return QueueContent(items=items, paused=paused)


def summary(**more: Any) -> RunSummary:
    values = {"path": Path("runs/cat"), "name": "cat", "status": "running", "step": 1500, "total_steps": 2000,
              "loss": 0.5, "loss_smoothed": 0.12341, "preview": None, "updated_at": 0.0}  # fmt: skip
    return RunSummary(**(values | more))


def test_those_that_wait_are_told_their_place() -> None:
    items = (item(1, "running"), item(5), item(2, "finished"), item(3), item(9))
    queue = content(*items)
    assert [item_words(each, queue) for each in items if each.state == "waiting"] == [
        "Waiting, next in line", "Waiting, place 2 in line", "Waiting, place 3 in line",
    ]  # fmt: skip


def test_every_state_has_words_of_its_own() -> None:
    words = [item_words(each, content(each)) for each in (item(1, state) for state in get_args(ItemState))]
    assert len(set(words)) == len(get_args(ItemState)) == 8


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"state": "running", "cancel_requested": True}, "Saving and stopping"),
        ({"state": "failed", "exit_code": 3, "message": "<b>no</b> pictures"},
         "Failed (exit code 3). <b>no</b> pictures"),
        ({"state": "finished", "exit_code": 0}, "Finished"),
        ({"state": "stopped", "exit_code": 130}, "Stopped and saved (exit code 130)"),
    ],
)  # fmt: skip
def test_how_an_item_ended(given: dict[str, Any], words: str) -> None:
    ended = item(1, **given)
    assert item_words(ended, content(ended)) == words


def test_an_items_line_is_what_the_command_line_takes() -> None:
    line = split(item(1, recipe="my cat.yaml", overrides=("name=a b", "training.steps=5"), resume=True).line)
    assert line[0] == "atelier"
    told = parse_line(line[1:])
    assert (told.recipe, told.overrides, told.resume) == ("my cat.yaml", ["name=a b", "training.steps=5"], True)


@pytest.mark.parametrize(
    ("queue", "has_runner", "words"),
    [
        (content(), False, "Nothing waits."),
        (content(item(1, "finished")), False, "Nothing waits."),
        (content(item(1)), True, "1 waiting."),
        (content(item(1)), False, "1 waiting. Nobody runs the queue now: press Go on."),
        (content(item(1), item(2, "running")), True, "1 waiting, 1 running."),
        (content(item(2, "starting")), True, "Nothing waits, 1 running."),
        (content(item(1), paused=True), False, "1 waiting. Paused: nothing further is begun."),
    ],
)
def test_the_queue_says_what_keeps_it(queue: QueueContent, has_runner: bool, words: str) -> None:
    assert queue_headline(queue, has_runner=has_runner) == words


def test_only_what_no_process_works_at_may_be_removed() -> None:
    kept = {state for state in get_args(ItemState) if not can_remove(item(1, state))}
    assert kept == {"starting", "running"}


def test_a_run_in_one_line_leaves_out_what_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webui.monitor.words.time.time", lambda: 200.0)
    assert facts_of(summary()) == "Running · step 1,500 of 2,000 · loss 0.1234 · 3 min ago"
    bare = summary(status="interrupted", total_steps=None, loss_smoothed=None)
    assert facts_of(bare) == "Interrupted · 3 min ago"


def test_runs_are_counted_by_how_they_are() -> None:
    assert counted([]) == "0 runs"
    assert counted([summary(status="failed")]) == "1 run"
    assert counted(iter([summary(), summary(status="failed"), summary()])) == "3 runs, 2 training now"


def test_compared_runs_have_a_line_each_over_their_own_steps() -> None:
    def state(loss: float, *steps: int) -> RunState:
        events = [{"kind": "step", "seq": 1, "step": step, "loss": loss, "seconds": 2.0} for step in steps]
        return fold(RunState(), events)

    states = {"runs/a": state(1.0, 1, 2, 3), "@1/b": state(2.0, 5, 6), "empty": RunState()}
    points = compared(states, "loss")
    assert list(zip(points.series, points.x, points.y, strict=True)) == [
        ("runs/a", 1, 1.0), ("runs/a", 2, pytest.approx(1.0)), ("runs/a", 3, pytest.approx(1.0)),
        ("@1/b", 5, 2.0), ("@1/b", 6, pytest.approx(2.0)),
    ]  # fmt: skip
    assert compared(states, "seconds").y == [pytest.approx(2.0)] * 5
    assert compared(states, "grad_norm").x == []
    long = compared({name: state(1.0, *range(1, 5000)) for name in "abc"}, "loss")
    assert len(long.x) <= 3 * 240
    assert set(MEASURES) == {"loss", "grad_norm", "seconds"}
