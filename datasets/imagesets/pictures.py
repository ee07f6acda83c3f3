"""Open pictures safely and turn them into upright RGB, then into the pixels of a frame.

A picture may come from a stranger: only JPEG, PNG and WebP are read, its size is checked before any pixel is, and a
truncated file is refused rather than filled with grey. EXIF orientation is applied before anything is measured.
"""

import struct
import warnings
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from imagesets.errors import PictureError
from imagesets.framing import Frame

FORMATS: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
}
"""The formats that are read, with the endings their files may have."""

EXTENSIONS = frozenset(extension for extensions in FORMATS.values() for extension in extensions)

PICTURE_LIKE = EXTENSIONS | {
    ".gif",
    ".bmp",
    ".tif",
    ".tiff",
    ".avif",
    ".heic",
    ".heif",
    ".jxl",
    ".apng",
    ".psd",
    ".raw",
}
"""Endings of files a person means as pictures; those that are not read are said so rather than passed over."""

Colour = tuple[int, int, int]
Pixels = npt.NDArray[np.uint8]

_MIN_SIDE_PX = 8
_MAX_ASPECT = 20.0
_ORIENTATION_TAG = 0x0112
_TRANSPOSED_ORIENTATIONS = frozenset({5, 6, 7, 8})


@dataclass(frozen=True)
class PictureFacts:
    """What is known of a picture without keeping its pixels.

    Attributes:
        size: (height, width) after EXIF orientation.
        format: 'JPEG', 'PNG' or 'WEBP'.
        mode: PIL's name of the colour mode in the file.
        orientation: the EXIF orientation, 1 to 8.
        has_alpha: whether parts of it are see-through.
        num_frames: above 1 for an animation, of which the first frame is used.
    """

    size: tuple[int, int]
    format: str
    mode: str
    orientation: int
    has_alpha: bool
    num_frames: int


def parse_colour(text: str) -> Colour:
    """Read a colour written as '#rrggbb'."""
    if len(text) != 7 or text[0] != "#":
        raise ValueError(f"{text!r} is no colour; write it as '#rrggbb'")
    return (int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16))


def examine_picture(content: bytes, max_pixels: int, extension: str | None = None) -> PictureFacts:
    """Decode a picture once and say what it is.

    Args:
        content: the file's bytes.
        max_pixels: above this many, it is refused before a pixel is decoded.
        extension: the file's ending in lower case, to find mislabelled files; None where there is none.

    Raises:
        PictureError: it cannot be used, with the reason.
    """
    with _opened(content, max_pixels, extension) as picture:
        orientation = _orientation(picture)
        facts = PictureFacts(
            size=_upright_size(picture, orientation),
            format=picture.format or "",
            mode=picture.mode,
            orientation=orientation,
            has_alpha=_has_alpha(picture),
            num_frames=getattr(picture, "n_frames", 1),
        )
        _load(picture)
    return facts


def open_picture(content: bytes, background: Colour, max_pixels: int) -> Image.Image:
    """Return a picture upright, in RGB, with `background` under what is see-through.

    Raises:
        PictureError: it cannot be used, with the reason.
    """
    with _opened(content, max_pixels, None) as picture:
        orientation = _orientation(picture)
        _load(picture)
        rgb = _to_rgb(picture, background)
    if orientation == 1:
        return rgb
    rgb.getexif()[_ORIENTATION_TAG] = orientation
    upright = ImageOps.exif_transpose(rgb)
    assert upright is not None
    return upright


def render(picture: Image.Image, frame: Frame) -> Pixels:
    """Resize, cut and mirror an upright RGB picture into its frame, (H, W, 3).

    Raises:
        PictureError: the picture is another size than the frame was made for.
    """
    if (picture.height, picture.width) != frame.original_size:
        raise PictureError(
            f"it is now {picture.height} x {picture.width} (height x width), and was "
            f"{frame.original_size[0]} x {frame.original_size[1]} when it was scanned"
        )
    height, width = frame.resized_size
    cut = picture.resize((width, height), Image.Resampling.LANCZOS).crop(frame.crop_box)
    pixels = np.asarray(cut, dtype=np.uint8)
    return np.ascontiguousarray(pixels[:, ::-1] if frame.flipped else pixels)


def _opened(content: bytes, max_pixels: int, extension: str | None) -> Image.Image:
    """Read the header and check format and size; no pixel is decoded yet."""
    if not content:
        raise PictureError("the file is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is our own
            picture = Image.open(BytesIO(content), formats=tuple(FORMATS))
    except UnidentifiedImageError as error:
        raise PictureError(f"it is no JPEG, PNG or WebP picture{_looks_like(content)}") from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"it claims to be enormous; at most {max_pixels / 1e6:g} megapixels are read") from error
    except (OSError, ValueError, SyntaxError, struct.error, EOFError, OverflowError, MemoryError) as error:
        raise PictureError(f"its header cannot be read: {_said(error)}") from error
    _check_size(picture, max_pixels)
    if extension is not None and extension not in FORMATS[picture.format or ""]:
        raise PictureError(
            f"it is a {picture.format} picture whose name ends in {extension}; rename it to "
            f"{FORMATS[picture.format or ''][0]}"
        )
    return picture


def _check_size(picture: Image.Image, max_pixels: int) -> None:
    width, height = picture.size
    if width * height > max_pixels:
        raise PictureError(
            f"it is {height} x {width} (height x width), {width * height / 1e6:.0f} megapixels; "
            f"at most {max_pixels / 1e6:g} are read (data.max_megapixels)"
        )
    if min(width, height) < _MIN_SIDE_PX:
        raise PictureError(f"it is {height} x {width} (height x width); a side of at least {_MIN_SIDE_PX} px is needed")
    if max(width, height) > _MAX_ASPECT * min(width, height):
        raise PictureError(
            f"it is {height} x {width} (height x width): longer than {_MAX_ASPECT:g} times its width; "
            "any bucket would cut most of it away"
        )


def _load(picture: Image.Image) -> None:
    """Decode the pixels. Damaged files fail in many ways in PIL's decoders, so every one of them is a reason here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture.load()
    except Exception as error:
        raise PictureError(f"its pixels cannot be read: {_said(error)}; the file may be cut short") from error


def _to_rgb(picture: Image.Image, background: Colour) -> Image.Image:
    """Convert every colour mode that PIL gives for JPEG, PNG and WebP."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return _sixteen_bit_to_rgb(picture)
    if _has_alpha(picture):
        foreground = picture.convert("RGBA")
        ground = Image.new("RGBA", foreground.size, (*background, 255))
        return Image.alpha_composite(ground, foreground).convert("RGB")
    return picture.convert("RGB")


def _sixteen_bit_to_rgb(picture: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits; `convert` would clip it to white."""
    values = np.asarray(picture).astype(np.float64)
    levels = np.round(values * (255.0 / 65535.0)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(levels).convert("RGB")


def _has_alpha(picture: Image.Image) -> bool:
    return picture.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in picture.info


def _orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation; what is damaged or out of range counts as upright, as viewers have it."""
    try:
        orientation = picture.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001 - broken EXIF must not make a sound picture unusable
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _upright_size(picture: Image.Image, orientation: int) -> tuple[int, int]:
    width, height = picture.size
    return (width, height) if orientation in _TRANSPOSED_ORIENTATIONS else (height, width)


def _looks_like(content: bytes) -> str:
    start = content[:64].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        return "; it is a web page, as a failed download leaves it"
    signatures = {b"gif8": "GIF", b"bm": "BMP", b"ii*\x00": "TIFF", b"mm\x00*": "TIFF", b"8bps": "Photoshop"}
    for signature, name in signatures.items():
        if start.startswith(signature):
            return f"; it is a {name} file: convert it to PNG"
    if content[4:12] in {b"ftypavif", b"ftypheic", b"ftypmif1"}:
        return "; it is an AVIF or HEIC file: convert it to PNG"
    return ""


def _said(error: Exception) -> str:
    text = str(error).strip()
    return text.partition("\n")[0] or type(error).__name__
