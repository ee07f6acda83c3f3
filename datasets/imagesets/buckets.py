"""Which sizes pictures are trained at, and which of them a picture takes. Sizes are (height, width)."""

import math
from collections.abc import Sequence

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
    """Return sizes of about `resolution`² pixels whose sides are multiples of `step`; with each size also its mirror.

    For every height the widest width is taken that keeps the area at or under the square's.
    """
    area = resolution * resolution
    square = max(step, resolution // step * step)
    sizes = {(square, square)}
    for short in range(step, square + 1, step):
        long = area // short // step * step
        if long / short <= max_aspect:
            sizes |= {(short, long), (long, short)}
    return tuple(sorted(sizes))


def assign_bucket(size: Size, buckets: Sequence[Size]) -> Size:
    """Return the bucket whose aspect is nearest on a logarithmic scale; of equals, the one with the larger area.

    Distance in log aspect treats portrait and landscape alike: the bucket of a transposed size is the transposed
    bucket, where the buckets have their mirrors.
    """
    aspect = math.log(size[0] / size[1])
    return min(
        buckets,
        key=lambda bucket: (
            round(abs(math.log(bucket[0] / bucket[1]) - aspect), 9),
            -bucket[0] * bucket[1],
            abs(math.log(bucket[0] / bucket[1])),
        ),
    )
