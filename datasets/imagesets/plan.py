"""The order of an epoch: a pure function of the buckets, the repeats, the batch size, the seed and the epoch.

A plan is global: every process makes the same one and takes its share, and resuming is slicing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from imagesets.randomness import key_to_seed

Size = tuple[int, int]


@dataclass(frozen=True)
class Item:
    """One showing of one picture: the sample's index and which of its repeats it is."""

    sample: int
    repeat: int


@dataclass(frozen=True)
class Batch:
    """Items of one bucket that go through the model together: one micro batch."""

    bucket: Size
    items: tuple[Item, ...]


def epoch_plan(
    buckets: Sequence[Size], repeats: Sequence[int], batch_size: int, seed: int, epoch: int
) -> tuple[Batch, ...]:
    """Return the batches of one epoch, in order.

    Each item stands in exactly one batch, a batch has one bucket, and who is together with whom is drawn anew every
    epoch. A bucket's last batch may be short; none is dropped.

    Args:
        buckets: of each sample, by index.
        repeats: how often each sample is seen in an epoch, by index.
        batch_size: items in a full batch.
        seed: of the run.
        epoch: which epoch, from 0.

    Raises:
        ValueError: `batch_size` is under 1, or there are not as many buckets as repeats.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}, needs 1 or more")
    by_bucket: dict[Size, list[Item]] = {}
    for sample, (bucket, count) in enumerate(zip(buckets, repeats, strict=True)):
        by_bucket.setdefault(bucket, []).extend(Item(sample, repeat) for repeat in range(count))
    batches: list[Batch] = []
    for bucket, items in by_bucket.items():
        # A sort by keyed hashes is a shuffle whose result no library's version changes.
        items.sort(key=lambda item: key_to_seed(seed, "plan-item", epoch, item.sample, item.repeat))
        batches += [
            Batch(bucket, tuple(items[start : start + batch_size])) for start in range(0, len(items), batch_size)
        ]
    batches.sort(key=lambda batch: key_to_seed(seed, "plan-batch", epoch, batch.items[0].sample, batch.items[0].repeat))
    return tuple(batches)


def optimizer_steps(batches: Sequence[Batch], batches_per_step: int) -> tuple[tuple[Batch, ...], ...]:
    """Group an epoch's batches into its optimizer steps, in order; the last step takes what is left."""
    return tuple(tuple(batches[start : start + batches_per_step]) for start in range(0, len(batches), batches_per_step))


def process_share(batches: Sequence[Batch], num_processes: int, process_index: int) -> tuple[Batch, ...]:
    """Return what one of several processes takes of a step's or an epoch's batches: every `num_processes`-th.

    The shares are disjoint, together they are the whole, and their lengths differ by at most one.
    """
    if not 0 <= process_index < num_processes:
        raise ValueError(f"process_index: got {process_index}, needs 0 to {num_processes - 1}")
    return tuple(batches[process_index::num_processes])
