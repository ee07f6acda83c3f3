"""Columns of numbers over the steps of a run, kept compactly, and thinned for drawing. It knows nothing of events.

A table is a value: extending or cutting one gives another and leaves the first as it was. Tables that grew from one
another share their memory, so that a step more costs a step more and not the whole curve again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

_FIRST_CAPACITY = 256


@dataclass
class _Store:
    """Memory that tables share: `used` rows belong to the longest of them, the rest is room."""

    columns: dict[str, Numbers]
    used: int
    capacity: int


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of named numbers; what a row does not have is NaN.

    Every number is a float64: counts and bytes up to 2^53 are exact in it.
    """

    length: int = 0
    _store: _Store = field(default_factory=lambda: _Store({}, 0, 0), repr=False)

    def __len__(self) -> int:
        """The number of rows."""
        return self.length

    def __eq__(self, other: object) -> bool:
        """Whether both have the same rows; a column that has no number anywhere is as good as none."""
        if not isinstance(other, Table) or len(self) != len(other):
            return NotImplemented if not isinstance(other, Table) else False
        names = {*self.names(), *other.names()}
        return all(np.array_equal(self.column(name), other.column(name), equal_nan=True) for name in names)

    def names(self) -> list[str]:
        """Return the columns that have a number in some row, in the order of their names."""
        return sorted(name for name in self._store.columns if not np.isnan(self.column(name)).all())

    def column(self, name: str) -> Numbers:
        """Return a column (num_rows,), not to be written to; all NaN where no row has it."""
        held = self._store.columns.get(name)
        values = np.full(self.length, np.nan) if held is None else held[: self.length]
        values.flags.writeable = False
        return values

    def last(self, name: str) -> float | None:
        """Return a column's number in the last row, or None where it has none."""
        held = self._store.columns.get(name)
        if held is None or self.length == 0:
            return None
        value = float(held[self.length - 1])
        return None if np.isnan(value) else value

    def cut(self, length: int) -> "Table":
        """Return the first `length` rows."""
        return self if length >= self.length else Table(max(0, length), self._store)

    def extended(self, num_rows: int, columns: Mapping[str, Numbers]) -> "Table":
        """Return this table with `num_rows` rows behind it, (num_rows,) each of `columns`; the others get NaN."""
        if num_rows == 0:
            return self
        store, length = self._store, self.length + num_rows
        if store.used != self.length or length > store.capacity:
            store = self._moved(length)
        for name, values in columns.items():
            if name not in store.columns:
                store.columns[name] = np.full(store.capacity, np.nan)
            store.columns[name][self.length : length] = values
        store.used = length
        return Table(length, store)

    def nbytes(self) -> int:
        """Return the memory of the columns, with the room behind them."""
        return sum(column.nbytes for column in self._store.columns.values())

    def _moved(self, length: int) -> _Store:
        """Copy the rows to memory of their own, with room for as many again."""
        capacity = max(_FIRST_CAPACITY, 2 * length)
        columns = {}
        for name, old in self._store.columns.items():
            columns[name] = np.full(capacity, np.nan)
            columns[name][: self.length] = old[: self.length]
        return _Store(columns, self.length, capacity)


def smooth(values: Numbers, decay: float) -> Numbers:
    """Return the exponential running mean of a curve (num_points,), which stands still where a value is NaN.

    The bias of its beginning is divided out, as Kingma and Ba do for Adam's moments (arXiv:1412.6980, section 3), so
    that the first mean is the first value. Before the first value it is NaN.
    """
    known = np.isfinite(values)
    sums = accumulate(values[known].tolist(), lambda held, value: decay * held + (1 - decay) * value, initial=0.0)
    count = np.cumsum(known)
    with np.errstate(invalid="ignore"):
        mean: Numbers = np.array(list(sums))[count] / (1 - decay**count)
    return mean


def thin(x: Numbers, y: Numbers, max_points: int) -> tuple[Numbers, Numbers]:
    """Return at most `max_points` points of a curve that draw the same line on a plot of a quarter as many pixels.

    Of the points that share a pixel's width, the first, the last, the lowest and the highest are kept, so that no peak
    is lost and nothing is averaged: Jugel, Jerzak, Hackenbroich and Markl, "M4: A Visualization-Oriented Time Series
    Data Aggregation", VLDB 2014, section 4.2. Points without a number are left out.

    Args:
        x: where the points are, rising; (num_points,).
        y: their values; (num_points,).
        max_points: at least 4.
    """
    assert max_points >= 4, "one pixel needs up to four points"
    drawn = np.isfinite(x) & np.isfinite(y)
    x, y = x[drawn], y[drawn]
    if len(x) <= max_points:
        return x, y
    num_buckets = max_points // 4
    span = x[-1] - x[0]
    places = (x - x[0]) / span if span > 0 else np.linspace(0, 1, len(x))
    bucket = np.minimum((places * num_buckets).astype(np.int64), num_buckets - 1)
    by_value = np.lexsort((y, bucket))
    starts = np.flatnonzero(np.diff(bucket, prepend=-1))
    ends = np.append(starts[1:], len(x)) - 1
    # Buckets lie one behind the other in either order, so that their bounds serve both.
    kept: NDArray[np.int64] = np.unique(np.concatenate([starts, ends, by_value[starts], by_value[ends]]))
    return x[kept], y[kept]


def as_list(values: Numbers) -> list[float | None]:
    """Return a column as JSON knows it: NaN becomes None."""
    plain: list[Any] = values.tolist()
    return [value if value == value else None for value in plain]
