"""What the page makes of a run's events: the same however the log is cut, also when steps are repeated."""

import copy
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.run.events import EVENT_KINDS
from webui.run_state import BANDS, RunState, band_name, fold

Event = dict[str, Any]


def started(total: int, resumed_from: int | None = None, time: float = 0.0) -> Event:
    return {
        "kind": "run_started",
        "seq": 1,
        "name": "cat",
        "total_steps": total,
        "resumed_from": resumed_from,
        "time": time,
    }


def step(number: int, loss: float | None = 1.0, **more: Any) -> Event:
    rates = {"unet": number / 1000}
    return {"kind": "step", "seq": 1, "step": number, "loss": loss, "learning_rates": rates, **more}


SMALL = st.integers(0, 12)
FLOATS = st.floats(0, 2, width=32) | st.sampled_from([math.nan, math.inf, 1e308])
BATCH = st.lists(st.tuples(st.integers(-5, 1005), FLOATS), max_size=5)
STEPS = st.builds(
    lambda at, loss, seconds, prior, batch: step(
        at,
        loss,
        seconds=seconds,
        timesteps=[timestep for timestep, _ in batch],
        per_sample=[value for _, value in batch],
        **({} if prior is None else {"prior_loss": prior}),
    ),
    SMALL,
    FLOATS | st.none(),
    FLOATS,
    FLOATS | st.none(),
    BATCH,
)
JUNK = st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=3) | st.just([[]])
TEXTS = ("name", "path", "message", "id", "status", "exports", "pictures")
NUMBERS = ("seq", "time", "step", "loss", "learning_rates", "total_steps", "resumed_from")
ODD = st.builds(
    lambda kind, data: {"kind": kind, **data},
    st.sampled_from((*EVENT_KINDS, "later_kind")),
    st.dictionaries(st.sampled_from((*TEXTS, *NUMBERS)), JUNK),
)
OTHERS = st.one_of(
    st.builds(started, st.integers(1, 20), SMALL | st.none()),
    st.builds(lambda at: {"kind": "preview", "step": at, "pictures": [f"previews/{at}.png"]}, SMALL),
    st.builds(lambda at: {"kind": "checkpoint", "step": at, "path": f"checkpoints/{at}"}, SMALL),
    st.builds(lambda text: {"kind": "warning", "seq": 1, "message": text}, st.text(max_size=3)),
    st.just({"kind": "run_finished", "status": "stopped"}),
)
LOGS = st.lists(st.one_of(STEPS, STEPS, STEPS, OTHERS, ODD), max_size=40)


@settings(deadline=None)
@given(LOGS, st.data())
def test_however_the_log_is_cut_the_state_is_the_same_and_older_states_stay(events: list[Event], data: Any) -> None:
    whole = fold(RunState(), events)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=6)))
    state, seen = RunState(), []
    for begin, end in zip([0, *cuts], [*cuts, len(events)], strict=True):
        seen.append((state, copy.deepcopy(state)))
        state = fold(state, events[begin:end])
    assert state == whole
    for held, before in seen:
        assert held == before, "folding changed a state that had been given away"
    steps = whole.curve("step").tolist()
    assert steps == sorted(set(steps))


@settings(deadline=None, max_examples=50)
@given(st.lists(STEPS, max_size=20), st.lists(STEPS, max_size=20), st.lists(STEPS, max_size=20))
def test_two_futures_of_one_state_do_not_meet(past: list[Event], one: list[Event], other: list[Event]) -> None:
    state = fold(RunState(), past)
    first = fold(state, one)
    second = fold(state, other)
    assert first == fold(RunState(), past + one)
    assert second == fold(RunState(), past + other)


def test_states_that_differ_in_a_number_are_not_equal() -> None:
    events = [started(3), step(1, 0.5), step(2, 0.25)]
    assert fold(RunState(), events) != fold(RunState(), [*events[:2], step(2, 0.2500001)])
    assert fold(RunState(), events) != fold(RunState(), events[:2])


def test_a_run_from_start_to_end() -> None:
    state = fold(RunState(), [{"kind": "stage", "seq": 1, "name": "latents", "done": 10, "total": 40}])
    assert (state.stage, state.stage_done, state.stage_total) == ("latents", 10, 40)
    assert state.status(locked=True) == "running"
    assert state.status(locked=False) == "interrupted"
    measured = {"grad_norm": 2.0, "seconds": 0.5, "memory_bytes": 2**31, "epoch": 0, "samples": 4}
    state = fold(state, [started(10, time=5.0), step(1, 0.5, **measured), step(2, None, seconds=0.25)])
    assert (state.name, state.step, state.total_steps, state.started_at) == ("cat", 2, 10, 5.0)
    assert state.loss is None, "a loss that was not finite is no number"
    assert state.loss_smoothed == pytest.approx(0.5)
    assert state.learning_rates == {"unet": 0.002}
    assert state.curve("memory_bytes")[0] == 2**31
    assert state.seconds_per_step == 0.375
    assert state.steps_per_second == 1 / 0.375
    assert state.seconds_left == 8 * 0.375
    assert "prior_loss" not in state.curve_names()
    state = fold(
        state,
        [
            step(3, 0.25, prior_loss=0.125),
            {"kind": "preview", "seq": 1, "step": 3, "pictures": ["previews/a.png"]},
            {"kind": "checkpoint", "seq": 1, "step": 3, "path": "checkpoints/step-000003"},
            {"kind": "warning", "seq": 1, "step": 3, "message": "<b>careful</b>"},
            {"kind": "warning", "seq": None, "message": "the line at byte 3 is damaged"},
            {"kind": "command_done", "seq": 1, "id": "0001-save"},
            {"kind": "run_finished", "seq": 9, "status": "failed", "message": "no", "exports": ["exports/cat"]},
        ],
    )
    assert state.last("prior_loss") == 0.125
    assert state.previews == {3: ("previews/a.png",)}
    assert state.checkpoints == {3: "checkpoints/step-000003"}
    assert [warned.message for warned in state.warnings] == ["<b>careful</b>", "the line at byte 3 is damaged"]
    assert (state.num_warnings, state.num_damaged) == (2, 1)
    assert state.commands_done == ("0001-save",)
    assert (state.status(locked=False), state.message, state.exports) == ("failed", "no", ("exports/cat",))
    # A resume begins with its preparations, before it says that it has started.
    assert fold(state, [{"kind": "stage", "seq": 10, "name": "cache"}]).status(locked=True) == "running"


def test_what_a_resumed_run_repeats_counts_as_it_was_last() -> None:
    first = [
        started(4, time=10.0),
        *(step(number, float(number)) for number in (1, 2, 3)),
        {"kind": "checkpoint", "step": 2, "path": "checkpoints/step-000002"},
        {"kind": "preview", "step": 3, "pictures": ["p"]},
    ]
    state = fold(RunState(), [*first, started(6, resumed_from=2, time=20.0)])
    assert (state.step, state.loss, state.total_steps, state.started_at) == (2, 2.0, 6, 10.0)
    assert state.previews == {}
    assert state.checkpoints == {2: "checkpoints/step-000002"}
    assert [part.resumed_from for part in state.parts] == [None, 2]
    again = fold(state, [step(3, 30.0), step(4, 40.0)])
    assert again.curve("loss").tolist() == [1, 2, 30, 40]
    never_broken = fold(RunState(), [started(6), step(1, 1.0), step(2, 2.0), step(3, 30.0), step(4, 40.0)])
    assert again.smoothed("loss").tolist() == never_broken.smoothed("loss").tolist()


def test_the_running_mean_and_the_bands_against_their_definitions() -> None:
    draws = np.random.default_rng(3)
    events: list[Event] = [started(60)]
    batches = []
    for number in range(1, 61):
        timesteps = draws.integers(0, 1000, 3).tolist()
        losses = draws.random(3).tolist()
        batches.append((timesteps, losses))
        events.append(step(number, float(np.mean(losses)), timesteps=timesteps, per_sample=losses))
    state = fold(RunState(), events)
    for first, end in BANDS:
        means = []
        for timesteps, losses in batches:
            inside = [loss for timestep, loss in zip(timesteps, losses, strict=True) if first <= timestep < end]
            means.append(np.mean(inside) if inside else np.nan)
        np.testing.assert_allclose(state.curve(band_name((first, end))), means, rtol=1e-12)
        known = np.array(means)[np.isfinite(means)]
        weights = 0.98 ** np.arange(len(known))[::-1]
        expected = (weights * known).sum() / weights.sum()
        assert state.smoothed(band_name((first, end)))[-1] == pytest.approx(expected, rel=1e-9)


def test_warnings_without_end_are_counted_and_the_newest_kept() -> None:
    state = fold(RunState(), ({"kind": "warning", "seq": 1, "message": str(number)} for number in range(1000)))
    assert state.num_warnings == 1000
    assert len(state.warnings) < 1000
    assert state.warnings[-1].message == "999"
