"""What a run's events amount to, as the page shows it: plain data and compact curves. It reads no files.

`fold` takes any cut of the log: folding it piece by piece gives what folding it at once gives. It is forgiving, as a
log may be damaged or of another version: what is missing or of another kind leaves the state as it was. A run that was
resumed repeats steps; what it repeats replaces what it had.

Texts (names, messages, paths) are kept as they stand in the log: they are data, never markup, and a path among them is
only to be opened through `webui.paths.file_inside`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from finetune.run.events import finite_number
from finetune.run.losses import DECAY
from webui.curves import Numbers, Table, smooth

LogStatus = Literal["new", "running", "finished", "stopped", "failed"]
"""What a log says of its run."""

RunStatus = Literal["running", "finished", "stopped", "failed", "interrupted"]
"""How a run is: 'interrupted' where its log says nothing of an end, and no process holds its lock."""

NUM_TIMESTEPS = 1000
BANDS = ((0, 250), (250, 500), (500, 750), (750, 1000))
"""The quarters of SDXL's timesteps, [first, end), each with a loss of its own: coarse form at the top, detail below."""

_MEMORY_STEPS = 2000
_RATE_STEPS = 20
_WARNINGS_KEPT = 200
_MAX_TEXT = 4000
_MAX_WHOLE = 2**53

_MEASURES = ("step", "time", "loss", "prior_loss", "grad_norm", "seconds", "memory_bytes", "epoch", "samples")


@dataclass(frozen=True)
class Part:
    """One start of the run: the first, or a resume.

    Attributes:
        resumed_from: the step of the checkpoint it went on from; None for a start from nothing.
        started_at: seconds since 1970.
    """

    resumed_from: int | None
    started_at: float | None


@dataclass(frozen=True)
class Warned:
    """A warning's words, and the step it belongs to, if any."""

    message: str
    step: int | None = None


@dataclass(frozen=True)
class RunState:
    """A run as its events tell it. A value: `fold` returns another.

    Attributes:
        log_status: what the log says; `status` knows of the lock as well.
        name: the recipe's name.
        stage: what the run is doing, with `stage_done` of `stage_total` where that has a length.
        step: optimizer steps done; total_steps: how many there will be.
        epoch_steps: steps an epoch, where that is known.
        steps: the curves, a row a step; see `curve` for their names.
        previews: step → pictures, paths relative to the run folder, as the log has them.
        checkpoints: step → folder, relative to the run folder.
        exports: files, relative to the run folder.
        warnings: the newest ones in order; num_warnings: of them all.
        num_damaged: lines of the log that could not be read.
        commands_done: ids in order.
        parts: every start of the run.
        environment: versions and the device of the last start.
        num_pictures, num_parameters: of the last start.
        message: how the run ended.
        started_at, updated_at: seconds since 1970.
        last_seq: the number of the last event.
    """

    log_status: LogStatus = "new"
    name: str = ""
    stage: str = ""
    stage_done: int | None = None
    stage_total: int | None = None
    step: int = 0
    total_steps: int | None = None
    epoch_steps: int | None = None
    steps: Table = field(default_factory=Table)
    previews: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    checkpoints: Mapping[int, str] = field(default_factory=dict)
    exports: tuple[str, ...] = ()
    warnings: tuple[Warned, ...] = ()
    num_warnings: int = 0
    num_damaged: int = 0
    commands_done: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    num_pictures: int | None = None
    num_parameters: int | None = None
    message: str = ""
    started_at: float | None = None
    updated_at: float | None = None
    last_seq: int = 0

    def status(self, *, locked: bool) -> RunStatus:
        """Return how the run is, given whether a process holds its lock."""
        if self.log_status == "new" or self.log_status == "running":
            return "running" if locked else "interrupted"
        return self.log_status

    def curve(self, name: str) -> Numbers:
        """Return a curve (num_steps,), NaN where a step has no such number; `step` and `time` are curves too.

        `loss`, `prior_loss` and `loss/0-249` … (the mean over a step's samples in a band of timesteps) are as they were
        measured; `smoothed(name)` is the running mean of one. `learning_rate/unet` …, `grad_norm`, `seconds`,
        `memory_bytes`, `epoch` and `samples` are the others.
        """
        return self.steps.column(name)

    def smoothed(self, name: str) -> Numbers:
        """Return the running mean of a curve over about fifty of its values: exponential, decay 0.98."""
        return smooth(self.steps.column(name), DECAY)

    def curve_names(self) -> list[str]:
        """Return the curves that have a number somewhere."""
        return self.steps.names()

    def last(self, name: str) -> float | None:
        """Return a curve's number at the last step, or None."""
        return self.steps.last(name)

    @property
    def loss(self) -> float | None:
        """The last step's loss; None where there is none, or it was not finite."""
        return self.steps.last("loss")

    @property
    def loss_smoothed(self) -> float | None:
        """The loss's running mean after the last step."""
        # What lies further back weighs less than a float64 can tell.
        losses = self.steps.column("loss")[-_MEMORY_STEPS:]
        mean = float(smooth(losses, DECAY)[-1]) if len(losses) else math.nan
        return mean if math.isfinite(mean) else None

    @property
    def learning_rates(self) -> dict[str, float]:
        """The last step's learning rates, by group."""
        names = [name for name in self.curve_names() if name.startswith("learning_rate/")]
        found = {name.partition("/")[2]: self.steps.last(name) for name in names}
        return {group: rate for group, rate in found.items() if rate is not None}

    @property
    def seconds_per_step(self) -> float | None:
        """The median over the last twenty steps, so that a preview in between does not count."""
        seconds = self.steps.column("seconds")[-_RATE_STEPS:]
        known = seconds[np.isfinite(seconds)]
        return float(np.median(known)) if len(known) else None

    @property
    def steps_per_second(self) -> float | None:
        """The other way round."""
        seconds = self.seconds_per_step
        return 1 / seconds if seconds else None

    @property
    def seconds_left(self) -> float | None:
        """How long the steps that are left take at this speed, without previews; None where that is not known."""
        seconds = self.seconds_per_step
        if seconds is None or self.total_steps is None:
            return None
        return seconds * max(0, self.total_steps - self.step)


def band_name(band: tuple[int, int]) -> str:
    """Return the curve of a band of timesteps: `loss/250-499`."""
    return f"loss/{band[0]}-{band[1] - 1}"


def fold(state: RunState, events: Iterable[Mapping[str, Any]]) -> RunState:
    """Return the state after further events. The one that is given is left as it was."""
    folding = _Folding(state)
    for event in events:
        folding.take(event)
    return folding.result()


_BAND_NAMES = tuple(band_name(band) for band in BANDS)


class _Folding:
    """A state that is being added to: events of steps wait in a list, and everything else lies in `fields`."""

    def __init__(self, state: RunState) -> None:
        self.state = state
        self.fields: dict[str, Any] = {}
        self.table = state.steps
        self.waiting: list[Mapping[str, Any]] = []
        last = self.table.last("step")
        self.last_step = -1 if last is None else int(last)

    def result(self) -> RunState:
        self.write_steps()
        return replace(self.state, **self.fields, steps=self.table)

    def get(self, name: str) -> Any:
        return self.fields[name] if name in self.fields else getattr(self.state, name)

    def take(self, event: Mapping[str, Any]) -> None:
        seq, time = event.get("seq"), finite_number(event.get("time"))
        if _whole(seq) is not None:
            self.fields["last_seq"] = seq
        if time is not None:
            self.fields["updated_at"] = time
        taker = _TAKERS.get(str(event.get("kind")))
        if taker is not None:
            taker(self, event, time)

    def run_started(self, event: Mapping[str, Any], time: float | None) -> None:
        resumed_from = _whole(event.get("resumed_from"))
        self.fields.update(log_status="running", message="", exports=())
        for name, key in _OF_A_START:
            value = _whole(event.get(key))
            if value is not None:
                self.fields[name] = value
        name = _text(event.get("name"))
        if name:
            self.fields["name"] = name
        if self.get("started_at") is None:
            self.fields["started_at"] = time
        environment = event.get("environment")
        if isinstance(environment, Mapping):
            self.fields["environment"] = {_text(str(key)): _text(str(value)) for key, value in environment.items()}
        self.fields["parts"] = (*self.get("parts"), Part(resumed_from, time))
        # The run goes on from there and will make again what lies beyond.
        start = resumed_from or 0
        self.drop_steps_after(start)
        self.fields["step"] = start
        for name in ("previews", "checkpoints"):
            held = self.get(name)
            if any(at > start for at in held):
                self.fields[name] = {at: what for at, what in held.items() if at <= start}

    def stage(self, event: Mapping[str, Any], _time: float | None) -> None:
        self.fields["log_status"] = "running"
        name = _text(event.get("name"))
        if name:
            self.fields["stage"] = name
        self.fields["stage_done"] = _whole(event.get("done"))
        self.fields["stage_total"] = _whole(event.get("total"))

    def step(self, event: Mapping[str, Any], _time: float | None) -> None:
        step = _whole(event.get("step"))
        if step is None:
            return
        if step <= self.last_step:
            self.drop_steps_after(step - 1)
        self.waiting.append(event)
        self.last_step = step
        self.fields["step"] = step
        self.fields["log_status"] = "running"

    def preview(self, event: Mapping[str, Any], _time: float | None) -> None:
        step = _whole(event.get("step"))
        if step is not None:
            self.fields["previews"] = {**self.get("previews"), step: _texts(event.get("pictures"))}

    def checkpoint(self, event: Mapping[str, Any], _time: float | None) -> None:
        step, path = _whole(event.get("step")), _text(event.get("path"))
        if step is not None and path:
            self.fields["checkpoints"] = {**self.get("checkpoints"), step: path}

    def warning(self, event: Mapping[str, Any], _time: float | None) -> None:
        warned = Warned(_text(event.get("message")), _whole(event.get("step")))
        self.fields["warnings"] = (*self.get("warnings"), warned)[-_WARNINGS_KEPT:]
        self.fields["num_warnings"] = self.get("num_warnings") + 1
        # A line that could not be read comes as a warning without a number; see finetune.run.events.
        if event.get("seq") is None:
            self.fields["num_damaged"] = self.get("num_damaged") + 1

    def command_done(self, event: Mapping[str, Any], _time: float | None) -> None:
        self.fields["commands_done"] = (*self.get("commands_done"), _text(event.get("id")))

    def run_finished(self, event: Mapping[str, Any], _time: float | None) -> None:
        status = event.get("status")
        self.fields["log_status"] = status if status in ("finished", "stopped", "failed") else "finished"
        self.fields["message"] = _text(event.get("message"))
        self.fields["exports"] = _texts(event.get("exports"))

    def drop_steps_after(self, step: int) -> None:
        """Forget the rows of later steps."""
        if self.last_step <= step:
            return
        self.write_steps()
        self.table = self.table.cut(int(np.searchsorted(self.table.column("step"), step, side="right")))
        last = self.table.last("step")
        self.last_step = -1 if last is None else int(last)

    def write_steps(self) -> None:
        """Make rows of the steps that wait."""
        self.table = self.table.extended(len(self.waiting), _columns_of(self.waiting))
        self.waiting = []


_OF_A_START = (
    ("total_steps", "total_steps"),
    ("epoch_steps", "steps_per_epoch"),
    ("num_pictures", "num_pictures"),
    ("num_parameters", "num_parameters"),
)

_TAKERS = {
    "run_started": _Folding.run_started,
    "stage": _Folding.stage,
    "step": _Folding.step,
    "preview": _Folding.preview,
    "checkpoint": _Folding.checkpoint,
    "warning": _Folding.warning,
    "command_done": _Folding.command_done,
    "run_finished": _Folding.run_finished,
}


def _columns_of(steps: Sequence[Mapping[str, Any]]) -> dict[str, Numbers]:
    """Return the numbers of some steps' events as columns (num_steps,); a column without any number is left out."""
    columns = {name: _numbers([event.get(name) for event in steps]) for name in _MEASURES}
    given = [event.get("learning_rates") for event in steps]
    rates: list[Mapping[Any, Any]] = [rate if isinstance(rate, Mapping) else {} for rate in given]
    for group in {group for rate in rates for group in rate}:
        columns[f"learning_rate/{_text(str(group))}"] = _numbers([rate.get(group) for rate in rates])
    columns.update(_bands_of(steps))
    return {name: column for name, column in columns.items() if not np.isnan(column).all()}


def _bands_of(steps: Sequence[Mapping[str, Any]]) -> dict[str, Numbers]:
    """Return the mean loss of each band of timesteps over the samples of each step, (num_steps,) each."""
    sizes, all_timesteps, all_losses = [], list[Any](), list[Any]()
    for event in steps:
        timesteps_given, losses_given = event.get("timesteps"), event.get("per_sample")
        if not (isinstance(timesteps_given, list) and isinstance(losses_given, list)):
            sizes.append(0)
            continue
        fits = len(timesteps_given) == len(losses_given)
        sizes.append(len(timesteps_given) if fits else 0)
        if fits:
            all_timesteps += timesteps_given
            all_losses += losses_given
    timesteps, losses = _numbers(all_timesteps), _numbers(all_losses)
    used = (timesteps >= 0) & (timesteps < NUM_TIMESTEPS) & np.isfinite(losses)
    band = (timesteps[used] * len(BANDS) / NUM_TIMESTEPS).astype(np.int64)
    cell = np.repeat(np.arange(len(steps)), sizes)[used] * len(BANDS) + band
    num_cells = len(steps) * len(BANDS)
    counts = np.bincount(cell, minlength=num_cells)
    with np.errstate(invalid="ignore", over="ignore"):
        means = (np.bincount(cell, losses[used], num_cells) / counts).reshape(len(steps), len(BANDS))
    return {name: means[:, index] for index, name in enumerate(_BAND_NAMES)}


def _numbers(values: list[Any]) -> Numbers:
    """Return plain data as numbers; what is none, or not finite, is NaN."""
    if not set(map(type, values)) <= {float, int, type(None)}:
        values = [finite_number(value) for value in values]
    try:
        numbers = np.array(values, dtype=np.float64)
    except OverflowError:  # a whole number without end, which only a damaged log has
        numbers = np.array([finite_number(value) for value in values], dtype=np.float64)
    numbers[~np.isfinite(numbers)] = np.nan
    return numbers


def _whole(value: object) -> int | None:
    """Return a count; one that is negative, or larger than a float64 holds exactly, is none of ours."""
    return value if type(value) is int and 0 <= value < _MAX_WHOLE else None


def _text(value: object) -> str:
    return value[:_MAX_TEXT] if isinstance(value, str) else ""


def _texts(value: object) -> tuple[str, ...]:
    return tuple(_text(item) for item in value if isinstance(item, str)) if isinstance(value, (list, tuple)) else ()
