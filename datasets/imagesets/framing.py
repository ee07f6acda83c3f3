"""How a picture is resized, cut and mirrored into its bucket, and what SDXL is told about it: one pure function.

Sizes and places are (height, width) and (top, left), in pixels. No picture is touched here: `pictures.render` does
what a frame says.
"""

import math
from dataclasses import dataclass

from imagesets.randomness import KeyPart, key_to_fraction

Size = tuple[int, int]


@dataclass(frozen=True)
class Frame:
    """A picture's way into its bucket.

    Attributes:
        original_size: after EXIF orientation, before any resize.
        resized_size: after the resize that makes it cover the bucket.
        crop_top_left: where the cut begins in the resized picture, as the trained picture shows it: mirrored where
            the picture is.
        target_size: the bucket.
        flipped: whether it is mirrored left to right, after the cut.
    """

    original_size: Size
    resized_size: Size
    crop_top_left: Size
    target_size: Size
    flipped: bool

    def add_time_ids(self) -> tuple[int, int, int, int, int, int]:
        """Return SDXL's six size and crop conditions (Podell et al. 2023, section 2.2), exact whole numbers."""
        return (*self.original_size, *self.crop_top_left, *self.target_size)

    @property
    def crop_box(self) -> tuple[int, int, int, int]:
        """The cut in the resized picture before mirroring: left, top, right, bottom, as PIL takes it."""
        top, left = self.crop_top_left
        height, width = self.target_size
        if self.flipped:
            left = self.resized_size[1] - width - left
        return (left, top, left + width, top + height)

    @property
    def scale(self) -> float:
        """Resized over original side length: above 1 the picture is blown up."""
        return math.sqrt(math.prod(self.resized_size) / math.prod(self.original_size))


def make_frame(
    original_size: Size, bucket: Size, crop: str, *, flipped: bool = False, key: tuple[KeyPart, ...] = ()
) -> Frame:
    """Frame a picture: the smallest resize that covers the bucket with the aspect kept, then a cut of its size.

    Args:
        original_size: of the upright picture.
        bucket: the size it is trained at.
        crop: 'center', or 'random' for a place drawn evenly from `key`.
        flipped: whether it is mirrored. The cut before mirroring is the same either way.
        key: of the draw, for random crops: (seed, purpose, epoch, sample).

    Raises:
        ValueError: an unknown crop, or a size that is not positive.
    """
    if min(*original_size, *bucket) < 1:
        raise ValueError(f"sizes must be 1 or more: got {original_size} into {bucket}")
    resized = cover(original_size, bucket)
    slack = (resized[0] - bucket[0], resized[1] - bucket[1])
    if crop == "center":
        top, left = slack[0] // 2, slack[1] // 2
    elif crop == "random":
        top = int(key_to_fraction(*key, "top") * (slack[0] + 1))
        left = int(key_to_fraction(*key, "left") * (slack[1] + 1))
    else:
        raise ValueError(f"unknown crop {crop!r}. Known: 'center', 'random'")
    if flipped:
        left = slack[1] - left
    return Frame(original_size, resized, (top, left), bucket, flipped)


def cover(original_size: Size, bucket: Size) -> Size:
    """Return the smallest size with the picture's aspect that covers the bucket.

    One side is the bucket's; the other is rounded to the nearest pixel, halves up, and never below the bucket's.
    """
    height, width = original_size
    if height * bucket[1] >= width * bucket[0]:  # the width is what binds
        return (max(bucket[0], _rounded(height * bucket[1], width)), bucket[1])
    return (bucket[0], max(bucket[1], _rounded(width * bucket[0], height)))


def _rounded(numerator: int, denominator: int) -> int:
    """Divide and round half up, in whole numbers."""
    return (2 * numerator + denominator) // (2 * denominator)
