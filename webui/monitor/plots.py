"""A run's curves as the points that are drawn: thinned so that no peak is lost, a row a point."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from webui.curves import Numbers, thin
from webui.run_state import BANDS, RunState, band_name

_MAX_POINTS = 240
_GIB = 2**30


@dataclass(frozen=True)
class Points:
    """Points of one or more lines: the columns of a table.

    Attributes:
        x: optimizer steps.
        y: values.
        series: the line each point belongs to.
    """

    x: list[float]
    y: list[float]
    series: list[str]


@dataclass(frozen=True)
class Plot:
    """One plot of a run.

    Attributes:
        name: for the program.
        title: above it, with the unit.
        lines: from a state to its lines' names and values, (num_steps,) each.
        series_title: what the lines differ in; empty where there is one alone.
    """

    name: str
    title: str
    lines: Callable[[RunState], dict[str, Numbers]]
    series_title: str


def _loss(state: RunState) -> dict[str, Numbers]:
    lines = {"each step": state.curve("loss"), "smoothed": state.smoothed("loss")}
    if "prior_loss" in state.curve_names():
        lines["prior, smoothed"] = state.smoothed("prior_loss")
    return lines


def _bands(state: RunState) -> dict[str, Numbers]:
    return {f"{first}-{end - 1}": state.smoothed(band_name((first, end))) for first, end in BANDS}


def _rates(state: RunState) -> dict[str, Numbers]:
    names = [name for name in state.curve_names() if name.startswith("learning_rate/")]
    return {name.partition("/")[2]: state.curve(name) for name in names}


def _speed(state: RunState) -> dict[str, Numbers]:
    seconds = state.curve("seconds").copy()
    seconds[~(seconds > 0)] = float("nan")
    return {"steps per second": 1 / seconds}


PLOTS: tuple[Plot, ...] = (
    Plot("loss", "Loss", _loss, "Loss"),
    Plot("bands", "Loss by timestep, smoothed", _bands, "Timesteps"),
    Plot("rates", "Learning rate", _rates, "Group"),
    Plot("gradient", "Gradient norm, before clipping", lambda state: {"norm": state.curve("grad_norm")}, ""),
    Plot("speed", "Steps per second", _speed, ""),
    Plot("memory", "Memory, GiB", lambda state: {"memory": state.curve("memory_bytes") / _GIB}, ""),
)


def points_of(plot: Plot, state: RunState) -> Points:
    """Return the points of a plot; a line without a number has none."""
    return joined(state.curve("step"), plot.lines(state))


def joined(steps: Numbers, lines: dict[str, Numbers]) -> Points:
    """Put several lines over the same steps, (num_steps,) each, one behind the other."""
    points = Points([], [], [])
    for name, values in lines.items():
        add_line(points, name, steps, values)
    return points


def add_line(points: Points, name: str, steps: Numbers, values: Numbers) -> None:
    """Put another line behind those that are there."""
    x, y = thin(steps, values, _MAX_POINTS)
    points.x.extend(x.tolist())
    points.y.extend(y.tolist())
    points.series.extend([name] * len(x))


def is_worth_drawing(step: int, drawn_step: int, seconds: float, cost_seconds: float) -> bool:
    """Whether curves have grown by as much as one sees, or waited long enough.

    Drawing costs the machine that trains more than reading, so a long curve is drawn anew seldom.

    Args:
        step: how far the run is.
        drawn_step: how far what is drawn goes.
        seconds: since it was drawn.
        cost_seconds: what drawing it took; at most a two-hundredth of the time is spent on it.
    """
    if step < drawn_step:
        return True
    grew_visibly = step >= drawn_step * 1.02 + 1
    return step > drawn_step and seconds >= 200 * cost_seconds and (grew_visibly or seconds >= _PATIENCE_SECONDS)


_PATIENCE_SECONDS = 10.0


def colours(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each line; they keep a contrast of 3 to 1 with a light and with a dark ground."""
    return {name: _OWN.get(name, _COLOURS[index % len(_COLOURS)]) for index, name in enumerate(names)}


_COLOURS = ("#0d9488", "#c2570c", "#7c6cf0", "#b5485d", "#5b8c2a", "#2f7fd1", "#a06a00", "#8b5a9e")
"""Of different lightness as well as hue, so that they can be told apart without seeing colours."""

_OWN = {"each step": "#7c9491", "smoothed": _COLOURS[0]}
