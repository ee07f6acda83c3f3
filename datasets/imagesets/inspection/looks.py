"""One more look at each usable picture's pixels: a thumbnail to show, and fingerprints to find its like by.

A JPEG is decoded at a fraction of its size, which takes a tenth of the time; what it is, and that it is whole, has been
settled by the scan.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from imagesets.colours import to_rgb
from imagesets.errors import PictureError
from imagesets.inspection.fingerprints import Signature, is_blank, perceptual_hash, signature
from imagesets.pictures import open_picture, turn_upright
from imagesets.samples import Sample

_MAX_THREADS = 8
_SMALL_PX = 128
"""Fingerprints are taken of a picture of this longest side, or of its thumbnail where that is larger."""
_QUALITIES = (80, 65, 50, 35, 20)
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
        thumbnail: the whole upright picture, uncut, as the bytes of a WebP file; None where none was asked for.
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
    # Decoders release the interpreter's lock; results come back in order.
    with ThreadPoolExecutor(max_workers=min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        for look in pool.map(_look, samples, wanted):
            looks.append(look)
            if progress is not None:
                progress(len(looks), len(samples))
    return looks


def _look(sample: Sample, limits: ThumbnailLimits | None) -> Look | PictureError:
    try:
        picture = _small(sample, max(_SMALL_PX, limits.side_px if limits is not None else 0))
    except PictureError as error:
        return error
    grid = signature(picture)
    thumbnail = None if limits is None else make_thumbnail(picture, limits)
    return Look(perceptual_hash(picture), grid, is_blank(grid), thumbnail)


def _small(sample: Sample, side_px: int) -> Image.Image:
    """Return the upright RGB picture with a longest side of at most `side_px`.

    Raises:
        PictureError: it has changed since the scan, or cannot be read any more.
    """
    content = sample.read()
    if hashlib.sha256(content).hexdigest() != sample.sha256:
        raise PictureError("it was changed while it was inspected: inspect again")
    if sample.facts.format == "JPEG":
        picture = _decode_jpeg_small(content, side_px)
        picture = turn_upright(to_rgb(picture, sample.background), sample.facts.orientation)
    else:
        picture = open_picture(content, sample.background, sample.max_pixels)
    scale = side_px / max(picture.size)
    if scale >= 1:
        return picture
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _decode_jpeg_small(content: bytes, side_px: int) -> Image.Image:
    """Decode a JPEG at the smallest of full, half, quarter or eighth size that has twice the side asked for."""
    # The same file has been decoded whole a moment ago; still, Pillow's reader raises what it stumbles over.
    try:
        picture = JpegImageFile(BytesIO(content))
        scale = 2 * side_px / max(picture.size)
        picture.draft(None, (max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
        picture.load()
    except Exception as error:
        raise PictureError(f"its pixels can no longer be read: {error}. Inspect again") from error
    return picture


def make_thumbnail(picture: Image.Image, limits: ThumbnailLimits) -> bytes:
    """Return a picture as a small WebP file that keeps to the limits, whatever it shows."""
    side_px = limits.side_px
    while True:
        small = picture.copy()
        small.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
        for quality in _QUALITIES:
            stream = BytesIO()
            small.save(stream, "WEBP", quality=quality, method=2)
            if stream.tell() <= limits.num_bytes:
                return stream.getvalue()
        if side_px <= _SMALLEST_SIDE_PX:
            return stream.getvalue()
        side_px = side_px * 3 // 4
