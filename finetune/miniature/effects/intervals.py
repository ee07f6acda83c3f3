"""Intervals of 95 % around what was measured: rates, means, slopes."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

Interval = tuple[float, float]
Numbers = Sequence[float] | Sequence[bool] | npt.NDArray[np.float64] | npt.NDArray[np.bool_]

_Z = 1.959963984540054
"""The normal distribution's 97.5 % point."""


def wilson(num_hits: int, num_trials: int) -> Interval:
    """Return the score interval of a rate (Wilson 1927, 'Probable inference, the law of succession')."""
    if num_trials == 0:
        return (0.0, 1.0)
    rate, square = num_hits / num_trials, _Z * _Z / num_trials
    middle = rate + square / 2.0
    half = _Z * math.sqrt(rate * (1.0 - rate) / num_trials + square / (4.0 * num_trials))
    # At 0 and at n the formula's end is the rate itself; rounding must not put it beyond.
    return (
        max(0.0, min(rate, (middle - half) / (1.0 + square))),
        min(1.0, max(rate, (middle + half) / (1.0 + square))),
    )


def paired_interval(hits: Numbers, references: Numbers) -> Interval:
    """Return the interval of the difference of two rates over the same trials (Agresti & Min 2005, section 2.3).

    Half a trial is added to each of the four cells, so that it has a width also where no trial differs.
    """
    pairs = np.asarray(hits, dtype=np.float64) - np.asarray(references, dtype=np.float64)
    won, lost, count = float((pairs > 0).sum()) + 0.5, float((pairs < 0).sum()) + 0.5, len(pairs) + 2.0
    middle = (won - lost) / count
    half = _Z * math.sqrt((won + lost) - (won - lost) ** 2 / count) / count
    return (max(-1.0, middle - half), min(1.0, middle + half))


def mean_interval(values: Numbers) -> tuple[float, Interval]:
    """Return the mean of independent values and Student's interval of it; infinite below two values."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        return (math.nan, (-math.inf, math.inf))
    mean = float(array.mean())
    if array.size == 1:
        return (mean, (-math.inf, math.inf))
    half = float(stats.t.ppf(0.975, array.size - 1) * array.std(ddof=1) / math.sqrt(array.size))
    return (mean, (mean - half, mean + half))


def ratio_interval(values: Numbers, references: Numbers) -> tuple[float, Interval]:
    """Return the geometric mean of paired ratios of positive values, and its interval."""
    logs = np.log(np.asarray(values, dtype=np.float64)) - np.log(np.asarray(references, dtype=np.float64))
    mean, (low, high) = mean_interval(logs)
    return (math.exp(mean), (math.exp(low), math.exp(high)))


def slope_interval(given: Numbers, found: Numbers) -> tuple[float, Interval]:
    """Return the least-squares slope of `found` over `given` and its interval; infinite below three points."""
    if len(given) < 3 or len(set(given)) < 2:
        return (math.nan, (-math.inf, math.inf))
    fit = stats.linregress(np.asarray(given, dtype=np.float64), np.asarray(found, dtype=np.float64))
    half = float(stats.t.ppf(0.975, len(given) - 2) * fit.stderr)
    return (float(fit.slope), (float(fit.slope) - half, float(fit.slope) + half))
