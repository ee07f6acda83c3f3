"""Histograms and the scatter of sizes as numbers: what the template draws as inline SVG."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from imagesets.inspection.facts import Inspection

_MAX_POINTS = 1500
_TAGS_SHOWN = 30
_ASPECTS = ((1, 1), (16, 9), (9, 16), (3, 2), (2, 3), (21, 9), (9, 21), (4, 3), (3, 4))
"""The first have precedence where there is no room for all."""
_SCALES = (1.0, 0.5, 2.0, 0.25, 4.0, 0.125, 8.0)
_FEW_TOKENS = 75.0
"""The axis of tokens goes this far at least, so that short captions look short."""
_TICK_ROOM = 12.0
"""Between two ticks, in percent of the axis, so that their labels do not touch."""


@dataclass(frozen=True)
class Bar:
    """One bar: its label, how many it stands for, its length in percent of the longest, what else is to be said."""

    label: str
    count: int
    percent: float
    text: str = ""
    marked: bool = False


@dataclass(frozen=True)
class Tick:
    """A mark on an axis, at a place from 0 to 100."""

    place: float
    label: str


@dataclass(frozen=True)
class Histogram:
    """Bars side by side over an axis.

    Attributes:
        bars: of equal width, filling the axis.
        ticks: on the axis.
        largest: the count of the highest bar.
    """

    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    largest: int


@dataclass(frozen=True)
class Point:
    """Pictures of one size: places from 0 to 100, rightwards and upwards."""

    x: float
    y: float
    count: int
    label: str


@dataclass(frozen=True)
class Scatter:
    """Sizes, width rightwards and height upwards, both by their logarithm.

    Attributes:
        points: of pictures.
        buckets: of the buckets in use.
        ticks: of either axis.
    """

    points: tuple[Point, ...]
    buckets: tuple[Point, ...]
    ticks: tuple[Tick, ...]


def bucket_bars(inspection: Inspection) -> tuple[Bar, ...]:
    """Return a bar for every bucket in use; one whose last batch is short is marked."""
    facts = inspection.facts
    largest = max((bucket.pictures for bucket in facts.buckets), default=1)
    micro = facts.plan.micro_batch_size
    return tuple(
        Bar(
            f"{bucket.size[0]} x {bucket.size[1]}",
            bucket.pictures,
            100 * bucket.pictures / largest,
            f"last batch {bucket.left_over} of {micro}" if bucket.left_over else "",
            marked=bucket.cannot_fill or bucket.pictures == 1,
        )
        for bucket in facts.buckets
    )


def tag_bars(inspection: Inspection) -> tuple[Bar, ...]:
    """Return a bar for each of the most frequent tags."""
    tags = inspection.facts.captions.tags[:_TAGS_SHOWN]
    total = max(1, len(inspection.facts.pictures))
    return tuple(Bar(tag, count, 100 * count / total) for tag, count in tags if count > 1)


def aspect_histogram(inspection: Inspection) -> Histogram:
    """Return how many pictures have which aspect, width over height, by its logarithm."""
    values = [
        math.log(picture.frame.original_size[1] / picture.frame.original_size[0])
        for picture in inspection.facts.pictures
    ]
    edge = max(math.log(2), *(abs(value) for value in values)) * 1.02 if values else 1.0
    ticks = [(math.log(width / height), f"{width}:{height}") for width, height in _ASPECTS]
    return _histogram(values, -edge, edge, 27, ticks)


def scale_histogram(inspection: Inspection) -> Histogram:
    """Return how many pictures are scaled by how much; bars of pictures that are blown up are marked."""
    values = [math.log2(picture.scale) for picture in inspection.facts.pictures]
    low, high = min([-1.0, *values]), max([1.0, *values])
    edge = max(-low, high) * 1.02
    ticks = [(math.log2(scale), f"{scale:g} x") for scale in _SCALES]
    return _histogram(values, -edge, edge, 27, ticks, marked_from=0.0)


def token_histogram(inspection: Inspection) -> Histogram | None:
    """Return how many captions have how many tokens; bars beyond what is read are marked. None where none counted."""
    limit = inspection.facts.plan.max_tokens
    values = [float(picture.num_tokens) for picture in inspection.facts.pictures if picture.tokens]
    if not values:
        return None
    high = max(_FEW_TOKENS, *values) * 1.1  # the limit is on it where captions come near it
    step = 25 if high < 200 else 75 if high < 600 else 300
    places = [*([limit] if limit < high else []), *(at for at in range(0, int(high), step) if at != limit)]
    ticks = [(float(at), f"{at}") for at in places]
    return _histogram(values, 0.0, high, 28, ticks, marked_from=limit + 0.5)


def size_scatter(inspection: Inspection) -> Scatter:
    """Return the sizes of the pictures and of their buckets."""
    sizes = Counter(picture.frame.original_size for picture in inspection.facts.pictures)
    buckets = {bucket.size: bucket.pictures for bucket in inspection.facts.buckets}
    sides = [side for size in (*sizes, *buckets) for side in size] or [512, 1024]
    low, high = math.log2(min(sides)) - 0.15, math.log2(max(sides)) + 0.15

    def place(side: float) -> float:
        return round(100 * (math.log2(side) - low) / (high - low), 2)

    def points(counts: Iterable[tuple[tuple[int, int], int]]) -> tuple[Point, ...]:
        return tuple(Point(place(w), place(h), n, f"{h} x {w}") for (h, w), n in counts)

    powers = [2**power for power in range(math.ceil(low), math.floor(high) + 1)]
    return Scatter(
        points(sizes.most_common(_MAX_POINTS)), points(sorted(buckets.items())),
        tuple(Tick(place(power), str(power)) for power in powers),
    )  # fmt: skip


def _histogram(
    values: Sequence[float],
    low: float,
    high: float,
    num_bars: int,
    ticks: Iterable[tuple[float, str]],
    marked_from: float = math.inf,
) -> Histogram:
    """Count values into bars of equal width from `low` to `high`."""
    width = (high - low) / num_bars
    counts = Counter(min(num_bars - 1, max(0, int((value - low) / width))) for value in values)
    largest = max(counts.values(), default=1)
    bars = tuple(
        Bar("", counts[place], 100 * counts[place] / largest, marked=low + width * (place + 0.5) > marked_from)
        for place in range(num_bars)
    )
    inside = [Tick(round(100 * (at - low) / (high - low), 2), label) for at, label in ticks if low <= at <= high]
    return Histogram(bars, _with_room(inside), largest)


def _with_room(ticks: Sequence[Tick]) -> tuple[Tick, ...]:
    """Keep the ticks that do not stand too near an earlier one of the list."""
    kept: list[Tick] = []
    for tick in ticks:
        if all(abs(tick.place - other.place) >= _TICK_ROOM for other in kept):
            kept.append(tick)
    return tuple(kept)
