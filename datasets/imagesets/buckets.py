"""Which sizes pictures are trained at, and which of them a picture takes. Sizes are (height, width) in pixels."""

from collections.abc import Sequence
from fractions import Fraction

Size = tuple[int, int]

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
    longest = max(long for _, long in pairs)
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
    return min(
        buckets, key=lambda bucket: (_ratio(size, bucket), -bucket[0] * bucket[1], abs(bucket[0] - bucket[1]), bucket)
    )


def _ratio(size: Size, bucket: Size) -> Fraction:
    """Return exp |log(aspect of size) - log(aspect of bucket)|, exactly: 1 where the aspects are equal."""
    one, other = size[0] * bucket[1], size[1] * bucket[0]
    return Fraction(max(one, other), min(one, other))
