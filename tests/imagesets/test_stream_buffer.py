"""The buffer between a stream and its batches: nothing lost, nothing twice, one bucket a batch, and bounded."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesets.framing import Size
from imagesets.stream_buffer import BucketBuffer

SIZES = ((64, 64), (64, 96), (96, 64), (48, 80))


def drained(buckets: list[Size], batch_size: int, max_items: int, seed: int = 0) -> list[tuple[Size, list[int], int]]:
    """Return every batch of a stream of these buckets: its bucket, its items, and how many were held before it."""
    buffer: BucketBuffer[int] = BucketBuffer(batch_size, max_items, 10**9)
    waiting = list(enumerate(buckets))
    batches = []
    while True:
        while waiting and not buffer.is_full:
            number, bucket = waiting.pop(0)
            buffer.put(number, number, bucket, 1)
        if not len(buffer):
            return batches
        held = len(buffer)
        batches.append((*buffer.take((seed, len(batches))), held))


@given(st.lists(st.sampled_from(SIZES), max_size=80), st.integers(1, 5), st.integers(1, 30))
def test_every_item_comes_out_once_with_others_of_its_bucket(buckets: list[Size], batch: int, most: int) -> None:
    batches = drained(buckets, batch, most)
    assert sorted(number for _, items, _ in batches for number in items) == list(range(len(buckets)))
    for bucket, items, held in batches:
        assert {buckets[number] for number in items} == {bucket}
        assert 1 <= len(items) <= batch
        assert held <= most


@given(st.lists(st.sampled_from(SIZES), max_size=200), st.integers(1, 5))
def test_a_buffer_of_buckets_times_a_batch_less_one_and_one_gives_whole_batches_to_the_end(
    buckets: list[Size], batch: int
) -> None:
    most = len(SIZES) * (batch - 1) + 1
    for _, items, held in drained(buckets, batch, most):
        assert len(items) == batch or held < most  # at the end of the stream it is no longer full


def test_it_is_full_by_bytes_too_and_then_gives_a_short_batch_of_the_largest_bucket() -> None:
    buffer: BucketBuffer[str] = BucketBuffer(4, 100, 1000)
    buffer.put("a", 0, (64, 64), 400)
    buffer.put("b", 1, (96, 64), 300)
    assert not buffer.is_full
    buffer.put("c", 2, (96, 64), 300)
    assert buffer.is_full
    assert buffer.take((0,))[0] == (96, 64)
    assert not buffer.is_full
    buffer.put("d", 3, (64, 64), 700)
    assert buffer.is_full


def test_the_draw_mixes_follows_the_seed_and_gives_each_bucket_its_share() -> None:
    buckets = [SIZES[0]] * 300 + [SIZES[1]] * 100
    one, again, other = (drained(buckets, 4, 400, seed) for seed in (1, 1, 2))
    assert one == again
    assert one != other
    first = Counter(bucket for bucket, _, _ in one[:60])
    assert 35 <= first[SIZES[0]] <= 55, "three of four items are of this bucket, and three of four batches"
    assert any(abs(a - b) > 50 for _, items, _ in one for a in items for b in items), "neighbours are parted"


def test_an_empty_one_gives_nothing() -> None:
    with pytest.raises(ValueError, match="empty"):
        BucketBuffer(1, 1, 1).take((0,))
