"""A bounded buffer between a stream and its batches: it mixes, and puts pictures of one bucket together."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from imagesets.framing import Size
from imagesets.randomness import KeyPart, key_to_seed

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class _Held(Generic[ItemT]):
    item: ItemT
    number: int
    bucket: Size
    num_bytes: int


class BucketBuffer(Generic[ItemT]):
    """Holds items until batches of one bucket can be made of them.

    Fill it until it is full or there is no more, take a batch, fill it again: every item comes out once. A batch is
    short only where no bucket has enough items in a full buffer, or at the end. With B buckets and batches of n, a
    buffer of B (n - 1) + 1 items always has a whole one.

    Args:
        batch_size: items in a whole batch.
        max_items: with so many, it is full.
        max_bytes: or with items of so many bytes.
    """

    def __init__(self, batch_size: int, max_items: int, max_bytes: int) -> None:
        self._batch_size = batch_size
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._held: list[_Held[ItemT]] = []
        self._num_bytes = 0

    def __len__(self) -> int:
        """Return the number of items in it."""
        return len(self._held)

    @property
    def is_full(self) -> bool:
        """Whether a batch has to be taken before more is put in."""
        return len(self._held) >= self._max_items or self._num_bytes >= self._max_bytes

    @property
    def numbers(self) -> list[int]:
        """The numbers of the items in it, in the order they came."""
        return [held.number for held in self._held]

    @property
    def items(self) -> list[ItemT]:
        """What is in it, in the order it came."""
        return [held.item for held in self._held]

    def put(self, item: ItemT, number: int, bucket: Size, num_bytes: int) -> None:
        """Put an item in.

        Args:
            item: the item.
            number: tells it from all others; draws depend on it.
            bucket: what it can be in a batch with.
            num_bytes: the memory it takes.
        """
        self._held.append(_Held(item, number, bucket, num_bytes))
        self._num_bytes += num_bytes

    def take(self, key: Sequence[KeyPart]) -> tuple[Size, list[ItemT]]:
        """Take a batch out: of a bucket that has a whole one, each by its share of the items; else of the largest.

        Args:
            key: what the draw depends on, beside the items.

        Raises:
            ValueError: it is empty.
        """
        if not self._held:
            raise ValueError("the buffer is empty")
        drawn = sorted(self._held, key=lambda held: key_to_seed(*key, held.number))
        sizes = Counter(held.bucket for held in drawn)
        whole = min(self._batch_size, max(sizes.values()))
        bucket = next(held.bucket for held in drawn if sizes[held.bucket] >= whole)
        batch = [held for held in drawn if held.bucket == bucket][: self._batch_size]
        taken = {held.number for held in batch}
        self._num_bytes -= sum(held.num_bytes for held in batch)
        self._held = [held for held in self._held if held.number not in taken]
        return bucket, [held.item for held in batch]
