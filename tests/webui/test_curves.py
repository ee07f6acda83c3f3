"""Thinned curves: few points, no peak lost, and the same line on a plot."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from webui.curves import Numbers, Table, as_list, thin


def columns_of_pixels(x: Numbers, y: Numbers, span: tuple[float, float], width: int) -> list[tuple[float, float]]:
    """The lowest and highest place the line reaches in each column of pixels, its sloping pieces between included."""
    edges = np.linspace(*span, width + 1)
    reach = []
    for left, right in itertools.pairwise(edges.tolist()):
        inside = y[(x >= left) & (x <= right)]
        across = np.interp([left, right], x, y)
        reach.append((min(*across, *inside), max(*across, *inside)))
    return reach


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 20))
def test_the_line_of_what_is_kept_is_the_line_of_all(seed: int, width: int) -> None:
    draws = np.random.default_rng(seed)
    x = np.cumsum(draws.integers(1, 9, 2000)).astype(float)
    y = draws.standard_cauchy(2000)
    kept_x, kept_y = thin(x, y, 4 * width)
    assert len(kept_x) <= 4 * width
    assert set(zip(kept_x, kept_y, strict=True)) <= set(zip(x, y, strict=True)), "a point was made up"
    assert (kept_y.min(), kept_y.max()) == (y.min(), y.max())
    assert (kept_x[0], kept_x[-1]) == (x[0], x[-1])
    whole = columns_of_pixels(x, y, (x[0], x[-1]), width)
    assert np.allclose(columns_of_pixels(kept_x, kept_y, (x[0], x[-1]), width), whole, rtol=1e-9, atol=1e-9)


def test_gaps_are_left_out_and_short_curves_are_whole() -> None:
    x = np.arange(6.0)
    y = np.array([1, np.nan, 3, np.inf, 5, 6])
    kept_x, kept_y = thin(x, y, 8)
    assert kept_x.tolist() == [0, 2, 4, 5]
    assert kept_y.tolist() == [1, 3, 5, 6]
    empty = thin(x[:0], y[:0], 8)
    assert [len(part) for part in empty] == [0, 0]
    assert as_list(np.array([1.5, np.nan])) == [1.5, None]


def test_points_at_one_place_are_thinned_too() -> None:
    kept_x, _ = thin(np.full(100, 7.0), np.arange(100.0), 12)
    assert 1 <= len(kept_x) <= 12


def test_a_column_that_comes_late_is_empty_before() -> None:
    table = Table().extended(2, {"a": np.array([1.0, 2.0])}).extended(1, {"a": np.array([3.0]), "b": np.array([9.0])})
    assert table.names() == ["a", "b"]
    assert as_list(table.column("b")) == [None, None, 9.0]
    assert table.cut(2).names() == ["a"]
    assert table.cut(2).last("b") is None


def test_a_step_more_does_not_copy_the_curve() -> None:
    table = Table()
    places = set()
    for number in range(5000):
        table = table.extended(1, {"a": np.array([float(number)])})
        places.add(table.column("a").__array_interface__["data"][0])
    assert len(places) < 12, "the columns moved far more often than doubling needs"
    assert table.column("a").tolist() == list(range(5000))
    assert table.nbytes() <= 8 * 4 * 5000
