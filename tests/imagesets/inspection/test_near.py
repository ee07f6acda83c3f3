"""The search finds every near pair that comparing all with all finds, and its work does not grow with the square."""

from collections.abc import Sequence

import numpy as np
import pytest

from imagesets.inspection import near
from imagesets.inspection.near import MAX_DIFFERING_BITS, group_nearly_alike


def flip_bits(code: int, count: int, rng: np.random.Generator) -> int:
    for place in rng.choice(64, count, replace=False):
        code ^= 1 << int(place)
    return code


def random_codes(count: int, rng: np.random.Generator) -> list[int]:
    return [int(code) for code in rng.integers(0, 2**64, count, dtype=np.uint64)]


def some_grids(count: int, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)


def by_brute_force(codes: Sequence[int], grids: np.ndarray) -> list[list[int]]:
    groups: list[set[int]] = [{index} for index in range(len(codes))]
    for one in range(len(codes)):
        for other in range(one):
            close = (codes[one] ^ codes[other]).bit_count() <= MAX_DIFFERING_BITS
            if close and near.correlation(grids[one : one + 1], grids[other : other + 1])[0] >= near.MIN_CORRELATION:
                first = next(group for group in groups if one in group)
                second = next(group for group in groups if other in group)
                if first is not second:
                    first |= second
                    groups.remove(second)
    return sorted(sorted(group) for group in groups if len(group) > 1)


@pytest.mark.parametrize("seed", range(6))
def test_it_finds_what_comparing_all_with_all_finds(seed: int) -> None:
    """Copies that differ in 0 to 10 bits, some with other colours, among codes that have nothing in common."""
    rng = np.random.default_rng(seed)
    codes, grids = random_codes(60, rng), list(some_grids(60, rng))
    for original in range(40):
        for _ in range(int(rng.integers(0, 4))):
            codes.append(flip_bits(codes[original], int(rng.integers(0, 11)), rng))
            same = rng.random() < 0.8
            grids.append(grids[original] if same else some_grids(1, rng)[0])
    found = group_nearly_alike(codes, np.stack(grids))
    assert found == by_brute_force(codes, np.stack(grids))
    assert found


def test_a_chain_is_one_group() -> None:
    rng = np.random.default_rng(1)
    codes = random_codes(1, rng)
    for _ in range(5):
        codes.append(flip_bits(codes[-1], 6, rng))
    grids = np.repeat(some_grids(1, rng), 6, axis=0)
    assert group_nearly_alike(codes, grids) == [[0, 1, 2, 3, 4, 5]]


def test_no_picture_and_one_picture_have_no_like() -> None:
    assert group_nearly_alike([], np.zeros((0, 4, 4, 3), np.uint8)) == []
    assert group_nearly_alike([7], np.zeros((1, 4, 4, 3), np.uint8)) == []


def test_hundreds_that_are_all_alike_are_one_group() -> None:
    rng = np.random.default_rng(2)
    centre = random_codes(1, rng)[0]
    codes = [flip_bits(centre, 3, rng) for _ in range(700)]
    assert group_nearly_alike(codes, np.repeat(some_grids(1, rng), 700, axis=0)) == [list(range(700))]


def test_the_number_of_comparisons_grows_with_the_number_of_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: with how many others a picture's hash is compared, for random ones and for a crowd."""
    counted = 0
    count_bits = np.bitwise_count

    def counting(values: np.ndarray) -> np.ndarray:
        nonlocal counted
        counted += len(values)
        return count_bits(values)

    monkeypatch.setattr(near.np, "bitwise_count", counting)
    for count in (2_000, 20_000):
        rng = np.random.default_rng(3)
        counted = 0
        assert group_nearly_alike(random_codes(count, rng), np.zeros((count, 1, 1, 3), np.uint8)) == []
        assert 0 < counted < 100 * count  # all with all would be 10,000 each


def test_a_crowd_that_is_close_by_hash_alone_is_judged_a_bounded_number_of_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged = 0
    measure = near.correlation

    def counting(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        nonlocal judged
        judged += len(one)
        return measure(one, other)

    monkeypatch.setattr(near, "correlation", counting)
    count = 2_000
    rng = np.random.default_rng(4)
    crowd = [flip_bits(2**40, 3, rng) for _ in range(count)]
    assert group_nearly_alike(crowd, np.zeros((count, 1, 1, 3), np.uint8)) == []
    assert count < judged <= count * (near.MAX_JUDGED + 1)  # all with all would be a thousand each
