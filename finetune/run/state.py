"""What a run's events amount to: one plain record for the page, the terminal and scripts. It reads no files.

Folding is forgiving: a field that is missing or of another kind, as in a log of an older version, leaves the record as
it was. A run that was killed goes on from a checkpoint and repeats some steps; what it repeats replaces what it had.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

RunStatus = Literal["new", "running", "finished", "stopped", "failed"]


@dataclass(frozen=True)
class StepPoint:
    """One `step` event: the step, its time, its loss (None where it was not finite) and all its data."""

    step: int
    time: float | None
    loss: float | None
    learning_rates: Mapping[str, float]
    data: Mapping[str, Any]


@dataclass
class RunState:
    """A run as its events tell it. `fold` changes it in place.

    Attributes:
        status: 'running' is what the log says; a process that was killed could not say otherwise, so ask
            `RunFolder.is_locked` as well.
        name: the recipe's name.
        stage: what the run is doing, with `stage_done` of `stage_total` where that has a length.
        step: optimizer steps done; total_steps: how many there will be.
        loss, learning_rates: of the last step.
        points: every step, in order, each once.
        previews: step → pictures, relative to the run folder.
        checkpoints: step → folder, relative to the run folder.
        warnings: messages in order.
        exports: files, relative to the run folder.
        commands_done: ids in order.
        message: how the run ended.
        started_at, updated_at: seconds since 1970.
        last_seq: the number of the last event.
    """

    status: RunStatus = "new"
    name: str = ""
    stage: str = ""
    stage_done: int | None = None
    stage_total: int | None = None
    step: int = 0
    total_steps: int | None = None
    loss: float | None = None
    learning_rates: Mapping[str, float] = field(default_factory=dict)
    points: list[StepPoint] = field(default_factory=list)
    previews: dict[int, tuple[str, ...]] = field(default_factory=dict)
    checkpoints: dict[int, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    exports: tuple[str, ...] = ()
    commands_done: list[str] = field(default_factory=list)
    message: str = ""
    started_at: float | None = None
    updated_at: float | None = None
    last_seq: int = 0

    @classmethod
    def from_events(cls, events: Iterable[Mapping[str, Any]]) -> "RunState":
        """Return the state after `events`."""
        state = cls()
        for event in events:
            state.fold(event)
        return state

    def fold(self, event: Mapping[str, Any]) -> None:
        """Take in the next event. An unknown kind changes nothing but the time."""
        self.last_seq = _whole(event.get("seq")) or self.last_seq
        self.updated_at = _number(event.get("time")) or self.updated_at
        take = _FOLDS.get(str(event.get("kind")))
        if take is not None:
            take(self, event)


def _run_started(state: RunState, event: Mapping[str, Any]) -> None:
    resumed_from = _whole(event.get("resumed_from"))
    state.status = "running"
    state.name = _text(event.get("name")) or state.name
    state.total_steps = _whole(event.get("total_steps")) or state.total_steps
    state.started_at = state.started_at or _number(event.get("time"))
    state.message = ""
    state.exports = ()
    _forget_after(state, resumed_from or 0)


def _forget_after(state: RunState, step: int) -> None:
    """Drop what lies beyond `step`: the run goes on from there and will make it again."""
    while state.points and state.points[-1].step > step:
        state.points.pop()
    state.checkpoints = {at: path for at, path in state.checkpoints.items() if at <= step}
    state.previews = {at: paths for at, paths in state.previews.items() if at <= step}
    state.step = step
    last = state.points[-1] if state.points else None
    state.loss = last.loss if last else None
    state.learning_rates = last.learning_rates if last else {}


def _stage(state: RunState, event: Mapping[str, Any]) -> None:
    state.stage = _text(event.get("name")) or state.stage
    state.stage_done = _whole(event.get("done"))
    state.stage_total = _whole(event.get("total"))


def _step(state: RunState, event: Mapping[str, Any]) -> None:
    step = _whole(event.get("step"))
    if step is None:
        return
    while state.points and state.points[-1].step >= step:
        state.points.pop()
    rates = event.get("learning_rates")
    learning_rates = {
        str(group): rate
        for group, value in (rates.items() if isinstance(rates, Mapping) else ())
        if (rate := _number(value)) is not None
    }
    data = {key: value for key, value in event.items() if key not in ("seq", "time", "kind", "step")}
    loss = _number(event.get("loss"))
    state.points.append(StepPoint(step, _number(event.get("time")), loss, learning_rates, data))
    state.step, state.loss, state.learning_rates = step, loss, learning_rates


def _preview(state: RunState, event: Mapping[str, Any]) -> None:
    step = _whole(event.get("step"))
    if step is not None:
        state.previews[step] = _texts(event.get("pictures"))


def _checkpoint(state: RunState, event: Mapping[str, Any]) -> None:
    step, path = _whole(event.get("step")), _text(event.get("path"))
    if step is not None and path:
        state.checkpoints[step] = path


def _warning(state: RunState, event: Mapping[str, Any]) -> None:
    state.warnings.append(_text(event.get("message")))


def _command_done(state: RunState, event: Mapping[str, Any]) -> None:
    state.commands_done.append(_text(event.get("id")))


def _run_finished(state: RunState, event: Mapping[str, Any]) -> None:
    status = event.get("status")
    state.status = status if status in ("finished", "stopped", "failed") else "finished"
    state.message = _text(event.get("message"))
    state.exports = _texts(event.get("exports"))


_FOLDS = {
    "run_started": _run_started,
    "stage": _stage,
    "step": _step,
    "preview": _preview,
    "checkpoint": _checkpoint,
    "warning": _warning,
    "command_done": _command_done,
    "run_finished": _run_finished,
}


def _whole(value: object) -> int | None:
    return value if type(value) is int else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, (list, tuple)) else ()
