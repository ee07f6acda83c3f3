"""What the events amount to, also after a kill and a resume, and for a log of another version."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from finetune.run.events import EVENT_KINDS, EventLog, read_events
from finetune.run.state import RunState


def test_a_run_from_start_to_end(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    state = RunState()
    assert state.status == "new"
    with EventLog(path) as log:
        log.emit("run_started", name="cat", total_steps=3)
        log.emit("stage", name="cache", done=2, total=5)
        log.emit("step", step=1, loss=0.5, learning_rates={"unet": 1e-4}, grad_norm=2.0)
        log.emit("preview", step=1, pictures=["previews/step-000001/0.png"])
        events, offset = read_events(path)
        for event in events:
            state.fold(event)
        assert (state.status, state.name, state.total_steps) == ("running", "cat", 3)
        assert (state.stage, state.stage_done, state.stage_total) == ("cache", 2, 5)
        log.emit("stage", name="train")
        log.emit("step", step=2, loss=float("nan"), learning_rates={"unet": 5e-5})
        log.emit("checkpoint", step=2, path="checkpoints/step-000002")
        log.emit("warning", message="careful")
        log.emit("command_done", step=2, id="0001-save", command="save")
        log.emit("run_finished", step=3, status="stopped", message="by a signal", exports=["exports/cat.safetensors"])
    for event in read_events(path, offset)[0]:
        state.fold(event)
    assert (state.status, state.message, state.exports) == ("stopped", "by a signal", ("exports/cat.safetensors",))
    assert (state.stage, state.stage_done, state.stage_total) == ("train", None, None)
    assert [(point.step, point.loss) for point in state.points] == [(1, 0.5), (2, None)]
    assert state.points[0].data["grad_norm"] == 2.0
    assert state.learning_rates == {"unet": 5e-5}
    assert state.previews == {1: ("previews/step-000001/0.png",)}
    assert state.checkpoints == {2: "checkpoints/step-000002"}
    assert state.warnings == ["careful"]
    assert state.commands_done == ["0001-save"]
    assert state.last_seq == 10
    assert RunState.from_events(read_events(path)[0]) == state


def test_what_a_resumed_run_repeats_replaces_what_was_there() -> None:
    def step(number: int, loss: float) -> dict[str, object]:
        return {"kind": "step", "step": number, "loss": loss}

    events: list[dict[str, object]] = [
        {"kind": "run_started", "total_steps": 4, "time": 10.0},
        *(step(number, number) for number in (1, 2, 3)),
        {"kind": "checkpoint", "step": 2, "path": "checkpoints/step-000002"},
        {"kind": "preview", "step": 3, "pictures": ["p"]},
        {"kind": "run_started", "total_steps": 4, "resumed_from": 2, "time": 20.0},
    ]
    state = RunState.from_events(events)
    assert (state.step, state.loss, state.started_at) == (2, 2.0, 10.0)
    assert [point.step for point in state.points] == [1, 2]
    assert state.previews == {}
    assert state.checkpoints == {2: "checkpoints/step-000002"}
    for event in (step(3, 30), step(4, 40)):
        state.fold(event)
    assert [(point.step, point.loss) for point in state.points] == [(1, 1), (2, 2), (3, 30), (4, 40)]


JUNK = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())
TEXT_FIELDS = ("name", "path", "message", "id", "status", "exports", "pictures", "unknown")
NUMBER_FIELDS = ("seq", "time", "step", "loss", "learning_rates", "total_steps", "resumed_from", "done", "total")
FIELDS = st.sampled_from((*TEXT_FIELDS, *NUMBER_FIELDS))


@given(st.lists(st.tuples(st.sampled_from((*EVENT_KINDS, "later_kind")), st.dictionaries(FIELDS, JUNK))))
def test_folding_anything_never_fails(events: list[tuple[str, dict[str, object]]]) -> None:
    state = RunState.from_events({"kind": kind, **data} for kind, data in events)
    steps = [point.step for point in state.points]
    assert steps == sorted(set(steps))
