"""Draws depend on the whole key and on nothing else."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from imagesets.randomness import key_to_fraction, key_to_seed, keyed_numpy, keys_to_seeds

parts = st.lists(st.integers(-(2**70), 2**70) | st.text(), max_size=5)


@given(parts, parts)
def test_different_keys_give_different_seeds(one: list[int | str], other: list[int | str]) -> None:
    assert (key_to_seed(*one) == key_to_seed(*other)) == (one == other)


@given(parts)
def test_seeds_and_fractions_stay_in_range(key: list[int | str]) -> None:
    assert 0 <= key_to_seed(*key) < 2**63
    assert 0.0 <= key_to_fraction(*key) < 1.0


def test_values_are_pinned_so_that_a_resumed_run_draws_the_same_after_an_upgrade() -> None:
    assert key_to_seed(0, "crop", 3, "a.png") == 2835607248509795020
    assert key_to_seed() == 8238016292129134938


def test_the_order_types_and_borders_of_parts_count() -> None:
    assert key_to_seed("a", "b") != key_to_seed("b", "a")
    assert key_to_seed(1) != key_to_seed("1")
    assert key_to_seed("a", "b") != key_to_seed("ab")
    assert key_to_seed("a\x1fstr:b") != key_to_seed("a", "b")


def test_a_number_is_the_same_key_whatever_its_type() -> None:
    assert key_to_seed(np.int64(7), "x") == key_to_seed(7, "x")


def test_fractions_are_spread_evenly() -> None:
    counts = np.histogram([key_to_fraction("even", index) for index in range(10_000)], bins=10, range=(0, 1))[0]
    assert np.all(abs(counts - 1000) < 150)  # five standard deviations


def test_a_generator_starts_anew_for_each_call() -> None:
    first, second = keyed_numpy(1, "noise"), keyed_numpy(1, "noise")
    assert first is not second
    assert np.array_equal(first.random(8), second.random(8))
    assert not np.array_equal(keyed_numpy(1, "noise").random(8), keyed_numpy(2, "noise").random(8))


@given(parts, st.lists(st.tuples(st.integers(-(2**62), 2**62), st.integers(0, 3)), max_size=20))
def test_many_keys_at_once_give_the_seeds_of_each(prefix: list[int | str], rows: list[tuple[int, int]]) -> None:
    columns = np.array(rows, np.int64).reshape(-1, 2).T
    assert keys_to_seeds(prefix, *columns).tolist() == [key_to_seed(*prefix, *row) for row in rows]
    assert keys_to_seeds(prefix, columns[0]).tolist() == [key_to_seed(*prefix, one) for one, _ in rows]


def test_many_keys_are_hashed_in_parts_that_join_without_a_seam() -> None:
    count = 2**16 + 3
    seeds = keys_to_seeds((5, "plan-item"), np.arange(count), np.zeros(count, np.int64))
    for row in (0, 2**16 - 1, 2**16, count - 1):
        assert seeds[row] == key_to_seed(5, "plan-item", row, 0)
