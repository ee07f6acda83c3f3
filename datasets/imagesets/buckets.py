"""Which sizes pictures are trained at, and which of them a picture takes. Sizes are (height, width) in pixels."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import overload

import numpy as np
import numpy.typing as npt

Size = tuple[int, int]
Integers = npt.NDArray[np.int64]

PAPER_BUCKETS: tuple[Size, ...] = (
    (512, 2048), (512, 1984), (512, 1920), (512, 1856), (576, 1792), (576, 1728), (576, 1664), (640, 1600),
    (640, 1536), (704, 1472), (704, 1408), (704, 1344), (768, 1344), (768, 1280), (832, 1216), (832, 1152),
    (896, 1152), (896, 1088), (960, 1088), (960, 1024), (1024, 1024), (1024, 960), (1088, 960), (1088, 896),
    (1152, 896), (1152, 832), (1216, 832), (1280, 768), (1344, 768), (1408, 704), (1472, 704), (1536, 640),
    (1600, 640), (1664, 576), (1728, 576), (1792, 576), (1856, 512), (1920, 512), (1984, 512), (2048, 512),
)  # fmt: skip
"""The 40 sizes SDXL was trained at (Podell et al. 2023, arXiv 2307.01952, appendix I)."""


def symmetric_buckets() -> tuple[Size, ...]:
    """Return the paper's sizes and the mirror of 704 x 1344, which the paper lacks: 41."""
    return tuple(sorted({*PAPER_BUCKETS, *((width, height) for height, width in PAPER_BUCKETS)}))


def generated_buckets(resolution: int, step: int, max_aspect: float) -> tuple[Size, ...]:
    """Return sizes of about `resolution`² pixels and at most that, with sides that are multiples of `step`.

    They are the square, for every short side the longest long side that fits, for every long side the longest short
    one, and the mirror of each.

    Args:
        resolution: side, in pixels, of the square whose area is kept to.
        step: what every side is a multiple of; at most `resolution`.
        max_aspect: long side over short side, at most; 1 or more.

    Raises:
        ValueError: no size fits.
    """
    if not (1 <= step <= resolution and max_aspect >= 1.0):
        raise ValueError(
            f"no bucket fits resolution {resolution}, step {step}, max_aspect {max_aspect}: "
            "step must be from 1 to the resolution, and max_aspect 1 or more"
        )
    area = resolution * resolution
    square = resolution // step * step
    pairs = {(square, square)}
    pairs |= {(short, area // short // step * step) for short in range(step, square + 1, step)}
    # Longer sides than this are too long for their short ones, and may be millions.
    longest = min(max(long for _, long in pairs), math.ceil(resolution * math.sqrt(max_aspect)))
    pairs |= {(area // long // step * step, long) for long in range(square, longest + 1, step)}
    fitting = {(short, long) for short, long in pairs if short > 0 and short <= long <= max_aspect * short}
    return tuple(sorted(fitting | {(long, short) for short, long in fitting}))


def assign_bucket(size: Size, buckets: Sequence[Size]) -> Size:
    """Return the bucket whose aspect is nearest on a logarithmic scale.

    Distance in log aspect treats portrait and landscape alike: the bucket of a transposed size is the transposed
    bucket, where the buckets have their mirrors. It is compared in whole numbers, so that no rounding decides. Of
    equally near ones the largest is taken, then the one nearest to a square, then the lower; the order of `buckets`
    does not matter.
    """
    return min(buckets, key=lambda bucket: (_ratio(size, bucket), _preference(bucket)))


class AssignedBuckets(Sequence[Size]):
    """The bucket of each of many pictures: a sequence of sizes, kept as one number a picture."""

    def __init__(self, sizes: Sequence[Size], indices: Integers) -> None:
        """Keep an assignment.

        Args:
            sizes: the buckets there are.
            indices: for each picture, the place of its bucket in `sizes`, (N,).
        """
        self.sizes = sizes
        self.indices = indices

    @staticmethod
    def of(buckets: Sequence[Size]) -> "AssignedBuckets":
        """Return an assignment that was written out, one bucket a picture, in this form."""
        if isinstance(buckets, AssignedBuckets):
            return buckets
        places: dict[Size, int] = {}
        indices = [places.setdefault(bucket, len(places)) for bucket in buckets]
        return AssignedBuckets(tuple(places), np.array(indices, dtype=np.int64))

    def in_order_of_appearance(self) -> "AssignedBuckets":
        """Return the same assignment with only the buckets that are taken, the first picture's first."""
        taken, first, places = np.unique(self.indices, return_index=True, return_inverse=True)
        order = np.argsort(first)
        ranks = np.empty_like(order)
        ranks[order] = np.arange(len(order))
        return AssignedBuckets([self.sizes[index] for index in taken[order].tolist()], ranks[places])

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> Size: ...
    @overload
    def __getitem__(self, index: slice) -> "AssignedBuckets": ...
    def __getitem__(self, index: int | slice) -> "Size | AssignedBuckets":
        """Return a picture's bucket, or the assignment of some pictures."""
        if isinstance(index, slice):
            return AssignedBuckets(self.sizes, self.indices[index])
        return self.sizes[self.indices[index]]

    def __iter__(self) -> Iterator[Size]:
        """Go over the pictures' buckets."""
        return (self.sizes[index] for index in self.indices.tolist())


def assign_buckets(sizes: Iterable[Size] | Integers, buckets: Sequence[Size]) -> AssignedBuckets:
    """Assign many pictures at once: what `assign_bucket` gives for each, at a thousandth of the time.

    Between two buckets that are neighbours in aspect, a picture's aspect a = h / w lies nearer to the taller one where
    a² > (h₁ / w₁) (h₂ / w₂). That is compared in whole numbers.

    Args:
        sizes: (height, width) of each picture.
        buckets: the (height, width) they may be trained at.

    Raises:
        ValueError: there is no bucket, or a side is under 1.
    """
    picture_sizes = _as_columns(sizes)
    if not buckets or min(map(min, buckets)) < 1 or picture_sizes.min(initial=1) < 1:
        raise ValueError("there must be a bucket, and the sides of pictures and buckets must be 1 or more")
    # Of buckets with one aspect only the one that wins all ties can be taken.
    best: dict[Fraction, int] = {}
    for index in sorted(range(len(buckets)), key=lambda index: _preference(buckets[index])):
        best.setdefault(Fraction(*buckets[index]), index)
    ordered = [best[aspect] for aspect in sorted(best)]
    heights, widths = picture_sizes
    chosen = np.zeros(len(heights), dtype=np.int64)
    for low, high in itertools.pairwise(ordered):
        taller = buckets[low][0] * buckets[high][0]
        wider = buckets[low][1] * buckets[high][1]
        takes_tie = _preference(buckets[high]) < _preference(buckets[low])
        chosen += _exceeds(heights, widths, wider, taller, or_equals=takes_tie)
    return AssignedBuckets(buckets, np.array(ordered, dtype=np.int64)[chosen])


def _as_columns(sizes: Iterable[Size] | Integers) -> Integers:
    """Return heights and widths, (2, N)."""
    if not isinstance(sizes, np.ndarray):
        sizes = np.fromiter(itertools.chain.from_iterable(sizes), dtype=np.int64).reshape(-1, 2)
    return np.ascontiguousarray(sizes.T, dtype=np.int64)


def _exceeds(heights: Integers, widths: Integers, wider: int, taller: int, *, or_equals: bool) -> npt.NDArray[np.bool_]:
    """Whether height² · wider > width² · taller, exactly, or at least as much."""
    longest = max(int(heights.max(initial=1)), int(widths.max(initial=1)))
    if longest**2 * max(wider, taller) >= 2**63:  # beyond numpy's whole numbers: in Python's own, which have no end
        heights, widths = heights.astype(object), widths.astype(object)
    one, other = heights * heights * wider, widths * widths * taller
    return np.asarray(one >= other if or_equals else one > other, dtype=np.bool_)


def _preference(bucket: Size) -> tuple[int, int, Size]:
    """Return what orders equally near buckets: the largest first, then the one nearest to a square, then the lower."""
    return (-bucket[0] * bucket[1], abs(bucket[0] - bucket[1]), bucket)


def _ratio(size: Size, bucket: Size) -> Fraction:
    """Return exp |log(aspect of size) - log(aspect of bucket)|, exactly: 1 where the aspects are equal."""
    one, other = size[0] * bucket[1], size[1] * bucket[0]
    return Fraction(max(one, other), min(one, other))
