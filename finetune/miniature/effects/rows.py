"""What a measurement leaves behind: rows of the table, plots and grids of pictures, all as plain data."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.miniature.effects.intervals import Interval, Numbers, paired_interval, wilson

Pixels = npt.NDArray[np.uint8]

Verdict = Callable[[float, Interval], bool]

SHOWN = 8
"""Pictures in a line of a grid."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        family: the name that `--rows` takes.
        effect: what is measured, in words.
        measured: the figure.
        interval: 95 %, or None where there is none.
        unit: '%' (the figure is a share), 'points' (a difference of shares), or what stands behind the figure.
        bar: what it has to reach, in words; empty where it has to reach nothing.
        holds: whether it does; None without a bar.
        count: how many pictures, pairs or photos it is over.
    """

    family: str
    effect: str
    measured: float
    interval: Interval | None
    unit: str
    bar: str
    holds: bool | None
    count: int

    @property
    def measured_text(self) -> str:
        """The figure with its unit."""
        return _text(self.measured, self.unit)

    @property
    def interval_text(self) -> str:
        """The interval in the figure's unit, or nothing."""
        if self.interval is None:
            return ""
        return " to ".join(_number(value, self.unit) for value in self.interval)

    def plain(self) -> dict[str, Any]:
        """Return the row as JSON can hold it: numbers that are not finite are None."""
        low, high = self.interval if self.interval is not None else (math.nan, math.nan)
        row = asdict(self)
        row["measured"], row["interval"] = _finite(self.measured), [_finite(low), _finite(high)]
        return row


@dataclass(frozen=True)
class Series:
    """One line of a plot: y over x, with an interval at each place where there is one."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    intervals: Sequence[Interval] | None = None


@dataclass(frozen=True)
class Plot:
    """A plot to be drawn; `ticks` names the places on the x axis, `bars` draws columns in place of lines."""

    name: str
    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    ticks: Mapping[float, str] | None = None
    bars: bool = False

    def plain(self) -> dict[str, Any]:
        """Return the plot's numbers as JSON can hold them."""
        return {
            "name": self.name,
            "title": self.title,
            "series": [
                {"label": line.label, "x": [_finite(x) for x in line.x], "y": [_finite(y) for y in line.y]}
                for line in self.series
            ],
        }


@dataclass(frozen=True)
class Grid:
    """Pictures side by side: a row a condition, each with its label, and what the columns have in common."""

    name: str
    title: str
    rows: Sequence[tuple[str, Sequence[Pixels]]]


@dataclass
class Findings:
    """What one family has measured."""

    rows: list[Row] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)


def rate_row(family: str, effect: str, hits: Numbers, *, at_least: float | None = None) -> Row:
    """Return the row of a rate, with Wilson's interval; its bar is a share."""
    count, num_hits = len(hits), int(np.sum(np.asarray(hits, dtype=bool)))
    rate = num_hits / count if count else 0.0
    bar = "" if at_least is None else f"at least {100 * at_least:.0f} %"
    holds = None if at_least is None else count > 0 and rate >= at_least
    return Row(family, effect, rate, wilson(num_hits, count), "%", bar, holds, count)


def difference_row(
    family: str, effect: str, hits: Numbers, references: Numbers, *, bar: str = "", holds: Verdict | None = None
) -> Row:
    """Return the row of a difference of two rates over the same prompts and noise.

    Args:
        family: the row's.
        effect: the row's.
        hits: whether each picture is right.
        references: whether each is right in what it is compared with.
        bar: in words.
        holds: decides from (the difference, its interval) whether the bar is reached; None asks for nothing.
    """
    pairs = np.asarray(hits, dtype=np.float64) - np.asarray(references, dtype=np.float64)
    mean, interval = float(pairs.mean()), paired_interval(hits, references)
    return Row(
        family, effect, mean, interval, "points", bar, None if holds is None else holds(mean, interval), len(pairs)
    )


def _text(value: float, unit: str) -> str:
    return f"{_number(value, unit)} {unit}".rstrip()


def _number(value: float, unit: str) -> str:
    if not math.isfinite(value):
        return "?" if math.isnan(value) else "∞" if value > 0 else "-∞"
    if unit == "%":
        return f"{100 * value:.1f}"
    if unit == "points":
        return f"{100 * value:+.1f}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
