"""From the colour modes that JPEG, PNG and WebP come in to 8-bit sRGB.

Transparency lies on a stated background, 16 bits are scaled (Pillow's own conversion clips them to white), and an
embedded colour profile is honoured as a viewer would.
"""

from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

from imagesets.errors import PictureError

Colour = tuple[int, int, int]

_PIXELS_AT_ONCE = 2**20
"""Numbers of 64 bits are made of so many pixels at a time, not of a whole picture."""

_PROFILE_SPACES = {"RGB": "RGB ", "RGBA": "RGB ", "L": "GRAY", "CMYK": "CMYK"}


def parse_colour(text: str) -> Colour:
    """Read a colour written as '#rrggbb'.

    Raises:
        ValueError: it is not written so.
    """
    try:
        red, green, blue = bytes.fromhex(text[1:])
    except ValueError:
        red = -1
    if red < 0 or len(text) != 7 or text[0] != "#":
        raise ValueError(f"{text!r} is no colour; write it as '#rrggbb'")
    return (red, green, blue)


def has_transparency(picture: Image.Image) -> bool:
    """Whether parts of a decoded picture may be see-through."""
    return picture.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in picture.info


def to_rgb(picture: Image.Image, background: Colour, png_bit_depth: int = 8) -> Image.Image:
    """Convert a decoded picture to 8-bit sRGB, with `background` under what is see-through.

    Args:
        picture: as it was decoded.
        background: red, green, blue.
        png_bit_depth: bits a channel in a PNG file; Pillow scales the pixels to 8 bits, but not the transparent colour.

    Raises:
        PictureError: its colour profile is damaged.
    """
    return to_rgb_and_alpha(picture, background, png_bit_depth)[0]


def to_rgb_and_alpha(
    picture: Image.Image, background: Colour, png_bit_depth: int = 8
) -> tuple[Image.Image, Image.Image | None]:
    """Convert as `to_rgb` does, and return the transparency beside it, 8-bit grey; None where there can be none."""
    profile = picture.info.get("icc_profile")
    alpha = None
    if picture.mode.startswith("I"):
        picture, alpha = _scaled_from_16_bits(picture)
    elif has_transparency(picture):
        grey = picture.mode in {"1", "L", "LA", "La"}
        picture = _with_scaled_transparent_colour(picture, png_bit_depth)
        picture = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        alpha = picture.getchannel("A")
        picture = picture.convert("RGB").convert("L") if grey else picture.convert("RGB")
    elif picture.mode not in _PROFILE_SPACES:
        picture = picture.convert("L" if picture.mode == "1" else "RGB")
    rgb = _to_srgb(picture, profile)
    rgb = rgb if rgb.mode == "RGB" else rgb.convert("RGB")  # of the same mode it would be a copy, as slow as decoding
    if alpha is None:
        return rgb, None
    below = Image.new("RGB", rgb.size, background)
    below.paste(rgb, None, alpha)
    return below, alpha


def to_levels(picture: Image.Image, png_bit_depth: int = 8) -> Image.Image:
    """Convert a decoded mask to 8-bit grey: its transparency where it has some, else its lightness.

    A colour profile is passed over: a mask's greys are amounts, and no profile makes half of it more or less.
    """
    plain = picture.copy()
    plain.info.pop("icc_profile", None)
    rgb, alpha = to_rgb_and_alpha(plain, (0, 0, 0), png_bit_depth)
    if alpha is not None and mean_level(alpha) < 1.0:
        return alpha
    return rgb.convert("L")


def mean_level(levels: Image.Image) -> float:
    """Return the mean of an 8-bit grey picture, from 0 to 1; exactly 1 where it is white."""
    return sum(level * count for level, count in enumerate(levels.histogram())) / (255 * levels.width * levels.height)


def _scaled_from_16_bits(picture: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Scale 16-bit grey to 8 bits, and return its transparency where one grey stands for it."""
    levels = np.asarray(picture)
    transparent = picture.info.get("transparency")
    grey = np.empty(levels.shape, np.uint8)
    alpha = None if transparent is None else np.empty(levels.shape, np.uint8)
    rows_at_once = max(1, _PIXELS_AT_ONCE // picture.width)
    for top in range(0, picture.height, rows_at_once):
        rows = slice(top, top + rows_at_once)
        values = levels[rows].astype(np.int64)
        grey[rows] = ((values * 255 + 32767) // 65535).clip(0, 255)
        if alpha is not None:
            alpha[rows] = np.where(values == transparent, 0, 255)
    return Image.fromarray(grey), None if alpha is None else Image.fromarray(alpha)


def _with_scaled_transparent_colour(picture: Image.Image, bit_depth: int) -> Image.Image:
    """Bring a PNG's transparent grey or colour to the 8 bits Pillow has brought the pixels to."""
    transparent = picture.info.get("transparency")
    if picture.mode in {"1", "L"} and isinstance(transparent, int) and bit_depth < 8:
        picture = picture.convert("L")
        # Pillow has already scaled the transparent grey of one bit, not those of two and four.
        picture.info["transparency"] = min(255, transparent * 255 // (2**bit_depth - 1))
    elif picture.mode == "RGB" and isinstance(transparent, tuple) and bit_depth == 16:
        picture.info["transparency"] = tuple(level >> 8 for level in transparent)
    return picture


def _to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """Apply an embedded colour profile; one for another kind of pixels is passed over, as viewers do."""
    if not profile:
        return picture
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        description = source.profile.profile_description
        if source.profile.xcolor_space != _PROFILE_SPACES[picture.mode] or "sRGB" in (description or ""):
            return picture
        converted = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError) as error:
        raise PictureError("its colour profile is damaged: save it again as sRGB") from error
    assert converted is not None
    return converted
