"""The order of an epoch: a pure function of the buckets, the repeats, the batch size, the seed and the epoch."""

from collections.abc import Sequence
from dataclasses import dataclass

from imagesets.randomness import keyed_numpy

Size = tuple[int, int]


@dataclass(frozen=True)
class Item:
    """One showing of one picture: the sample's index and which of its repeats it is."""

    sample: int
    repeat: int


@dataclass(frozen=True)
class Batch:
    """Items of one bucket that are seen together."""

    bucket: Size
    items: tuple[Item, ...]


def epoch_plan(
    buckets: Sequence[Size], repeats: Sequence[int], batch_size: int, seed: int, epoch: int
) -> tuple[Batch, ...]:
    """Return the batches of one epoch, in order.

    Each item stands in exactly one batch, a batch has one bucket, and who is together with whom is drawn anew every
    epoch. A bucket's last batch may be short; none is dropped.
    """
    by_bucket: dict[Size, list[Item]] = {}
    for sample, (bucket, count) in enumerate(zip(buckets, repeats, strict=True)):
        by_bucket.setdefault(bucket, []).extend(Item(sample, repeat) for repeat in range(count))
    batches = []
    for bucket in sorted(by_bucket):
        items = by_bucket[bucket]
        order = keyed_numpy(seed, "epoch-members", epoch, *bucket).permutation(len(items))
        shuffled = [items[index] for index in order]
        batches += [
            Batch(bucket, tuple(shuffled[start : start + batch_size])) for start in range(0, len(shuffled), batch_size)
        ]
    order = keyed_numpy(seed, "epoch-batches", epoch).permutation(len(batches))
    return tuple(batches[index] for index in order)
