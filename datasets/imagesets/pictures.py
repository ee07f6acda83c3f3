"""A picture's bytes to upright RGB, and that to the pixels of a frame.

EXIF orientation is applied before anything is measured. Sizes are (height, width); Pillow's (width, height) is turned
round here and nowhere else. Decoding itself is the work of `decoding`, colours that of `colours`.
"""

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from imagesets.colours import Colour, has_transparency, mean_level, to_levels, to_rgb_and_alpha
from imagesets.decoding import decode, picture_format
from imagesets.errors import PictureError
from imagesets.framing import Frame, Size

Pixels = npt.NDArray[np.uint8]

Levels = npt.NDArray[np.uint8]
"""A mask's pixels, (H, W): 255 counts whole."""

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture of each EXIF orientation upright (EXIF 2.32, tag 0x0112)."""


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What is known of a picture without keeping its pixels.

    Attributes:
        size: (height, width) after EXIF orientation.
        format: 'JPEG', 'PNG' or 'WEBP'.
        mode: Pillow's name of the colour mode in the file.
        orientation: the EXIF orientation, 1 to 8.
        has_alpha: whether parts of it may be see-through.
        num_frames: above 1 for an animation, of which the first frame is used.
        opacity: mean over the picture, from 0 (all of it is see-through) to 1.
    """

    size: Size
    format: str
    mode: str
    orientation: int
    has_alpha: bool
    num_frames: int
    opacity: float = 1.0


@dataclass(frozen=True, slots=True)
class MaskFacts:
    """What is known of a mask without keeping its pixels.

    Attributes:
        size: (height, width) after EXIF orientation.
        share: its mean, from 0 (black) to 1 (white).
    """

    size: Size
    share: float


def examine_picture(
    content: bytes, max_pixels: int, extension: str | None = None, background: Colour = (255, 255, 255)
) -> PictureFacts:
    """Open a picture whole, as training will, and say what it is.

    Args:
        content: the file's bytes.
        max_pixels: above this many, it is refused before a pixel is decoded.
        extension: the ending of the file's name in lower case, to find mislabelled files; None where there is none.
        background: the colour under what is see-through.

    Raises:
        PictureError: it cannot be used, with the reason.
    """
    return _open(content, background, max_pixels, extension)[2]


def examine_mask(content: bytes, max_pixels: int) -> MaskFacts:
    """Open a mask's file whole and say what it is.

    Raises:
        PictureError: it cannot be used, with the reason.
    """
    levels = open_mask(content, max_pixels)
    return MaskFacts((levels.height, levels.width), mean_level(levels))


def open_picture(content: bytes, background: Colour, max_pixels: int) -> Image.Image:
    """Return a picture upright, in 8-bit sRGB, with `background` under what is see-through.

    Raises:
        PictureError: it cannot be used, with the reason.
    """
    return _open(content, background, max_pixels, None)[0]


def open_transparency(content: bytes, max_pixels: int) -> Image.Image:
    """Return a picture's own transparency upright, in 8-bit grey: 255 is opaque.

    Raises:
        PictureError: the picture cannot be used, or can have no see-through parts.
    """
    alpha = _open(content, (0, 0, 0), max_pixels, None)[1]
    if alpha is None:
        raise PictureError("it has no transparency, which is to be its mask")
    return alpha


def open_mask(content: bytes, max_pixels: int) -> Image.Image:
    """Return the mask in a file upright, in 8-bit grey: 255 counts whole.

    Raises:
        PictureError: it cannot be used, with the reason.
    """
    decoded = decode(content, max_pixels)
    orientation = exif_orientation(decoded.info.get("exif") or b"")
    return turn_upright(to_levels(decoded, _png_bit_depth(content)), orientation)


def render_small(content: bytes, background: Colour, max_pixels: int, size: Size) -> Pixels:
    """Open a picture to be looked at: whole, upright, at a (height, width) far below its own, (H, W, 3).

    It is quicker than `render`, and not to the bit what training sees.

    Raises:
        PictureError: it cannot be used, with the reason.
    """
    picture = _open(content, background, max_pixels, None, enough_px=max(size))[0]
    small = picture.resize((size[1], size[0]), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return np.asarray(small, dtype=np.uint8)


def render(picture: Image.Image, frame: Frame) -> Pixels:
    """Resize (Lanczos, antialiased), cut and mirror an upright RGB picture into its frame, (H, W, 3).

    Raises:
        PictureError: the picture is another size than the frame was made for.
    """
    if (picture.height, picture.width) != frame.original_size:
        raise PictureError(
            f"it is now {picture.height} x {picture.width} (height x width), and was "
            f"{frame.original_size[0]} x {frame.original_size[1]} when it was scanned. Start again"
        )
    return _in_frame(picture, frame, Image.Resampling.LANCZOS)


def render_mask(levels: Image.Image, frame: Frame) -> Levels:
    """Resize, cut and mirror an upright mask into its picture's frame, (H, W).

    The mask may have another size than the picture: it is taken to show the same. The filter is a triangle, which,
    unlike Lanczos, makes nothing lighter or darker than the mask is.
    """
    return _in_frame(levels, frame, Image.Resampling.BILINEAR)


def turn_upright(picture: Image.Image, orientation: int) -> Image.Image:
    """Return a picture as viewers show it, given its EXIF orientation, 1 to 8."""
    return picture if orientation == 1 else picture.transpose(_UPRIGHT[orientation])


def exif_orientation(exif: bytes) -> int:
    """Return the orientation in EXIF data, 1 to 8; where it is absent or damaged 1, as viewers have it."""
    tiff = exif.removeprefix(b"Exif\x00\x00")
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
            if tag == _ORIENTATION_TAG:
                (value,) = struct.unpack_from(order + ("I" if kind == 4 else "H"), tiff, entry + 8)
                return value if value in _UPRIGHT else 1
    except struct.error:
        return 1
    return 1


def _in_frame(picture: Image.Image, frame: Frame, resampling: Image.Resampling) -> npt.NDArray[np.uint8]:
    """Bring what shows all of a picture, in any size, into the picture's frame, (H, W) or (H, W, 3)."""
    # Only what the cut keeps is computed; Pillow's filter still sees the picture beyond the box.
    down, across = picture.height / frame.resized_size[0], picture.width / frame.resized_size[1]
    left, top, right, bottom = frame.crop_box
    box = (left * across, top * down, min(right * across, picture.width), min(bottom * down, picture.height))
    height, width = frame.target_size
    pixels = np.asarray(picture.resize((width, height), resampling, box=box), dtype=np.uint8)
    return np.ascontiguousarray(pixels[:, ::-1] if frame.flipped else pixels)


def _open(
    content: bytes, background: Colour, max_pixels: int, extension: str | None, enough_px: int | None = None
) -> tuple[Image.Image, Image.Image | None, PictureFacts]:
    """Return a picture in 8-bit sRGB and its transparency, both upright, and what it is."""
    decoded = decode(content, max_pixels, extension, enough_px)
    orientation = exif_orientation(decoded.info.get("exif") or b"")
    kind = picture_format(content)
    num_frames: int = getattr(decoded, "n_frames", 1)
    if kind == "WEBP":
        decoded = decoded.copy()  # without the reader, which holds three canvases of an animation, of one frame or not
    rgb, alpha = to_rgb_and_alpha(decoded, background, _png_bit_depth(content))
    upright = turn_upright(rgb, orientation)
    facts = PictureFacts(
        size=(upright.height, upright.width),
        format=kind,
        mode=decoded.mode,
        orientation=orientation,
        has_alpha=has_transparency(decoded),
        num_frames=num_frames,
        opacity=1.0 if alpha is None else mean_level(alpha),
    )
    return upright, None if alpha is None else turn_upright(alpha, orientation), facts


def _png_bit_depth(content: bytes) -> int:
    """Return a PNG's bits a channel, which stand in the header chunk that is always first; 8 for other formats."""
    return content[24] if picture_format(content) == "PNG" else 8
