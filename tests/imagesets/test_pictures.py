"""From bytes to upright RGB, and from that to a frame: every pixel is where the frame says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imagesets.errors import PictureError
from imagesets.framing import Frame, make_frame
from imagesets.pictures import examine_picture, exif_orientation, open_picture, render, render_small
from tests.imagesets.making import MAX_PIXELS, WHITE, encoded, noise, orientation_exif, scene

UNDO = {
    1: lambda picture: picture,
    2: lambda picture: picture[:, ::-1],
    3: lambda picture: picture[::-1, ::-1],
    4: lambda picture: picture[::-1],
    5: lambda picture: picture.transpose(1, 0, 2),
    6: lambda picture: np.rot90(picture, 1),
    7: lambda picture: np.rot90(picture, 2).transpose(1, 0, 2),
    8: lambda picture: np.rot90(picture, -1),
}
"""How a camera stores an upright picture under each orientation: the inverse of what a viewer does (EXIF 2.32)."""


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_picture_to_be_looked_at_is_the_picture_made_small(kind: str, orientation: int) -> None:
    picture = scene(400, 640).resize((1280, 800))
    content = encoded(picture, kind, quality=95, exif=orientation_exif(orientation))
    upright = open_picture(content, WHITE, MAX_PIXELS)
    size = (upright.height // 10, upright.width // 10)
    small = render_small(content, WHITE, MAX_PIXELS, size)
    reference = np.asarray(upright.resize((size[1], size[0]), Image.Resampling.BOX), np.int16)
    assert small.shape == (*size, 3)
    assert np.abs(small - reference).mean() < 6.0
    assert np.abs(small[:, ::-1] - reference).mean() > 12.0, "a mirrored one would not pass"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(orientation: int, kind: str) -> None:
    upright = np.asarray(scene(48, 64))
    stored = Image.fromarray(np.ascontiguousarray(UNDO[orientation](upright)))
    options = {"PNG": {}, "JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}[kind]
    content = encoded(stored, kind, exif=orientation_exif(orientation), **options)

    picture = open_picture(content, WHITE, MAX_PIXELS)
    difference = np.abs(np.asarray(picture).astype(int) - upright)
    assert difference.max() <= (12 if kind == "JPEG" else 0)
    facts = examine_picture(content, MAX_PIXELS)
    assert facts.size == (48, 64)
    assert facts.orientation == orientation
    assert facts.format == kind


def test_a_marked_corner_lies_where_a_viewer_shows_it() -> None:
    """Orientation 6 by hand: a camera held upright; the stored picture's left bottom corner is the shown left top."""
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[-4:, :4] = (255, 0, 0)
    shown = np.asarray(open_picture(encoded(Image.fromarray(stored), exif=orientation_exif(6)), WHITE, MAX_PIXELS))
    assert shown.shape == (32, 16, 3)
    assert shown[0, 0].tolist() == [255, 0, 0]
    assert shown[:4, :4].sum() == shown.sum()


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\x00\x00", b"II*\x00", b"MM\x00*\xff\xff\xff\xff", b"II*\x00\x08\x00\x00\x00\xff\xff"]
)
def test_damaged_exif_counts_as_upright(exif: bytes) -> None:
    assert exif_orientation(exif) == 1


@given(st.binary(max_size=200))
def test_no_exif_data_makes_the_reader_stumble(exif: bytes) -> None:
    assert 1 <= exif_orientation(b"II*\x00" + exif) <= 8


def test_both_byte_orders_and_kinds_of_number_are_read() -> None:
    little = b"II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00"
    big = b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x04\x00\x00\x00\x01\x00\x00\x00\x08"
    assert exif_orientation(little) == 6
    assert exif_orientation(b"Exif\x00\x00" + big) == 8
    assert exif_orientation(little.replace(b"\x06", b"\x09")) == 1


def test_a_frame_is_resized_cut_and_mirrored_as_pillow_would_whole() -> None:
    # Contrast is halved: between its two passes Pillow clips what overshoots, and their order is its own affair.
    picture = Image.fromarray(np.asarray(noise(150, 100)) // 2 + 64)
    for flipped in (False, True):
        frame = make_frame((150, 100), (64, 64), "center", flipped=flipped)
        whole = picture.resize((64, 96), Image.Resampling.LANCZOS).crop((0, 16, 64, 80))
        expected = np.asarray(whole)[:, ::-1] if flipped else np.asarray(whole)
        pixels = render(picture, frame)
        assert pixels.dtype == np.uint8
        assert pixels.shape == (64, 64, 3)
        assert np.abs(pixels.astype(int) - expected).max() <= 1


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(60, 300), st.integers(60, 300)),
    st.sampled_from([(64, 64), (48, 96), (96, 48)]),
    st.sampled_from(["center", "random"]),
    st.booleans(),
    st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0)),
    st.integers(0, 5),
)
def test_a_mark_follows_the_frame_through_resize_cut_and_flip(
    size: tuple[int, int],
    bucket: tuple[int, int],
    crop: str,
    flipped: bool,
    place: tuple[float, float],
    key: int,
) -> None:
    """The conditioning's promise: in the resized (and mirrored) picture, the cut begins at crop_top_left."""
    frame = make_frame(size, bucket, crop, flipped=flipped, key=(key,))
    # A mark somewhere in what is kept, given by where it is to appear.
    row, column = (round(4 + part * (side - 9)) for part, side in zip(place, bucket, strict=True))
    in_resized = (row + frame.crop_top_left[0], column + frame.crop_top_left[1])
    if flipped:
        in_resized = (in_resized[0], frame.resized_size[1] - 1 - in_resized[1])
    centre = [(at + 0.5) * size[axis] / frame.resized_size[axis] - 0.5 for axis, at in enumerate(in_resized)]
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    spread = 2.0 * max(size[0] / frame.resized_size[0], 1.0)
    bump = 255 * np.exp(-((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / (2 * spread**2))
    picture = Image.fromarray(np.repeat(bump.round().astype(np.uint8)[:, :, None], 3, axis=2))

    shown = render(picture, frame)[:, :, 0].astype(float)
    peak = np.unravel_index(shown.argmax(), shown.shape)
    weights = shown / shown.sum()
    found = ((weights.sum(1) * np.arange(bucket[0])).sum(), (weights.sum(0) * np.arange(bucket[1])).sum())
    assert shown[peak] > 200
    assert abs(peak[0] - row) <= 1
    assert abs(peak[1] - column) <= 1
    if min(row, column, bucket[0] - row, bucket[1] - column) > 16:  # no part of the mark is cut away
        assert found == pytest.approx((row, column), abs=0.3)


def test_flipping_mirrors_the_pixels_of_the_same_cut() -> None:
    picture = noise(97, 203)
    for crop in ("center", "random"):
        straight = render(picture, make_frame((97, 203), (64, 64), crop, flipped=False, key=(1,)))
        flipped = render(picture, make_frame((97, 203), (64, 64), crop, flipped=True, key=(1,)))
        assert np.array_equal(flipped, straight[:, ::-1])


def test_a_picture_of_its_buckets_size_is_left_as_it_is() -> None:
    picture = noise(64, 96)
    assert np.array_equal(render(picture, make_frame((64, 96), (64, 96), "center")), np.asarray(picture))


def test_shrinking_is_antialiased() -> None:
    """A chequerboard of single pixels becomes an even grey, not a pattern."""
    board = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
    picture = Image.fromarray(np.repeat(board[:, :, None], 3, axis=2))
    grey = render(picture, make_frame((256, 256), (64, 64), "center"))
    assert grey.min() >= 120
    assert grey.max() <= 135


def test_a_very_long_picture_is_not_resized_whole() -> None:
    """Resized to cover a square it would be 20480 pixels long; only the cut's share is computed."""
    picture = scene(32, 640)
    frame = make_frame((32, 640), (1024, 1024), "center")
    assert frame.resized_size == (1024, 20480)
    assert render(picture, frame).shape == (1024, 1024, 3)


def test_a_frame_of_another_picture_is_refused() -> None:
    with pytest.raises(PictureError, match=r"it is now 48 x 64 \(height x width\), and was 64 x 48"):
        render(scene(48, 64), make_frame((64, 48), (64, 64), "center"))


def test_frames_are_taken_at_their_word() -> None:
    """The cut is the frame's, not one worked out anew."""
    picture = noise(64, 128)
    corner = Frame((64, 128), (64, 128), (0, 64), (64, 64), flipped=False)
    assert np.array_equal(render(picture, corner), np.asarray(picture)[:, 64:])
