"""Bytes from strangers: every broken or hostile file is refused with its reason, before it costs anything."""

import contextlib
import os
import re
import struct
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imagesets.decoding import decode, picture_format
from imagesets.errors import PictureError
from imagesets.pictures import examine_picture
from tests.imagesets.making import MAX_PIXELS, encoded, noise, orientation_exif, png_bomb, png_chunk, scene

KINDS = ["PNG", "JPEG", "WEBP"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty (0 bytes)"),
        (b"A star on a hill.", "it holds no JPEG, PNG or WebP picture: it begins with b'A star on a '"),
        (b"\n<!DOCTYPE html><html>404", "it holds no JPEG, PNG or WebP picture, but a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "but a pointer of Git LFS: fetch the file"),
        (encoded(scene(), "GIF"), "but a GIF file: convert it to PNG"),
        (encoded(scene(), "BMP"), "but a BMP file: convert it to PNG"),
        (encoded(scene().convert("LAB"), "TIFF"), "but a TIFF file: convert it to PNG"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "but a HEIC, AVIF or video file"),
        (encoded(Image.new("L", (1, 1))), "it is 1 x 1 (height x width); both sides need at least 8 px"),
        (encoded(Image.new("L", (1000, 10))), "it is 10 x 1000 (height x width), one side more than 20 times"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 40, "its header cannot be read"),
        (b"\xff\xd8\xff\xe0\x00", "its header cannot be read"),
        (b"RIFF\x04\x00\x00\x00WEBP", "its header cannot be read"),
    ],
)
def test_what_is_no_sound_picture_is_refused_with_the_reason(content: bytes, reason: str) -> None:
    with pytest.raises(PictureError, match=re.escape(reason)):
        decode(content, MAX_PIXELS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_a_file_that_is_cut_short_is_refused(kind: str, share: float) -> None:
    content = encoded(noise(200, 200), kind)
    with pytest.raises(PictureError, match="cut short"):
        decode(content[: int(len(content) * share)], MAX_PIXELS)
    decode(content, MAX_PIXELS)


def test_a_wrong_checksum_is_refused() -> None:
    content = bytearray(encoded(noise(64, 64)))
    start = content.index(b"IDAT") + 4
    (length,) = struct.unpack_from(">I", content, start - 8)
    content[start + length] ^= 1
    with pytest.raises(PictureError, match="its pixels cannot be read"):
        decode(bytes(content), MAX_PIXELS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_says_another_format_is_refused(kind: str) -> None:
    content = encoded(scene(), kind)
    right = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}
    for other, extension in right.items():
        if other == kind:
            decode(content, MAX_PIXELS, extension)
            continue
        reason = f"it is a {kind} picture whose name ends in {extension}: rename it to {right[kind]}"
        with pytest.raises(PictureError, match=re.escape(reason)):
            decode(content, MAX_PIXELS, extension)


def webp_bomb() -> bytes:
    """Return a WebP header that claims 16384 x 16384."""
    chunk = b"VP8X" + struct.pack("<IBBH", 10, 0, 0, 0) + b"\xff\x3f\x00" + b"\xff\x3f\x00"
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


@pytest.mark.parametrize("content", [png_bomb(), webp_bomb()], ids=["png", "webp"])
def test_an_enormous_picture_is_refused_before_its_pixels_cost_memory(content: bytes) -> None:
    assert len(content) < 200
    tracemalloc.start()
    with pytest.raises(PictureError, match=r"megapixels; at most 64 are read: .*data\.max_megapixels"):
        decode(content, MAX_PIXELS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_the_limit_is_the_callers_and_exact() -> None:
    content = encoded(scene(48, 64))
    decode(content, 48 * 64)
    with pytest.raises(PictureError, match=r"it is 48 x 64 \(height x width\)"):
        decode(content, 48 * 64 - 1)


def test_pictures_above_pillows_own_limit_are_read_where_the_caller_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # warns above it, and warnings are errors here
    for kind in KINDS:
        assert decode(encoded(scene(), kind), MAX_PIXELS).size == (64, 48)


@pytest.mark.parametrize("kind", ["VP8 ", "VP8L", "VP8X"])
def test_webp_sizes_are_read_from_all_three_headers(kind: str) -> None:
    options = {"VP8 ": {}, "VP8L": {"lossless": True}, "VP8X": {"exif": orientation_exif(1)}}[kind]
    content = encoded(scene(40, 72), "WEBP", **options)
    assert content[12:16] == kind.encode()
    decode(content, 40 * 72)
    with pytest.raises(PictureError, match="it is 40 x 72"):
        decode(content, 40 * 72 - 1)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_used_and_it_is_known(kind: str) -> None:
    frames = [Image.new("RGB", (32, 16), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, **options)
    assert examine_picture(content, MAX_PIXELS).num_frames == 3
    assert decode(content, MAX_PIXELS).convert("RGB").getpixel((5, 5)) == (255, 0, 0)
    assert examine_picture(encoded(frames[0], kind), MAX_PIXELS).num_frames == 1


def test_a_phones_multi_picture_jpeg_is_a_jpeg_of_one_frame() -> None:
    pictures = [scene(), scene().rotate(180)]
    content = encoded(pictures[0], "MPO", save_all=True, append_images=pictures[1:])
    facts = examine_picture(content, MAX_PIXELS, ".jpg")
    assert (facts.format, facts.num_frames, facts.size) == ("JPEG", 1, (48, 64))


def test_text_chunks_that_unpack_to_very_much_are_refused() -> None:
    sound = encoded(scene())
    end = sound.index(b"IDAT") - 4
    bomb = png_chunk(b"zTXt", b"Comment\x00\x00" + zlib.compress(b" " * 200_000_000, 9))
    with pytest.raises(PictureError, match="its header cannot be read"):
        decode(sound[:end] + bomb + sound[end:], MAX_PIXELS)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KINDS), st.data())
def test_no_damage_raises_anything_but_a_reason(kind: str, data: st.DataObject) -> None:
    content = bytearray(encoded(noise(24, 24), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(PictureError):
        examine_picture(bytes(content), MAX_PIXELS)


@given(st.binary(max_size=64))
def test_random_bytes_are_no_picture(content: bytes) -> None:
    if not content.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")):  # what a format is known by
        with pytest.raises(PictureError):
            picture_format(content)
    with pytest.raises(PictureError):
        decode(content + os.urandom(8), MAX_PIXELS)
