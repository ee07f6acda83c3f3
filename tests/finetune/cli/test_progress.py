"""What a person reads while pictures and captions are encoded: how many, how fast, how long yet."""

import io

import pytest

from finetune.cli import progress
from finetune.cli.progress import PlainLines, StageFigures, describe


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still; its one number is the time."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def stage(done: int, total: int, name: str = "latents") -> dict:
    return {"kind": "stage", "step": None, "name": name, "done": done, "total": total}


def test_rate_and_time_left_count_only_what_was_done_now(clock: list[float]) -> None:
    figures = StageFigures()
    assert figures.line(stage(400, 1000)) == ""  # 400 were there
    clock[0] += 10.0
    assert figures.line(stage(500, 1000)) == "10.0/s  50 s left"
    clock[0] += 190.0
    assert figures.line(stage(500, 1000)) == "2.0 s each  16 min 40 s left"
    assert figures.line(stage(1000, 1000)) == "3.0/s  3 min 20 s"


def test_lines_for_logs_come_now_and_then(clock: list[float]) -> None:
    out = io.StringIO()
    lines = PlainLines(out)
    for done in range(101):
        lines(stage(done, 100))
        clock[0] += 0.5
    assert out.getvalue().splitlines() == [
        "latents …",
        "latents 20/100  2.0/s  40 s left",
        "latents 40/100  2.0/s  30 s left",
        "latents 60/100  2.0/s  20 s left",
        "latents 80/100  2.0/s  10 s left",
        "latents 100/100  2.0/s  50 s",
    ]


def test_nothing_is_said_of_a_stage_that_has_nothing_to_do(clock: list[float]) -> None:
    out = io.StringIO()
    PlainLines(out)(stage(44, 44))
    assert out.getvalue() == ""


def test_the_cache_is_said_where_it_lies_on_the_disk() -> None:
    event = {**stage(40, 44, "cache"), "folder": "runs/_cache"}
    assert describe(event) == "cache runs/_cache: 40 of 44 values are there"
    assert describe({**event, "folder": None}) == ""
