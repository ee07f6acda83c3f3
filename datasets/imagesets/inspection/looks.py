"""One more look at each usable picture's pixels: a thumbnail to show, and fingerprints to find its like by.

Pictures are opened where a scan opens them, in child processes; here come the small pixels of each.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from imagesets.errors import PictureError
from imagesets.framing import Frame
from imagesets.inspection.fingerprints import Signature, is_blank, perceptual_hash, signature
from imagesets.pictures import Levels
from imagesets.samples import Sample

_MAX_THREADS = 32
_SMALL_PX = 128
"""Fingerprints are taken of a picture of this longest side, or of its thumbnail where that is larger."""
_LEFT_OUT = (150, 40, 160)
"""A colour that few pictures have: over it lies what a mask leaves out."""
_QUALITY, _LOW_QUALITY = 75, 30
"""Of WebP files; the lower one where the first was too large."""
_LOW_SHARE = 0.45
"""What a file takes at the lower quality, beside the same at the other (measured, on noise and on smooth colours)."""
_SMALLEST_SIDE_PX = 48


@dataclass(frozen=True)
class ThumbnailLimits:
    """How large thumbnails may be.

    Attributes:
        side_px: the longest side.
        num_bytes: of a file, at most; what takes more is compressed harder and then made smaller.
    """

    side_px: int
    num_bytes: int


@dataclass(frozen=True)
class Look:
    """What was seen of a picture.

    Attributes:
        hash: 64 bits of its lightness.
        grid: its colours in a grid, (16, 16, 3).
        blank: whether it shows next to nothing.
        thumbnail: the whole upright picture, uncut, as the bytes of a WebP file, tinted where its mask leaves it out;
            None where none was asked for.
    """

    hash: int
    grid: Signature
    blank: bool
    thumbnail: bytes | None


def look_at(
    samples: Sequence[Sample],
    limits: ThumbnailLimits | None,
    num_thumbnails: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Look | PictureError]:
    """Look at every sample, several at a time; what can no longer be read comes back as the error that says why.

    Args:
        samples: usable pictures.
        limits: of thumbnails; None makes none.
        num_thumbnails: of how many samples, from the first, thumbnails are made.
        progress: called with (done, total).
    """
    wanted = [limits if index < num_thumbnails else None for index in range(len(samples))]
    looks: list[Look | PictureError] = []
    # Threads wait for the processes that decode; results come back in order.
    with ThreadPoolExecutor(max_workers=min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        for look in pool.map(_look, samples, wanted):
            looks.append(look)
            if progress is not None:
                progress(len(looks), len(samples))
    return looks


def _look(sample: Sample, limits: ThumbnailLimits | None) -> Look | PictureError:
    try:
        frame = _small_frame(sample, max(_SMALL_PX, limits.side_px if limits is not None else 0))
        picture = Image.fromarray(sample.render_small(frame.target_size))
        shown = picture if limits is None else _tinted(picture, sample.render_mask(frame))
    except PictureError as error:
        return error
    grid = signature(picture)
    thumbnail = None if limits is None else make_thumbnail(shown, limits)
    return Look(perceptual_hash(picture), grid, is_blank(grid), thumbnail)


def _tinted(picture: Image.Image, mask: Levels | None) -> Image.Image:
    """Return a picture with what its mask leaves out in another colour."""
    if mask is None:
        return picture
    tinted = Image.blend(picture, Image.new("RGB", picture.size, _LEFT_OUT), 0.75)
    return Image.composite(picture, tinted, Image.fromarray(mask))


def _small_frame(sample: Sample, side_px: int) -> Frame:
    """Return what shows all of a picture with a longest side of at most `side_px`."""
    height, width = sample.original_size
    scale = min(1.0, side_px / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return Frame(sample.original_size, size, (0, 0), size, flipped=False)


def make_thumbnail(picture: Image.Image, limits: ThumbnailLimits) -> bytes:
    """Return a picture as a small WebP file that keeps to the limits, whatever it shows.

    What is too large is made smaller by as much as it is too large, since a file grows about as its area does.
    """
    side_px, quality = limits.side_px, _QUALITY
    while True:
        small = picture.copy()
        small.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
        stream = BytesIO()
        small.save(stream, "WEBP", quality=quality, method=1)
        if stream.tell() <= limits.num_bytes or side_px <= _SMALLEST_SIDE_PX:
            return stream.getvalue()
        expected = stream.tell() * (_LOW_SHARE if quality == _QUALITY else 1.0)
        side_px = max(_SMALLEST_SIDE_PX, int(max(small.size) * min(0.95, (limits.num_bytes / expected) ** 0.5)))
        quality = _LOW_QUALITY
