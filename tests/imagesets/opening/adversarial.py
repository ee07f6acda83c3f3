"""A folder of everything a stranger's folder may hold: sound pictures of odd kinds, and files that are of no use.

Each kind is made here by a function that writes one file. Nothing is downloaded, and nothing large is kept.
"""

import os
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from tests.imagesets.making import encoded, endless_jpeg, noise, orientation_exif, png, png_bomb, png_chunk, scene

Size = tuple[int, int]
SIZE = (48, 64)
PNG_START = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Kind:
    """One file, and what is to become of it.

    Attributes:
        name: of the file.
        make: writes it at a path.
        size: the (height, width) it is read as; None where it is to be refused.
        reason: words of the refusal.
        shown: how messages call it, where that is not its name.
    """

    name: str
    make: Callable[[Path], object]
    size: Size | None = None
    reason: str = ""
    shown: str = ""

    @property
    def title(self) -> str:
        """How messages call it."""
        return self.shown or self.name


def holds(content: bytes) -> Callable[[Path], object]:
    """Return what writes these bytes."""
    return lambda path: path.write_bytes(content)


def sound_kinds() -> Iterator[Kind]:
    """What must be read, however odd."""
    picture = scene(*SIZE)
    for name, content in {**_plain(picture), **_of_odd_modes(picture), **_with_odd_data(picture)}.items():
        yield Kind(name, holds(content), SIZE)
    for orientation in range(1, 9):
        stored = picture if orientation < 5 else scene(*SIZE[::-1])
        for kind, ending in (("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")):
            content = encoded(stored, kind, exif=orientation_exif(orientation))
            yield Kind(f"exif-{orientation}.{ending}", holds(content), SIZE)
    for name in ("星 ★.png", "‏שלום.png", "e\u0301.png", "👩‍🚀.png", "-rf *.png", "%s{x}$(id).png", "a" * 251 + ".png"):
        yield Kind(name, holds(encoded(picture)), SIZE)
    yield Kind("smallest.png", holds(encoded(scene(8, 8))), (8, 8))
    yield Kind("longest.png", holds(encoded(scene(10, 200))), (10, 200))
    yield Kind("link-within.png", lambda path: path.symlink_to("plain.png"), SIZE)


def _plain(picture: Image.Image) -> dict[str, bytes]:
    frames = {"save_all": True, "append_images": [picture.rotate(180)], "duration": 50}
    return {
        "plain.png": encoded(picture),
        "plain.jpg": encoded(picture, "JPEG"),
        "plain.jpeg": encoded(picture, "JPEG"),
        "plain.jfif": encoded(picture, "JPEG"),
        "CAPITALS.JPG": encoded(picture, "JPEG"),
        "plain.webp": encoded(picture, "WEBP"),
        "lossless.webp": encoded(picture, "WEBP", lossless=True),
        "progressive.jpg": encoded(picture, "JPEG", progressive=True),
        "restarts.jpg": encoded(picture, "JPEG", restart_marker_blocks=1),
        "animated.png": encoded(picture, "PNG", **frames),
        "animated.webp": encoded(picture, "WEBP", **frames),
        "phone.jpg": encoded(picture, "MPO", save_all=True, append_images=[picture.rotate(180)]),
        "interlaced.png": _interlaced(*SIZE),
    }


def _of_odd_modes(picture: Image.Image) -> dict[str, bytes]:
    height, width = SIZE
    wide = np.random.default_rng(1).integers(0, 2**16, (height, width * 4), dtype=np.uint16).astype(">u2")
    see_through = Image.merge("RGBA", (*picture.split(), picture.getchannel("R")))
    return {
        "grey.jpg": encoded(picture.convert("L"), "JPEG"),
        "cmyk.jpg": encoded(picture.convert("CMYK"), "JPEG"),
        "grey.png": encoded(picture.convert("L")),
        "grey-alpha.png": encoded(picture.convert("LA")),
        "alpha.png": encoded(see_through),
        "alpha.webp": encoded(see_through, "WEBP"),
        "palette.png": encoded(picture.quantize(16)),
        "palette-see-through.png": encoded(picture.quantize(16), transparency=3),
        "palette-of-alphas.png": encoded(picture.quantize(16), transparency=bytes(range(0, 256, 16))),
        "one-bit.png": encoded(picture.convert("1")),
        "16-bit-grey.png": encoded(Image.fromarray(wide[:, :width].astype(np.uint16))),
        "16-bit-rgb.png": png(height, width, 16, 2, wide[:, : 3 * width], b"\x00\x01\x00\x02\x00\x03"),
        "black-below.png": png(height, width, 8, 0, np.pad(wide[:24, :width] >> 8, ((0, 24), (0, 0))).astype(np.uint8)),
        "16-bit-rgba.png": png(height, width, 16, 6, wide),
        "two-bit.png": png(height, width, 2, 0, wide[:, :8], b"\x00\x02"),
    }


def _with_odd_data(picture: Image.Image) -> dict[str, bytes]:
    text = PngInfo()
    text.add_text("parameters", "a star " * 50_000)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    sound = encoded(picture)
    comments = b"".join(b"\xff\xfe" + struct.pack(">H", 65_535) + b"c" * 65_533 for _ in range(30))
    jpeg = encoded(picture, "JPEG")
    return {
        "much-text.png": encoded(picture, pnginfo=text),
        "much-compressed-text.png": _with_chunk(sound, b"zTXt", b"Comment\x00\x00" + zlib.compress(b" " * 900_000)),
        "much-comment.jpg": jpeg[:2] + comments + jpeg[2:],
        "much-exif.jpg": encoded(picture, "JPEG", exif=orientation_exif(1) + b"\x00" * 60_000),
        "broken-exif.jpg": encoded(picture, "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff"),
        "profile.png": encoded(picture, icc_profile=srgb),
        "profile.jpg": encoded(picture, "JPEG", icc_profile=srgb),
        "profile.webp": encoded(picture, "WEBP", icc_profile=srgb),
        "profile-of-another-space.png": encoded(picture, icc_profile=lab),
        "profile-for-rgb-on-cmyk.jpg": encoded(picture.convert("CMYK"), "JPEG", icc_profile=srgb),
        "a-zip-behind-it.png": sound + b"PK\x03\x04" + b"\x00" * 1000,
        "garbage-behind-it.jpg": jpeg + os.urandom(5000),
        "unknown-chunk.png": _with_chunk(sound, b"prVt", os.urandom(3000)),
    }


def useless_kinds() -> Iterator[Kind]:
    """What must be refused, with words of the reason."""
    yield from _no_pictures()
    yield from _cut_and_damaged()
    yield from _bombs()
    yield from _no_plain_files()
    yield from _of_bad_names()


def _no_pictures() -> Iterator[Kind]:
    picture = scene(*SIZE)
    for name, content, reason in (
        ("empty.png", b"", "the file is empty (0 bytes)"),
        ("zeros.jpg", b"\x00" * 2**20, "it holds no JPEG, PNG or WebP picture"),
        ("random.webp", b"R" + os.urandom(5000), "it holds no JPEG, PNG or WebP picture"),
        ("text.png", b"A star on a hill.", "it holds no JPEG, PNG or WebP picture"),
        ("web-page.jpg", b"\n<!DOCTYPE html><html>404", "but a web page"),
        ("pointer.png", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        ("script.png", b"#!/bin/sh\nrm -rf /\n", "it holds no JPEG, PNG or WebP picture"),
        ("zip.png", b"PK\x03\x04" + b"\x00" * 100, "but a zip file"),
        ("pdf.jpg", b"%PDF-1.7\n", "but a PDF file"),
        ("video.webp", b"RIFF\x24\x00\x00\x00AVI LIST", "it holds no JPEG, PNG or WebP picture"),
        ("heic.jpg", b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "but a HEIC, AVIF or video file"),
        ("jxl.png", b"\xff\x0a" + b"\x00" * 100, "but a JPEG XL file"),
        ("gif-inside.png", encoded(picture, "GIF"), "but a GIF file"),
        ("bmp-inside.jpg", encoded(picture, "BMP"), "but a BMP file"),
        ("tiff-inside.png", encoded(picture, "TIFF"), "but a TIFF file"),
        ("png-inside.jpg", encoded(picture), "a PNG picture whose name ends in .jpg: rename it to .png"),
        ("jpeg-inside.png", encoded(picture, "JPEG"), "a JPEG picture whose name ends in .png: rename it to .jpg"),
        ("webp-inside.jpeg", encoded(picture, "WEBP"), "a WEBP picture whose name ends in .jpeg"),
        ("animation.gif", encoded(picture, "GIF", save_all=True), ".gif files are not read: convert it"),
        ("lab.tiff", encoded(picture.convert("LAB"), "TIFF"), ".tiff files are not read"),
        ("vectors.svg", b"<svg onload='alert(1)'/>", ".svg files are not read"),
        ("one-pixel.png", encoded(Image.new("L", (1, 1))), "it is 1 x 1 (height x width)"),
        ("thread.png", encoded(Image.new("L", (2000, 9))), "one side more than 20 times the other"),
    ):
        yield Kind(name, holds(content), reason=reason)


def _cut_and_damaged() -> Iterator[Kind]:
    for kind, ending in (("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")):
        content = encoded(noise(64, 64), kind)
        for share in (0.25, 0.6, 0.99):
            cut = content[: int(len(content) * share)]
            yield Kind(f"cut-at-{share}.{ending}", holds(cut), reason="cut short")
        yield Kind(f"head-only.{ending}", holds(content[:20]), reason="")
    sound = encoded(noise(64, 64))
    data = sound.index(b"IDAT")
    header = struct.pack(">IIBBBBB", 64, 48, 8, 2, 0, 0, 0)
    end = png_chunk(b"IEND", b"")
    profile = encoded(scene(*SIZE), icc_profile=b"no profile" * 50)
    for name, content, reason in (
        ("checksum.png", _changed(sound, data + 60), "its pixels cannot be read"),
        ("no-pixels.png", PNG_START + png_chunk(b"IHDR", header) + end, "cannot be read"),
        ("few-pixels.png", png(48, 64, 8, 2, np.full((3, 192), 99, np.uint8)), "its pixels end too soon"),
        ("few-pixels-interlaced.png", _interlaced(48, 64, share=0.6), "its pixels "),
        ("no-width.png", png(48, 0, 8, 2, np.zeros((48, 1), np.uint8)), ""),
        ("colour-type-9.png", png(48, 64, 8, 9, np.zeros((48, 64), np.uint8)), ""),
        ("depth-7.png", png(48, 64, 7, 0, np.zeros((48, 64), np.uint8)), ""),
        ("not-zlib.png", PNG_START + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"\xff" * 999) + end, "pixels"),
        ("no-header.png", PNG_START + png_chunk(b"IDAT", zlib.compress(b"\x00" * 999)) + end, ""),
        ("negative-length.png", PNG_START + b"\xff\xff\xff\xffIHDR" + header, "its header cannot be read"),
        ("profile-broken.png", profile, "its colour profile is damaged"),
        ("no-scan.jpg", encoded(noise(64, 64), "JPEG")[:200] + b"\xff\xd9", "cannot be read"),
        ("only-start.jpg", b"\xff\xd8\xff\xd9", "its header cannot be read"),
        ("marker-of-length-0.jpg", b"\xff\xd8\xff\xe1\x00\x00" + b"\x00" * 90, "its header cannot be read"),
        ("lying-length.webp", b"RIFF\xff\xff\xff\x7fWEBPVP8 " + b"\x00" * 90, "the file is cut short"),
        ("unknown-chunk.webp", b"RIFF\x40\x00\x00\x00WEBPEVIL" + b"\x00" * 60, "it begins with a chunk"),
    ):
        yield Kind(name, holds(content), reason=reason)


def _bombs() -> Iterator[Kind]:
    sound = encoded(scene(*SIZE))
    spaces = zlib.compress(b" " * 200_000_000, 9)
    jpeg = bytearray(encoded(scene(*SIZE), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    webp = b"VP8X" + struct.pack("<IBBH", 10, 0, 0, 0) + b"\xff\x3f\x00" + b"\xff\x3f\x00"
    for name, content, reason in (
        ("size-bomb.png", png_bomb(), "900.0 megapixels; at most"),
        ("size-bomb.jpg", bytes(jpeg), "4294.8 megapixels; at most"),
        ("size-bomb.webp", b"RIFF" + struct.pack("<I", len(webp) + 4) + b"WEBP" + webp, "megapixels; at most"),
        ("largest-numbers.png", png_bomb(2**31 - 1, 2**31 - 1), "megapixels; at most"),
        ("text-bomb.png", _with_chunk(sound, b"zTXt", b"Comment\x00\x00" + spaces), "its header cannot be read"),
        ("unicode-text-bomb.png", _with_chunk(sound, b"iTXt", b"C\x00\x01\x00\x00\x00" + spaces), "header cannot"),
        (
            "many-texts.png",
            _with_chunk(sound, b"tEXt", b"k\x00" + b"v" * 900_000, count=80),
            "its header cannot be read",
        ),
        ("endless.jpg", endless_jpeg(4096, 4096, num_scans=5000), "as a file does that is made to hold a machine up"),
    ):
        yield Kind(name, holds(content), reason=reason)
    yield Kind("half-a-terabyte.png", _half_a_terabyte, reason="the file has 549755813888 bytes; at most")


def _no_plain_files() -> Iterator[Kind]:
    def link_out(path: Path) -> None:
        outside = path.parent.parent / "outside.png"
        outside.write_bytes(encoded(scene(*SIZE)))
        path.symlink_to(outside)

    def listen(path: Path) -> None:
        # A socket's address must be short: it is made in the folder itself.
        before = Path.cwd()
        os.chdir(path.parent)
        try:
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(path.name)
        finally:
            os.chdir(before)

    yield Kind("link-out.png", link_out, reason="a link that leads out of the folder")
    yield Kind("link-to-nothing.png", lambda path: path.symlink_to("gone.png"), reason="not a plain file")
    yield Kind("link-to-itself.png", lambda path: path.symlink_to(path.name), reason="not a plain file")
    yield Kind("link-to-a-device.png", lambda path: path.symlink_to("/dev/zero"), reason="leads out of the folder")
    yield Kind("folder.png", Path.mkdir, reason="a folder with a picture's name")
    yield Kind("pipe.png", os.mkfifo, reason="it is a pipe, not a plain file")
    yield Kind("socket.png", listen, reason="it is a socket, not a plain file")
    yield Kind("locked.png", holds(encoded(scene(*SIZE))), reason="it cannot be read: Permission denied")


def _of_bad_names() -> Iterator[Kind]:
    for name in ("line\nbreak.png", "escape\x1b[2J.png", "separator\u2028.png"):
        yield Kind(name, holds(encoded(scene(*SIZE))), reason="control character: rename it", shown=ascii(name)[1:-1])
    name = os.fsdecode(b"caf\xe9.png")
    yield Kind(name, holds(encoded(scene(*SIZE))), reason="is not valid UTF-8", shown=ascii(name)[1:-1])


def flawed_kinds() -> Iterator[Kind]:
    """What the decoder of `hostile_child` fails over, in every way one can."""
    for flaw, reason in (
        ("spin", "decoding it takes more than 1 seconds of work"),
        ("eat", "MiB of memory"),
        ("segfault", "(SIGSEGV)"),
        ("abort", "(SIGABRT)"),
        ("killed", "(SIGKILL)"),
        ("exit", "(exit code 3)"),
        ("stumble", "LookupError: of a kind no decoder should raise"),
        ("babble", "decoding it ends the process that does so"),
        ("lie", "(it talks nonsense)"),
    ):
        text = PngInfo()
        text.add_text("Comment", f"flaw: {flaw}")
        yield Kind(f"flaw-{flaw}.png", holds(encoded(scene(*SIZE), pnginfo=text)), reason=reason)


def _half_a_terabyte(path: Path) -> None:
    with path.open("wb") as file:
        file.write(encoded(scene(*SIZE)))
        file.truncate(2**39)  # takes no room on the disk


def _with_chunk(content: bytes, kind: bytes, chunk: bytes, count: int = 1) -> bytes:
    """Return a PNG with more chunks before its pixels."""
    place = content.index(b"IDAT") - 4
    return content[:place] + png_chunk(kind, chunk) * count + content[place:]


def _changed(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


def _interlaced(height: int, width: int, share: float = 1.0) -> bytes:
    """Return a PNG in Adam7 order (PNG specification, 8.2), which Pillow cannot write."""
    pixels = np.asarray(scene(height, width))
    rows = []
    for top, left, down, across in (
        (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)
    ):  # fmt: skip
        rows += [b"\x00" + row.tobytes() for row in pixels[top::down, left::across]]
    raw = b"".join(rows)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(raw[: int(share * len(raw))])), (b"IEND", b""))
    return PNG_START + b"".join(png_chunk(kind, content) for kind, content in chunks)
