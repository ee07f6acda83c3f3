"""Makes the pictures, sound and broken, that the tests of this folder read."""

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

MAX_PIXELS = 64_000_000
WHITE = (255, 255, 255)


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return a picture as the bytes of a file."""
    stream = BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def scene(height: int = 48, width: int = 64) -> Image.Image:
    """Return an RGB picture that no rotation or mirror leaves as it is."""
    rows, columns = np.mgrid[0:height, 0:width]
    levels = np.stack([rows * 255 // height, columns * 255 // width, (rows * columns) % 256], axis=-1)
    return Image.fromarray(levels.astype(np.uint8))


def noise(height: int = 48, width: int = 64) -> Image.Image:
    """Return an RGB picture that does not compress, so that cutting the file cuts pixels."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """Return one chunk of a PNG with its right checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    height: int, width: int, depth: int, colour_type: int, rows: npt.NDArray[Any], transparent: bytes | None = None
) -> bytes:
    """Write a PNG by hand: 16-bit colour and sub-byte greys with a transparent colour, which Pillow cannot write.

    Args:
        height: in pixels.
        width: in pixels.
        depth: bits a channel.
        colour_type: as the PNG specification numbers them: 0 grey, 2 RGB.
        rows: bytes of each row, packed, (height, bytes).
        transparent: content of the tRNS chunk.
    """
    raw = b"".join(b"\x00" + row.tobytes() for row in rows)
    parts = [png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))]
    if transparent is not None:
        parts.append(png_chunk(b"tRNS", transparent))
    parts += [png_chunk(b"IDAT", zlib.compress(raw)), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png_bomb(height: int = 30_000, width: int = 30_000) -> bytes:
    """Return a PNG of some bytes that claims an enormous size."""
    return png(height, width, 8, 0, np.zeros((1, 1), np.uint8))


def orientation_exif(orientation: int) -> bytes:
    """Return EXIF data that holds an orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def endless_jpeg(height: int, width: int, num_scans: int) -> bytes:
    """Return a sound progressive grey JPEG that says nothing in very many passes over all its blocks.

    Each pass costs a decoder a walk over every block, and the file some bytes: runs of 32,767 empty blocks (ITU T.81,
    G.1.2.2). The first pass holds the blocks' means, all alike.
    """
    blocks = (height // 8) * (width // 8)
    parts = [
        b"\xff\xd8",
        b"\xff\xdb" + struct.pack(">HB", 67, 0) + b"\x01" * 64,
        b"\xff\xc2" + struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\x01\x11\x00",
        # One code each, '0': a difference of no bits for the means; a run of 2**14 blocks and more for the rest.
        b"\xff\xc4" + struct.pack(">HB", 20, 0x00) + b"\x01" + b"\x00" * 15 + b"\x00",
        b"\xff\xc4" + struct.pack(">HB", 20, 0x10) + b"\x01" + b"\x00" * 15 + b"\xe0",
        b"\xff\xda" + struct.pack(">HB", 8, 1) + b"\x01\x00" + b"\x00\x00\x01" + b"\x00" * (blocks // 8),
    ]
    # '0' and fourteen bits of ones: a run of 2**14 + 2**14 - 1 blocks.
    bits = "".join("0" + "1" * 14 for _ in range(blocks // 32767 + 1))
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    scan = b"\xff\xda" + struct.pack(">HB", 8, 1) + b"\x01\x00" + b"\x01\x3f\x01" + data
    refining = b"\xff\xda" + struct.pack(">HB", 8, 1) + b"\x01\x00" + b"\x01\x3f\x10" + data
    return b"".join([*parts, scan, *[refining] * num_scans, b"\xff\xd9"])
