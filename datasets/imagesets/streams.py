"""Sources read as they come: an epoch's entries, one pass over each source, mixed, and nothing kept.

The order is a pure function of a key: shards in an order drawn anew, within a shard as they lie there; a source that
is listed rather than streamed is shuffled whole. So an epoch can be gone over again from its beginning, and what was
seen of it before is passed over without being opened.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from imagesets.errors import of_source
from imagesets.framing import Size
from imagesets.randomness import KeyPart, key_to_fraction, key_to_seed
from imagesets.reading.addresses import brief_facts, shown_address
from imagesets.reading.huggingface import RowStream, stream_rows
from imagesets.reading.listing import list_source
from imagesets.reading.webdataset import shard_addresses, stream_shard
from imagesets.sources import Entry, HuggingFaceSource, Listing, Source, WebDatasetSource

Key = Sequence[KeyPart]
Holds = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Streamed:
    """One showing of one picture in an epoch.

    Attributes:
        number: its place in the epoch, from 0.
        source: where it comes from.
        entry: the picture, with its bytes at hand where the source is a stream.
        showing: which of its showings in this epoch, from 0.
    """

    number: int
    source: Source
    entry: Entry
    showing: int


class EntryStream(Protocol):
    """One source, ready to be gone over."""

    @property
    def source(self) -> Source:
        """Whose entries they are."""
        ...

    @property
    def estimate(self) -> int | None:
        """About how many entries an epoch has; None where nobody knows."""
        ...

    def facts(self) -> list[tuple[object, ...]]:
        """Return what tells this source from a changed one without reading it whole."""
        ...

    def entries(self, key: Key, holds: Holds) -> Iterator[tuple[Entry, int] | None]:
        """Yield an epoch's entries, each with the number of its showing; None where `holds` says no."""
        ...


def possible_buckets(sources: Sequence[Source], buckets: Sequence[Size]) -> set[Size]:
    """Return every (height, width) that a picture may come to be trained at.

    Args:
        sources: where pictures come from.
        buckets: of the whole set, for sources without their own.
    """
    own = {size for source in sources for size in source.buckets or ()}
    inherits = any(source.buckets is None for source in sources)
    return own | set(buckets if inherits else ())


def open_streams(sources: Sequence[Source]) -> list[EntryStream]:
    """Open sources to be gone over; those that are no streams are listed.

    Raises:
        SourceError: one cannot be read at all.
    """
    streams = []
    for place, source in enumerate(sources):
        with of_source(place):
            streams.append(_open(source))
    return streams


def mixed(streams: Sequence[EntryStream], key: Key, wanted: Callable[[int], bool]) -> Iterator[Streamed]:
    """Yield one epoch of several sources.

    Where it is known of all of them about how many entries they have, each is spread evenly over the epoch; otherwise
    they take turns, drawn at random, until one after the other ends.

    Args:
        streams: the sources.
        key: of the epoch.
        wanted: whether an entry, by its place in the epoch, is to be opened; others are passed over unread.
    """
    number = 0
    open_passes = {
        index: stream.entries((*key, index), lambda: wanted(number))  # it reads the number of the moment
        for index, stream in enumerate(streams)
    }
    left = {index: stream.estimate for index, stream in enumerate(streams)}
    while open_passes:
        index = _drawn(list(open_passes), left, key_to_fraction(*key, "turn", number))
        try:
            found = next(open_passes[index])
        except StopIteration:
            del open_passes[index]
            continue
        if found is not None:
            entry, showing = found
            yield Streamed(number, streams[index].source, entry, showing)
        number += 1
        expected = left[index]
        left[index] = None if expected is None else expected - 1


def _drawn(indices: Sequence[int], left: dict[int, int | None], fraction: float) -> int:
    """Choose a source by what is left of it; one that has more than was thought keeps a chance."""
    known = [left[index] for index in indices]
    weights = [1 if None in known else max(1, count or 0) for count in known]
    rest = fraction * sum(weights)
    for index, weight in zip(indices, weights, strict=True):
        rest -= weight
        if rest < 0:
            return index
    return indices[-1]


def _open(source: Source) -> EntryStream:
    if isinstance(source, WebDatasetSource) and source.streaming:
        return _Shards(source, shard_addresses(source))
    if isinstance(source, HuggingFaceSource) and source.streaming:
        return _Rows(source, stream_rows(source))
    return _Listed(source, list_source(source))


@dataclass(frozen=True)
class _Listed:
    """A source whose entries are known; they are shuffled whole."""

    source: Source
    listing: Listing

    @property
    def estimate(self) -> int | None:
        return self.source.repeats * sum(entry.repeats for entry in self.listing.entries)

    def facts(self) -> list[tuple[object, ...]]:
        return [(entry.name, entry.caption, entry.problem, entry.repeats) for entry in self.listing.entries]

    def entries(self, key: Key, holds: Holds) -> Iterator[tuple[Entry, int] | None]:
        showings = [
            (index, showing)
            for index, entry in enumerate(self.listing.entries)
            for showing in range(self.source.repeats * entry.repeats)
        ]
        showings.sort(key=lambda one: key_to_seed(*key, "item", *one))
        for index, showing in showings:
            yield (self.listing.entries[index], showing) if holds() else None


@dataclass(frozen=True)
class _Shards:
    """Tar shards."""

    source: WebDatasetSource
    addresses: Sequence[str]

    @property
    def estimate(self) -> int | None:
        count = self.source.num_pictures
        return None if count is None else count * self.source.repeats

    def facts(self) -> list[tuple[object, ...]]:
        return [(shown_address(address), brief_facts(address)) for address in self.addresses]

    def entries(self, key: Key, holds: Holds) -> Iterator[tuple[Entry, int] | None]:
        passes = [partial(stream_shard, address, self.source) for address in self.addresses]
        return _in_drawn_order(passes, self.source.repeats, key, holds)


@dataclass(frozen=True)
class _Rows:
    """The rows of a dataset."""

    source: HuggingFaceSource
    stream: RowStream

    @property
    def estimate(self) -> int | None:
        count = self.source.num_pictures or self.stream.count
        return None if count is None else count * self.source.repeats

    def facts(self) -> list[tuple[object, ...]]:
        return [(self.source.name, self.source.revision, self.stream.num_shards, self.stream.count)]

    def entries(self, key: Key, holds: Holds) -> Iterator[tuple[Entry, int] | None]:
        passes = [partial(self.stream.rows, shard) for shard in range(self.stream.num_shards)]
        return _in_drawn_order(passes, self.source.repeats, key, holds)


def _in_drawn_order(
    passes: Sequence[Callable[[Holds], Iterator[Entry | None]]], repeats: int, key: Key, holds: Holds
) -> Iterator[tuple[Entry, int] | None]:
    """Go over the shards in an order drawn anew for each of the repeats."""
    for showing in range(repeats):
        for shard in sorted(range(len(passes)), key=partial(key_to_seed, *key, "shard", showing)):
            for entry in passes[shard](holds):
                yield None if entry is None else (entry, showing)
