"""From a file's bytes to decoded pixels, safely: a picture may come from a stranger.

Only JPEG, PNG and WebP are read, told by their first bytes and never by their name. The size is checked before any
pixel is decoded; a file that is cut short or fails its checksums is refused rather than filled with grey. What the
pixels mean (orientation, colours, transparency) is the work of `pictures`.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO

from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from imagesets.errors import PictureError

FORMATS: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
}
"""The formats that are read, with the endings their files may have; the first one is the usual."""

EXTENSIONS = frozenset(extension for extensions in FORMATS.values() for extension in extensions)

_NOT_READ = (".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif", ".jxl", ".jp2", ".psd", ".raw", ".dng", ".svg")
PICTURE_LIKE = EXTENSIONS.union(_NOT_READ)
"""Endings of files a person means as pictures; those that are not read are said so rather than passed over."""

# Pillow's own `Image.open` warns and raises by a limit of its own, and its JPEG reader may turn into that of
# multi-picture files, as phones write them. The classes themselves do neither.
_READERS: dict[str, type[ImageFile]] = {"JPEG": JpegImageFile, "PNG": PngImageFile, "WEBP": WebPImageFile}

_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row and column, and the distance of rows and columns, of the passes of an interlaced PNG."""

_UNPACKED_AT_ONCE = 2**20
_MIN_SIDE_PX = 8
_MAX_ASPECT = 20
_OTHER_SIGNATURES = {
    b"GIF8": "a GIF",
    b"BM": "a BMP",
    b"II*\x00": "a TIFF",
    b"MM\x00*": "a TIFF",
    b"8BPS": "a Photoshop",
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a zip",
    b"\xff\x0a": "a JPEG XL",
}


def decode(content: bytes, max_pixels: int, extension: str | None = None, enough_px: int | None = None) -> Image.Image:
    """Decode a picture's pixels, in the file's own colour mode, not turned by its EXIF orientation.

    Args:
        content: the file's bytes.
        max_pixels: above this many, it is refused before a pixel is decoded.
        extension: the ending of the file's name in lower case, to find mislabelled files; None where there is none.
        enough_px: how long its longest side has to be at least; a JPEG that is much larger is decoded at a half, a
            quarter or an eighth, which is quick. None decodes it whole.

    Raises:
        PictureError: it cannot be used, with the reason.
        MemoryError: there is too little memory for it, which may be no fault of the file's.
    """
    kind = picture_format(content)
    if extension is not None and extension not in FORMATS[kind]:
        raise PictureError(f"it is a {kind} picture whose name ends in {extension}: rename it to {FORMATS[kind][0]}")
    if kind == "WEBP":
        # Its reader reserves memory for the pixels at once, so the size is looked up before.
        _check_size(*_webp_size(content), max_pixels)
    # Pillow's readers raise whatever a damaged file makes them stumble over, SyntaxError among it.
    try:
        picture = _READERS[kind](BytesIO(content))
    except MemoryError:
        raise
    except Exception as error:
        raise PictureError(f"its header cannot be read: {_said(error)}. Save or download it again") from error
    _check_size(picture.height, picture.width, max_pixels)
    if enough_px is not None and kind == "JPEG":
        share = enough_px / max(picture.size)
        picture.draft(picture.mode, (math.ceil(share * picture.width), math.ceil(share * picture.height)))
    try:
        if kind == "PNG":
            PngImageFile(BytesIO(content)).verify()  # checksums, which decoding passes over
        picture.load()
    except MemoryError:
        raise
    except Exception as error:
        raise PictureError(
            f"its pixels cannot be read, the file may be cut short: {_said(error)}. Save or download it again"
        ) from error
    if kind == "PNG" and _may_end_too_soon(picture) and not _png_has_all_rows(content):
        raise PictureError("its pixels end too soon, and the rest would be black. Save or download it again")
    return picture


def _may_end_too_soon(picture: Image.Image) -> bool:
    """Whether the last row or the one above it is all zeros, as Pillow leaves rows that are not in the file."""
    width, height = picture.size
    return not all(any(picture.crop((0, row, width, row + 1)).tobytes()) for row in (height - 2, height - 1))


def _png_has_all_rows(content: bytes) -> bool:
    """Whether a PNG's first frame unpacks to as many bytes as its header promises (PNG specification, 7.2 and 8.2).

    Pillow takes a stream that ends properly, and too soon, for a whole one.
    """
    width, height, depth, colour_type = struct.unpack_from(">IIBB", content, 16)
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type]
    passes = _ADAM7 if content[28] else ((0, 0, 1, 1),)
    missing = 0
    for top, left, down, across in passes:
        rows, columns = -(-(height - top) // down), -(-(width - left) // across)
        missing += rows * (1 + -(-columns * bits // 8)) if rows > 0 < columns else 0
    unpack = zlib.decompressobj()
    for packed in _png_data(content):
        while packed and missing > 0:
            missing -= len(unpack.decompress(packed, _UNPACKED_AT_ONCE))
            packed = unpack.unconsumed_tail
    return missing <= 0


def _png_data(content: bytes) -> Iterator[bytes]:
    """Yield what the chunks of a PNG's pixels hold, whose lengths and checksums are known to be right."""
    place = 8
    while place + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        if kind == b"IDAT":
            yield content[place + 8 : place + 8 + length]
        place += 12 + length


def picture_format(content: bytes) -> str:
    """Return 'JPEG', 'PNG' or 'WEBP' by a file's first bytes.

    Raises:
        PictureError: it is none of them; the message says what it seems to be.
    """
    if not content:
        raise PictureError("the file is empty (0 bytes): remove it, or save or download it again")
    if content.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "WEBP"
    raise PictureError(f"it holds no JPEG, PNG or WebP picture{_seems_to_be(content)}")


def _seems_to_be(content: bytes) -> str:
    start = content[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return ", but a web page, as a failed download leaves it"
    if start.startswith(b"version https://git-lfs"):
        return ", but a pointer of Git LFS: fetch the file itself with git lfs pull"
    for signature, name in _OTHER_SIGNATURES.items():
        if content.startswith(signature):
            return f", but {name} file: convert it to PNG"
    if content[4:8] == b"ftyp":
        return ", but a HEIC, AVIF or video file: convert it to PNG or JPEG"
    return f": it begins with {content[:12]!r}"


def _check_size(height: int, width: int, max_pixels: int) -> None:
    size = f"it is {height} x {width} (height x width)"
    if width * height > max_pixels:
        raise PictureError(
            f"{size}, {width * height / 1e6:.1f} megapixels; at most {max_pixels / 1e6:g} are read: make it smaller, "
            "or raise data.max_megapixels"
        )
    if min(width, height) < _MIN_SIDE_PX:
        raise PictureError(f"{size}; both sides need at least {_MIN_SIDE_PX} px")
    if max(width, height) > _MAX_ASPECT * min(width, height):
        raise PictureError(
            f"{size}, one side more than {_MAX_ASPECT} times the other; any bucket would cut most of it away: crop it"
        )


def _webp_size(content: bytes) -> tuple[int, int]:
    """Return a WebP's (height, width) from its first chunk (RFC 9649, section 2.5 to 2.7).

    Raises:
        PictureError: the header is damaged, or the file is shorter than it says.
    """
    kind = content[12:16]
    try:
        (length,) = struct.unpack_from("<I", content, 4)
        if length + 8 > len(content):
            raise PictureError(
                f"the file is cut short: {len(content)} of {length + 8} bytes are there. Save or download it again"
            )
        if kind == b"VP8X":
            low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", content, 24)
            return ((high_height << 16 | low_height) + 1, (high_width << 16 | low_width) + 1)
        if kind == b"VP8L":
            (packed,) = struct.unpack_from("<I", content, 21)
            return ((packed >> 14 & 0x3FFF) + 1, (packed & 0x3FFF) + 1)
        if kind == b"VP8 ":
            width, height = struct.unpack_from("<HH", content, 26)
            return (height & 0x3FFF, width & 0x3FFF)
    except struct.error as error:
        raise PictureError("its header is cut short. Save or download it again") from error
    raise PictureError(f"its header cannot be read: it begins with a chunk {kind!r}")


def _said(error: Exception) -> str:
    """Return an exception's first line, or its kind where it says nothing."""
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
