"""Two fingerprints of a picture's looks: 64 bits to find candidates by, and small pixels to judge them by.

The 64 bits are the perceptual hash that `imagehash.phash` computes, without the libraries it needs for one small cosine
transform. They see lightness alone and forgive much, so what they find is judged by the second fingerprint, in colour.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

SIGNATURE_SIDE_PX = 16
_HASH_SIDE_PX = 32
_HASH_FREQUENCIES = 8
_BLANK_DEVIATION = 2.0

Signature = npt.NDArray[np.uint8]


def perceptual_hash(picture: Image.Image) -> int:
    """Return 64 bits: which of the 8 x 8 lowest frequencies of the picture's lightness are above their median.

    Buchner's `imagehash` 4.3, `phash`, after Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash
    Functions", section 3.2.1. Scaling and brightening a picture, or saving it again, changes few of the bits.
    """
    grey = picture.convert("L").resize((_HASH_SIDE_PX, _HASH_SIDE_PX), Image.Resampling.LANCZOS)
    low = _COSINES @ np.asarray(grey, dtype=np.float64) @ _COSINES.T
    bits = low > np.median(low)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def signature(picture: Image.Image) -> Signature:
    """Return the picture's colours in a grid of 16 x 16, each the mean of its part, (16, 16, 3)."""
    side = SIGNATURE_SIDE_PX
    return np.asarray(picture.convert("RGB").resize((side, side), Image.Resampling.BOX), dtype=np.uint8)


def is_blank(grid: Signature) -> bool:
    """Whether a picture shows next to nothing: its colours deviate by under 2 of 255 levels."""
    return bool(grid.reshape(-1, 3).std(axis=0).max() < _BLANK_DEVIATION)


def _cosines(frequencies: int, points: int) -> npt.NDArray[np.float64]:
    """Return the first rows of the cosine transform (DCT-II): (frequencies, points)."""
    places = (np.arange(points) + 0.5) * np.pi / points
    return np.cos(np.arange(frequencies)[:, None] * places[None, :])


_COSINES = _cosines(_HASH_FREQUENCIES, _HASH_SIDE_PX)
