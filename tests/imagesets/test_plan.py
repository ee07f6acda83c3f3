"""Epoch plans: everything once, one bucket a batch, the same for every process, drawn anew each epoch."""

import itertools
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesets.buckets import AssignedBuckets, assign_buckets, generated_buckets
from imagesets.plan import Batch, Item, epoch_plan
from imagesets.randomness import key_to_seed

BUCKETS = [(1024, 1024), (832, 1216), (1216, 832)]
SAMPLES = st.lists(st.tuples(st.sampled_from(BUCKETS), st.integers(1, 3)), max_size=40)


def plan(
    samples: list[tuple[tuple[int, int], int]], batch_size: int = 4, seed: int = 0, epoch: int = 0
) -> Sequence[Batch]:
    return epoch_plan(
        [bucket for bucket, _ in samples], [repeats for _, repeats in samples], batch_size, seed=seed, epoch=epoch
    )


@given(SAMPLES, st.integers(1, 6), st.integers(0, 3), st.integers(0, 3))
def test_every_item_stands_in_exactly_one_batch(
    samples: list[tuple[tuple[int, int], int]], batch_size: int, seed: int, epoch: int
) -> None:
    seen = Counter(item for batch in plan(samples, batch_size, seed, epoch) for item in batch.items)
    assert seen == Counter(Item(index, repeat) for index, (_, count) in enumerate(samples) for repeat in range(count))


@given(SAMPLES, st.integers(1, 6))
def test_a_batch_has_one_bucket_and_only_the_last_of_a_bucket_is_short(
    samples: list[tuple[tuple[int, int], int]], batch_size: int
) -> None:
    batches = plan(samples, batch_size)
    for batch in batches:
        assert {samples[item.sample][0] for item in batch.items} == {batch.bucket}
        assert 1 <= len(batch.items) <= batch_size
    for bucket in BUCKETS:
        lengths = sorted(len(batch.items) for batch in batches if batch.bucket == bucket)
        items = sum(repeats for its_bucket, repeats in samples if its_bucket == bucket)
        assert len(lengths) == ceil(items / batch_size)
        assert all(length == batch_size for length in lengths[1:])


@given(SAMPLES, st.integers(1, 6), st.integers(0, 3), st.integers(0, 3))
def test_equal_arguments_give_equal_plans(
    samples: list[tuple[tuple[int, int], int]], batch_size: int, seed: int, epoch: int
) -> None:
    assert plan(samples, batch_size, seed, epoch) == plan(samples, batch_size, seed, epoch)


def test_epochs_and_seeds_differ_in_order_and_in_who_is_together() -> None:
    samples = [(bucket, 1) for bucket in BUCKETS * 8]
    plans = [plan(samples, 4, seed, epoch) for seed in range(3) for epoch in range(3)]
    for one, other in itertools.combinations(plans, 2):
        assert one != other
        assert {frozenset(batch.items) for batch in one} != {frozenset(batch.items) for batch in other}


def test_buckets_are_mixed_over_the_epoch() -> None:
    order = [batch.bucket for batch in plan([(bucket, 1) for bucket in BUCKETS * 32], 4)]
    switches = sum(one != other for one, other in itertools.pairwise(order))
    assert switches > len(BUCKETS) * 2  # sorted by bucket there would be two


def test_a_short_batch_may_come_anywhere() -> None:
    places = set()
    for epoch in range(20):
        lengths = [len(batch.items) for batch in plan([((64, 64), 1)] * 9, 4, epoch=epoch)]
        assert sorted(lengths) == [1, 4, 4]
        places.add(lengths.index(1))
    assert places == {0, 1, 2}


def written_out(
    buckets: Sequence[tuple[int, int]], repeats: Sequence[int], batch_size: int, seed: int, epoch: int
) -> tuple[Batch, ...]:
    """The plan, one item after the other: how it was first written, and what runs of that time can be resumed with."""
    by_bucket: dict[tuple[int, int], list[Item]] = {}
    for sample, (bucket, count) in enumerate(zip(buckets, repeats, strict=True)):
        by_bucket.setdefault(bucket, []).extend(Item(sample, repeat) for repeat in range(count))
    batches: list[Batch] = []
    for bucket, items in by_bucket.items():
        items.sort(key=lambda item: key_to_seed(seed, "plan-item", epoch, item.sample, item.repeat))
        batches += [
            Batch(bucket, tuple(items[start : start + batch_size])) for start in range(0, len(items), batch_size)
        ]
    batches.sort(key=lambda batch: key_to_seed(seed, "plan-batch", epoch, batch.items[0].sample, batch.items[0].repeat))
    return tuple(batches)


@given(
    st.lists(st.tuples(st.sampled_from(BUCKETS), st.integers(0, 3)), max_size=40),
    st.integers(1, 6),
    st.integers(0, 2**40),
    st.integers(0, 3),
)
def test_the_columns_hold_the_plan_that_is_written_out(
    samples: list[tuple[tuple[int, int], int]], batch_size: int, seed: int, epoch: int
) -> None:
    buckets, repeats = [bucket for bucket, _ in samples], [count for _, count in samples]
    expected = written_out(buckets, repeats, batch_size, seed, epoch)
    for given_buckets in (buckets, AssignedBuckets.of(buckets)):
        columns = epoch_plan(given_buckets, repeats, batch_size, seed, epoch)
        assert tuple(columns) == expected
        assert columns == expected
        assert [columns[index] for index in range(len(columns))] == list(expected)
        assert hash(columns) == hash(expected)


def test_a_plan_of_more_pictures_than_are_hashed_at_once_is_the_one_written_out() -> None:
    sizes = [(32 + index % 97, 32 + index % 89) for index in range(70_000)]
    buckets = generated_buckets(64, 8, 4.0)
    assigned = assign_buckets(sizes, buckets)
    repeats = [1 + index % 2 for index in range(len(sizes))]
    assert tuple(epoch_plan(assigned, repeats, 4, 7, 2)) == written_out(list(assigned), repeats, 4, 7, 2)


def test_a_slice_of_a_plan_is_a_plan_and_copies_no_items() -> None:
    whole = plan([(bucket, 2) for bucket in BUCKETS * 8], 4)
    for part in (slice(3, 9), slice(None, None, 2), slice(-4, None), slice(50, None)):
        assert whole[part] == tuple(whole)[part]
    assert whole[2:][3] == whole[5]
    assert whole[1:] != whole
    assert whole != "no plan"


def test_a_million_pictures_take_some_tens_of_megabytes() -> None:
    """Counted for a part of them: at most 100 bytes a picture stay, and 300 are taken while planning."""
    count = 40_000
    assigned = AssignedBuckets(BUCKETS, np.arange(count) % 3)
    tracemalloc.start()
    whole = epoch_plan(assigned, np.ones(count, np.int64), 4, 0, 0)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(whole) == 3 * ceil(ceil(count / 3) / 4)
    assert held < 100 * count
    assert peak < 300 * count + 2**24


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size: got 0, needs 1 or more"):
        epoch_plan([(64, 64)], [1], 0, 0, 0)
    with pytest.raises(ValueError, match="got 1 buckets and 2 repeats"):
        epoch_plan([(64, 64)], [1, 1], 1, 0, 0)
