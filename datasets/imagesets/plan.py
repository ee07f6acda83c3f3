"""The order of an epoch: a pure function of the buckets, the repeats, the batch size, the seed and the epoch.

A plan is global: every process makes the same one and takes its share, and resuming is slicing. It is kept as columns
of numbers, and its batches are made as they are asked for: a million pictures take some tens of megabytes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from imagesets.buckets import AssignedBuckets, Size
from imagesets.randomness import keys_to_seeds

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Item:
    """One showing of one picture: the sample's index and which of its repeats it is."""

    sample: int
    repeat: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Items of one bucket that go through the model together: one micro batch."""

    bucket: Size
    items: tuple[Item, ...]


class EpochPlan(Sequence[Batch]):
    """The batches of one epoch, or a slice of them: a sequence as a tuple is, equal to any with the same batches."""

    def __init__(
        self, sizes: Sequence[Size], items: tuple[Integers, Integers], batches: tuple[Integers, Integers, Integers]
    ) -> None:
        """Put a plan together from its columns.

        Args:
            sizes: the buckets.
            items: sample and repeat of each item, in an order in which those of a batch lie together.
            batches: bucket (a place in `sizes`), first item and the one behind the last, of each batch in order.
        """
        self._sizes = sizes
        self._samples, self._repeats = items
        self._buckets, self._begins, self._ends = batches

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._begins)

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> "EpochPlan": ...
    def __getitem__(self, index: int | slice) -> "Batch | EpochPlan":
        """Return a batch, or some of them as a plan of the same kind, which copies nothing."""
        if isinstance(index, slice):
            batches = (self._buckets[index], self._begins[index], self._ends[index])
            return EpochPlan(self._sizes, (self._samples, self._repeats), batches)
        span = slice(self._begins[index], self._ends[index])
        items = zip(self._samples[span].tolist(), self._repeats[span].tolist(), strict=True)
        return Batch(self._sizes[self._buckets[index]], tuple(Item(sample, repeat) for sample, repeat in items))

    def __iter__(self) -> Iterator[Batch]:
        """Go over the batches in order."""
        return (self[index] for index in range(len(self)))

    def __eq__(self, other: object) -> bool:
        """Whether the other is a sequence of the same batches in the same order."""
        if not isinstance(other, tuple | list | EpochPlan):
            return NotImplemented
        return len(self) == len(other) and all(one == another for one, another in zip(self, other, strict=True))

    def __hash__(self) -> int:
        """Return the hash a tuple of the batches has."""
        return hash(tuple(self))

    def __repr__(self) -> str:
        """Name the kind and the number of batches."""
        return f"<EpochPlan of {len(self)} batches>"


def epoch_plan(
    buckets: Sequence[Size],
    repeats: "Sequence[int] | npt.NDArray[np.integer[Any]]",
    batch_size: int,
    seed: int,
    epoch: int,
) -> EpochPlan:
    """Return the batches of one epoch, in order.

    Each item stands in exactly one batch, a batch has one bucket, and who is together with whom is drawn anew every
    epoch. A bucket's last batch may be short; none is dropped.

    Args:
        buckets: of each sample, by index; as `assign_buckets` returns them they cost least.
        repeats: how often each sample is seen in an epoch, by index.
        batch_size: items in a full batch.
        seed: of the run.
        epoch: which epoch, from 0.

    Raises:
        ValueError: `batch_size` is under 1, or there are not as many buckets as repeats.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}, needs 1 or more")
    if len(buckets) != len(repeats):
        raise ValueError(f"got {len(buckets)} buckets and {len(repeats)} repeats, needs as many of each")
    assigned = AssignedBuckets.of(buckets).in_order_of_appearance()
    samples, numbers = _items(np.asarray(repeats, dtype=np.int64))
    # A sort by keyed hashes is a shuffle whose result no library's version changes.
    keys = keys_to_seeds((seed, "plan-item", epoch), samples, numbers)
    item_buckets = assigned.indices[samples]
    order = np.lexsort((keys, item_buckets))
    samples, numbers, item_buckets = samples[order], numbers[order], item_buckets[order]
    begins, ends = _cut(item_buckets, batch_size)
    # A batch's place is drawn by its first item.
    keys = keys_to_seeds((seed, "plan-batch", epoch), samples[begins], numbers[begins])
    order = np.argsort(keys, kind="stable")
    begins, ends = begins[order], ends[order]
    return EpochPlan(assigned.sizes, (samples, numbers), (item_buckets[begins], begins, ends))


def _items(repeats: Integers) -> tuple[Integers, Integers]:
    """Return sample and repeat of every item, by sample and then by repeat."""
    counts = np.maximum(repeats, 0)
    samples = np.repeat(np.arange(len(counts)), counts)
    first = np.cumsum(counts) - counts
    return samples, np.arange(len(samples)) - first[samples]


def _cut(buckets: Integers, batch_size: int) -> tuple[Integers, Integers]:
    """Cut items that lie sorted by bucket into batches; return where each begins and ends."""
    counts = np.bincount(buckets)
    first = np.cumsum(counts) - counts
    per_bucket = -(-counts // batch_size)
    of_batch = np.repeat(np.arange(len(counts)), per_bucket)
    number = np.arange(len(of_batch)) - (np.cumsum(per_bucket) - per_bucket)[of_batch]
    begins = first[of_batch] + number * batch_size
    return begins, np.minimum(begins + batch_size, (first + counts)[of_batch])
