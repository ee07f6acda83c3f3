"""The sizes pictures are trained at, and the choice between them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesets.buckets import (
    PAPER_BUCKETS,
    AssignedBuckets,
    Size,
    assign_bucket,
    assign_buckets,
    generated_buckets,
    symmetric_buckets,
)

SIZES = st.tuples(st.integers(1, 12_000), st.integers(1, 12_000))

# Podell et al. 2023, appendix I, as the paper prints it: heights and widths.
PAPER_TABLE = """
512 2048  512 1984  512 1920  512 1856  576 1792  576 1728  576 1664  640 1600  640 1536  704 1472
704 1408  704 1344  768 1344  768 1280  832 1216  832 1152  896 1152  896 1088  960 1088  960 1024
1024 1024  1024 960  1088 960  1088 896  1152 896  1152 832  1216 832  1280 768  1344 768  1408 704
1472 704  1536 640  1600 640  1664 576  1728 576  1792 576  1856 512  1920 512  1984 512  2048 512
"""


def transposed(size: Size) -> Size:
    return (size[1], size[0])


def test_the_paper_has_forty_buckets() -> None:
    numbers = [int(number) for number in PAPER_TABLE.split()]
    assert tuple(zip(numbers[::2], numbers[1::2], strict=True)) == PAPER_BUCKETS
    assert len(set(PAPER_BUCKETS)) == 40
    assert all(height % 64 == 0 == width % 64 for height, width in PAPER_BUCKETS)
    assert all(0.89 * 1024**2 <= height * width <= 1024**2 for height, width in PAPER_BUCKETS)


def test_symmetric_adds_the_one_mirror_the_paper_lacks() -> None:
    assert set(symmetric_buckets()) - set(PAPER_BUCKETS) == {(1344, 704)}
    assert {transposed(bucket) for bucket in symmetric_buckets()} == set(symmetric_buckets())
    assert len(symmetric_buckets()) == 41


@given(SIZES)
def test_transposing_a_picture_transposes_its_bucket(size: Size) -> None:
    if size[0] != size[1]:
        buckets = symmetric_buckets()
        assert assign_bucket(transposed(size), buckets) == transposed(assign_bucket(size, buckets))


@given(SIZES, st.sampled_from([PAPER_BUCKETS, symmetric_buckets(), generated_buckets(512, 32, 3.0)]))
def test_no_bucket_is_nearer_in_log_aspect(size: Size, buckets: tuple[Size, ...]) -> None:
    def distance(bucket: Size) -> float:
        return abs(math.log(size[0] / size[1]) - math.log(bucket[0] / bucket[1]))

    chosen = distance(assign_bucket(size, buckets))
    assert all(chosen <= distance(bucket) + 1e-12 for bucket in buckets)


def test_the_difference_of_aspects_would_choose_otherwise() -> None:
    """Width over height 1.19 lies nearer to 1 than to 1.43 by either rule; turned, 0.84, the difference says 0.70."""
    buckets = ((100, 100), (100, 143), (143, 100))
    assert assign_bucket((100, 119), buckets) == (100, 100)
    assert assign_bucket((119, 100), buckets) == (100, 100)
    assert assign_bucket((100, 120), buckets) == (100, 143)
    assert assign_bucket((120, 100), buckets) == (143, 100)


@given(st.permutations(symmetric_buckets()), SIZES)
def test_the_order_of_buckets_does_not_matter(buckets: list[Size], size: Size) -> None:
    assert assign_bucket(size, buckets) == assign_bucket(size, symmetric_buckets())


def test_of_equally_near_buckets_the_larger_is_taken() -> None:
    assert assign_bucket((10, 10), [(512, 512), (1024, 1024), (768, 768)]) == (1024, 1024)
    assert assign_bucket((10, 10), [(200, 100), (100, 200)]) == (100, 200)


@given(st.integers(64, 1536), st.sampled_from([8, 16, 32, 64]), st.floats(1.0, 8.0))
def test_generated_buckets_keep_area_step_aspect_and_mirrors(resolution: int, step: int, max_aspect: float) -> None:
    buckets = generated_buckets(resolution, step, max_aspect)
    square = resolution // step * step
    assert (square, square) in buckets
    assert {transposed(bucket) for bucket in buckets} == set(buckets)
    for height, width in buckets:
        assert height % step == 0 == width % step
        assert height * width <= resolution**2
        assert max(height, width) <= max_aspect * min(height, width) * (1 + 1e-12)
        if height == width:
            continue  # the square is always there
        # One of the sides could not be a step longer.
        assert min(height, width) * (max(height, width) + step) > resolution**2 or (
            max(height, width) * (min(height, width) + step) > resolution**2
        )


def test_generated_buckets_at_the_papers_area_are_close_to_the_papers() -> None:
    generated = set(generated_buckets(1024, 64, 4.0))
    assert generated <= set(symmetric_buckets())
    assert {(1024, 1024), (512, 2048), (768, 1344), (768, 1280), (832, 1216)} <= generated


@pytest.mark.parametrize(("resolution", "step", "max_aspect"), [(64, 128, 2.0), (64, 0, 2.0), (64, 16, 0.5)])
def test_generated_buckets_that_cannot_be_are_refused(resolution: int, step: int, max_aspect: float) -> None:
    with pytest.raises(ValueError, match=f"resolution {resolution}, step {step}"):
        generated_buckets(resolution, step, max_aspect)


SMALL = st.tuples(st.integers(1, 12), st.integers(1, 12))


@given(
    st.lists(SIZES, max_size=30), st.sampled_from([PAPER_BUCKETS, symmetric_buckets(), generated_buckets(64, 8, 4.0)])
)
def test_many_at_once_are_assigned_as_each_alone(sizes: list[Size], buckets: tuple[Size, ...]) -> None:
    assert list(assign_buckets(sizes, buckets)) == [assign_bucket(size, buckets) for size in sizes]


@given(st.lists(SMALL, min_size=1, max_size=30), st.lists(SMALL, min_size=1, max_size=8))
def test_ties_fall_alike_for_many_and_for_one(sizes: list[Size], buckets: list[Size]) -> None:
    """Small sides make equal aspects and exact middles of two aspects common."""
    assert list(assign_buckets(sizes, buckets)) == [assign_bucket(size, buckets) for size in sizes]


def test_every_exact_middle_of_two_buckets_goes_where_one_picture_would() -> None:
    buckets = [(1, 1), (1, 4), (4, 1), (2, 2), (4, 9), (9, 4)]
    middles = [(1, 2), (2, 1), (2, 3), (3, 2), (5, 10), (10, 5), (3, 3)]
    assert list(assign_buckets(middles, buckets)) == [assign_bucket(size, buckets) for size in middles]


@given(st.lists(st.tuples(st.integers(1, 2**40), st.integers(1, 2**40)), min_size=1, max_size=10))
def test_sizes_beyond_numpys_whole_numbers_do_not_overflow(sizes: list[Size]) -> None:
    assert list(assign_buckets(sizes, PAPER_BUCKETS)) == [assign_bucket(size, PAPER_BUCKETS) for size in sizes]


def test_an_assignment_reads_as_a_sequence_of_sizes() -> None:
    sizes = [(512, 2048), (1024, 1024), (1000, 1000), (2048, 512)]
    assigned = assign_buckets(np.array(sizes), PAPER_BUCKETS)
    assert (len(assigned), assigned[0], assigned[-1]) == (4, (512, 2048), (2048, 512))
    assert list(assigned[1:3]) == [(1024, 1024), (1024, 1024)]
    in_order = assigned.in_order_of_appearance()
    assert list(in_order) == list(assigned)
    assert list(in_order.sizes) == [(512, 2048), (1024, 1024), (2048, 512)]
    again = AssignedBuckets.of(list(assigned))
    assert (list(again), again.indices.tolist()) == (list(assigned), [0, 1, 1, 2])


@pytest.mark.parametrize(("sizes", "buckets"), [([(1, 1)], []), ([(0, 1)], [(1, 1)]), ([(1, 1)], [(1, 0)])])
def test_what_has_no_bucket_is_refused(sizes: list[Size], buckets: list[Size]) -> None:
    with pytest.raises(ValueError, match="there must be a bucket"):
        assign_buckets(sizes, buckets)
