"""Every colour mode that JPEG, PNG and WebP come in, to 8-bit sRGB."""

import re

import numpy as np
import pytest
from PIL import Image, ImageCms

from imagesets.colours import parse_colour
from imagesets.errors import PictureError
from imagesets.pictures import examine_picture, open_picture
from tests.imagesets.making import MAX_PIXELS, WHITE, encoded, png, scene

GREEN = (0, 200, 40)


def pixels(content: bytes, background: tuple[int, int, int] = WHITE) -> np.ndarray:
    picture = open_picture(content, background, MAX_PIXELS)
    assert picture.mode == "RGB"
    return np.asarray(picture)


def test_rgb_is_left_as_it_is() -> None:
    assert np.array_equal(pixels(encoded(scene())), np.asarray(scene()))


def test_grey_becomes_three_equal_channels() -> None:
    grey = scene().convert("L")
    for kind in ("PNG", "JPEG"):
        shown = pixels(encoded(grey, kind, **({"quality": 100} if kind == "JPEG" else {})))
        assert np.array_equal(shown[:, :, 0], shown[:, :, 1])
        assert np.abs(shown[:, :, 0].astype(int) - np.asarray(grey)).max() <= 2


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 16 * 16).reshape(16, 16).astype(np.uint16)
    shown = pixels(encoded(Image.fromarray(values)))
    assert np.array_equal(shown[:, :, 0], np.round(values / 257).astype(np.uint8))
    assert shown.min() == 0
    assert shown.max() == 255
    assert 120 < shown.mean() < 135  # `convert` alone gives 254


def test_16_bit_colour_keeps_its_high_byte() -> None:
    values = (np.arange(16 * 16 * 3).reshape(16, 16, 3) * 85).astype(">u2")
    shown = pixels(png(16, 16, 16, 2, values.reshape(16, -1)))
    assert np.abs(shown - values.astype(float) / 257).max() <= 1.0


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_sub_byte_greys_reach_white(depth: int) -> None:
    rows = np.full((16, 2 * depth), 0b00011011 if depth == 2 else 0x0F, np.uint8)
    shown = pixels(png(16, 16, depth, 0, rows))
    assert shown.min() == 0
    assert shown.max() == 255


def test_rgba_lies_on_the_stated_background_in_proportion_to_its_alpha() -> None:
    picture = np.zeros((16, 16, 4), np.uint8)
    picture[..., 0] = 255
    picture[:, :, 3] = np.arange(16) * 17
    shown = pixels(encoded(Image.fromarray(picture)), background=(0, 0, 255))
    alpha = np.arange(16) * 17 / 255
    assert np.abs(shown[0, :, 0] - 255 * alpha).max() <= 1
    assert np.abs(shown[0, :, 2] - 255 * (1 - alpha)).max() <= 1


def test_what_is_hidden_under_full_transparency_does_not_show() -> None:
    picture = np.zeros((16, 16, 4), np.uint8)
    picture[:, :, :3] = (255, 0, 0)
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True})):
        shown = pixels(encoded(Image.fromarray(picture), kind, **options), background=GREEN)
        assert (shown == GREEN).all(), kind


def test_grey_with_alpha() -> None:
    grey, alpha = Image.new("L", (16, 16), 80), Image.new("L", (16, 16), 0)
    alpha.paste(255, (0, 0, 8, 16))
    shown = pixels(encoded(Image.merge("LA", [grey, alpha])), background=GREEN)
    assert (shown[:, :8] == 80).all()
    assert (shown[:, 8:] == GREEN).all()


def palette_picture(**options: object) -> bytes:
    indices = np.zeros((16, 16), np.uint8)
    indices[:, 4:8], indices[:, 8:] = 1, 2
    picture = Image.fromarray(indices)
    picture.putpalette([255, 0, 0, 0, 255, 0, 10, 20, 30])
    return encoded(picture, **options)


def test_a_palette_is_looked_up() -> None:
    shown = pixels(palette_picture())
    assert shown[0, [0, 4, 8]].tolist() == [[255, 0, 0], [0, 255, 0], [10, 20, 30]]


def test_a_palettes_transparency_by_one_index_and_by_shares() -> None:
    shown = pixels(palette_picture(transparency=1), background=(0, 0, 99))
    assert shown[0, [0, 4, 8]].tolist() == [[255, 0, 0], [0, 0, 99], [10, 20, 30]]
    shown = pixels(palette_picture(transparency=bytes([0, 255, 128])), background=(110, 120, 130))
    assert shown[0, [0, 4]].tolist() == [[110, 120, 130], [0, 255, 0]]
    assert np.abs(shown[0, 8].astype(int) - [60, 70, 80]).max() <= 1


@pytest.mark.parametrize(
    ("depth", "rows", "transparent", "expected"),
    [
        (8, np.repeat(np.array([[7, 8] * 8], np.uint8), 16, axis=0), b"\x00\x07", [GREEN, (8, 8, 8)]),
        (4, np.full((16, 8), 0x7F, np.uint8), b"\x00\x07", [GREEN, (255, 255, 255)]),
        (2, np.full((16, 4), 0b01110111, np.uint8), b"\x00\x01", [GREEN, (255, 255, 255)]),
        (1, np.full((16, 2), 0b01010101, np.uint8), b"\x00\x01", [(0, 0, 0), GREEN]),
        (16, np.full((16, 16), [300, 65535] * 8, ">u2"), b"\x01\x2c", [GREEN, (255, 255, 255)]),
    ],
)
def test_one_grey_that_stands_for_transparent(
    depth: int, rows: np.ndarray, transparent: bytes, expected: list[tuple[int, int, int]]
) -> None:
    content = png(16, 16, depth, 0, rows, transparent)
    assert [tuple(pixel) for pixel in pixels(content, background=GREEN)[3, :2].tolist()] == expected
    assert examine_picture(content, MAX_PIXELS).has_alpha


@pytest.mark.parametrize("depth", [8, 16])
def test_one_colour_that_stands_for_transparent(depth: int) -> None:
    kind = ">u2" if depth == 16 else "u1"
    scale = 257 if depth == 16 else 1
    row = np.array([1, 2, 3, 9, 9, 9] * 8) * scale
    rows = np.repeat(row.astype(kind)[None], 16, axis=0)
    transparent = (np.array([1, 2, 3]) * scale).astype(">u2").tobytes()
    shown = pixels(png(16, 16, depth, 2, rows, transparent), background=GREEN)
    assert shown[0, 0].tolist() == list(GREEN)
    assert shown[0, 1].tolist() == [9, 9, 9]


def test_cmyk_is_converted_not_taken_for_something_else() -> None:
    inks = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # magenta and yellow: red
    shown = pixels(encoded(inks, "JPEG", quality=100))
    assert np.abs(shown.astype(int) - (255, 0, 0)).max() <= 3
    paper = Image.new("CMYK", (16, 16), (0, 0, 0, 0))
    assert pixels(encoded(paper, "JPEG", quality=100)).min() >= 252


def swapped_profile() -> bytes:
    """Return a profile like sRGB in which red and green have changed places, so that its effect is unmistakable."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    named = profile.replace("sRGB".encode("utf-16-be"), "odd!".encode("utf-16-be")).replace(
        b"sRGB built", b"odd! built"
    )
    return bytes(named)


def test_an_embedded_colour_profile_is_honoured() -> None:
    red = Image.new("RGB", (16, 16), (255, 0, 0))
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 100})):
        shown = pixels(encoded(red, kind, icc_profile=swapped_profile(), **options))
        assert np.abs(shown.astype(int) - (0, 255, 0)).max() <= 4, kind
    half = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    half.paste((255, 0, 0, 255), (0, 0, 8, 16))
    shown = pixels(encoded(half, icc_profile=swapped_profile()), background=(0, 0, 255))
    assert np.abs(shown[0, 0].astype(int) - (0, 255, 0)).max() <= 2
    assert shown[0, 15].tolist() == [0, 0, 255]  # the background is stated in sRGB


def test_a_profile_for_other_pixels_is_passed_over_and_a_damaged_one_said() -> None:
    grey = Image.new("L", (16, 16), 100)
    assert (pixels(encoded(grey, icc_profile=swapped_profile())) == 100).all()
    with pytest.raises(PictureError, match="its colour profile is damaged"):
        pixels(encoded(scene(), icc_profile=b"not a profile"))


def test_colours_are_read_as_the_recipe_writes_them() -> None:
    assert parse_colour("#ff8000") == (255, 128, 0)


@pytest.mark.parametrize("text", ["", "white", "#fff", "ff8000", "#gg0000", "#ff80000", "#ff 80 0"])
def test_what_is_no_colour_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{text!r} is no colour; write it as '#rrggbb'")):
        parse_colour(text)
