"""A mask goes its picture's way: opened upright, resized, cut and mirrored with it, never lighter or darker."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imagesets.errors import PictureError
from imagesets.framing import Frame, make_frame
from imagesets.masks import FileMask, SampleMask
from imagesets.opening.decoders import shared_decoders
from imagesets.pictures import examine_mask, examine_picture, open_mask, open_picture, open_transparency, render
from imagesets.pictures import render_mask as in_frame
from imagesets.samples import Sample
from tests.imagesets.making import MAX_PIXELS, encoded, png, scene

SIDES = st.integers(24, 90)
EXIF_ORIENTATION = 0x0112


@pytest.mark.parametrize(
    ("mask", "picture", "expected"),
    [
        (FileMask(), "a.png", "a-masklabel.png"),
        (FileMask(), "b.c/a.b.jpg", "b.c/a.b-masklabel.png"),
        (FileMask(ending=".mask.png"), "sub/a.jpeg", "sub/a.mask.png"),
        (FileMask(folder=Path("masks")), "sub/a.webp", "sub/a.png"),
        (FileMask(folder=Path("masks"), ending=".webp"), "a.webp", "a.webp"),
        (FileMask(), "sub.d/a", "sub.d/a-masklabel.png"),
    ],
)
def test_a_mask_is_named_after_its_picture(mask: FileMask, picture: str, expected: str) -> None:
    assert mask.name_for(picture) == expected
    assert mask.may_name(expected) == (mask.folder is None)
    assert not mask.may_name(picture)


def grey(levels: object, mode: str = "L") -> Image.Image:
    return Image.fromarray(np.asarray(levels, np.uint8)).convert(mode)


def test_a_masks_levels_are_its_greys_or_its_transparency() -> None:
    levels = np.random.default_rng(0).integers(0, 256, (9, 12), dtype=np.uint8)
    see_through = Image.merge("RGBA", [grey(levels[::-1])] * 3 + [grey(levels)])
    opaque = Image.merge("RGBA", [grey(levels)] * 3 + [grey(np.full_like(levels, 255))])
    indices = np.where(levels > 99, 1, 0).astype(np.uint8)
    palette = Image.fromarray(indices, "P")
    palette.putpalette([0, 0, 0, 255, 255, 255])
    cases = [
        (grey(levels), levels),
        (grey(levels, "RGB"), levels),
        (see_through, levels),
        (opaque, levels),
        (Image.fromarray(levels.astype(np.uint16) * 257), levels),  # 16 bits
        (palette, indices * 255),
        (grey(np.where(levels > 99, 255, 0)).convert("1"), indices * 255),
    ]
    for picture, expected in cases:
        found = open_mask(encoded(picture), MAX_PIXELS)
        assert np.array_equal(np.asarray(found), expected), picture.mode
        facts = examine_mask(encoded(picture), MAX_PIXELS)
        assert facts.size == (9, 12)
        assert facts.share == pytest.approx(expected.astype(np.float64).mean() / 255, rel=1e-12)


def test_a_profile_does_not_change_a_masks_amounts() -> None:
    from PIL import ImageCms

    linear = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    half = grey(np.full((8, 8), 128))
    content = encoded(half, icc_profile=linear)
    assert np.asarray(open_mask(content, MAX_PIXELS)).min() == 128


def test_how_opaque_a_picture_is() -> None:
    levels = np.random.default_rng(1).integers(0, 256, (16, 16), dtype=np.uint8)
    picture = scene(16, 16)
    picture.putalpha(grey(levels))
    facts = examine_picture(encoded(picture), MAX_PIXELS)
    assert facts.opacity == pytest.approx(levels.astype(np.float64).mean() / 255, rel=1e-12)
    assert examine_picture(encoded(scene(16, 16)), MAX_PIXELS).opacity == 1.0
    assert np.array_equal(np.asarray(open_transparency(encoded(picture), MAX_PIXELS)), levels)
    with pytest.raises(PictureError, match="it has no transparency"):
        open_transparency(encoded(scene(16, 16)), MAX_PIXELS)
    one_colour = png(8, 8, 8, 0, np.arange(64, dtype=np.uint8).reshape(8, 8), transparent=b"\x00\x07")
    assert examine_picture(one_colour, MAX_PIXELS).opacity == pytest.approx(63 / 64, rel=1e-12)


@given(size=st.tuples(SIDES, SIDES), bucket=st.tuples(st.sampled_from([32, 64]), st.sampled_from([32, 48])),
       flipped=st.booleans(), seed=st.integers(0, 99))  # fmt: skip
def test_a_mask_in_its_frame_is_neither_lighter_nor_darker(size, bucket, flipped: bool, seed: int) -> None:
    frame = make_frame(size, bucket, "random", flipped=flipped, key=(seed,))
    white = in_frame(grey(np.full(size, 255)), frame)
    assert white.shape == bucket
    assert white.min() == 255  # exactly: a mask of ones is no mask
    assert in_frame(grey(np.zeros(size)), frame).max() == 0
    levels = np.random.default_rng(seed).integers(60, 200, size, dtype=np.uint8)
    found = in_frame(grey(levels), frame)
    assert levels.min() <= found.min() <= found.max() <= levels.max()
    mirrored = in_frame(grey(levels[:, ::-1]), replace(frame, flipped=not flipped))
    assert np.abs(mirrored.astype(int) - found).max() <= 1  # a mirrored mask of the mirrored cut: the same


@given(
    upright=st.tuples(SIDES, SIDES),
    orientation=st.integers(1, 8),
    bucket=st.tuples(st.sampled_from([32, 48, 64]), st.sampled_from([32, 48, 64])),
    crop=st.sampled_from(["center", "random"]),
    flipped=st.booleans(),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    mask_scale=st.sampled_from([1, 2]),
    is_alpha=st.booleans(),
    seed=st.integers(0, 999),
)
def test_a_mark_stays_under_its_mask_and_where_the_time_ids_say(
    upright, orientation, bucket, crop, flipped, place, mask_scale, is_alpha, seed: int
) -> None:
    """A white block on black goes through orientation, resize, crop and flip with a mask of the same block."""
    side = 9
    top, left = (round(share * (length - side)) for share, length in zip(place, upright, strict=True))
    mark = np.zeros(upright, np.uint8)
    mark[top : top + side, left : left + side] = 255
    content = stored(grey(mark, "RGB"), grey(mark) if is_alpha else None, orientation)
    picture = open_picture(content, (0, 0, 0), MAX_PIXELS)
    assert (picture.height, picture.width) == upright

    if is_alpha:
        levels = open_transparency(content, MAX_PIXELS)
    else:  # of another size, as a program that cuts things out gives it, and turned otherwise than the picture
        large = np.kron(mark, np.ones((mask_scale, mask_scale), np.uint8))
        levels = open_mask(stored(grey(large), None, 1 + seed % 8), MAX_PIXELS)
    frame = make_frame(upright, bucket, crop, flipped=flipped, key=(seed,))
    pixels, mask = render(picture, frame), in_frame(levels, frame)
    assert mask.shape == bucket == pixels.shape[:2]

    # Where six time ids alone say that the mark is: (h, w) before, (top, left) of the crop, (h, w) after.
    height, width, crop_top, crop_left, target_height, target_width = frame.add_time_ids()
    assert (target_height, target_width) == bucket
    scale = frame.resized_size[0] / height, frame.resized_size[1] / width
    shown_left = width - left - side if flipped else left  # in the mirrored picture, as the crop's left is
    begin = np.array([top * scale[0] - crop_top, shown_left * scale[1] - crop_left])
    end = begin + np.array([side * scale[0], side * scale[1]])
    expected = covered(begin, end, bucket)

    # A filter blurs an edge as far as it reaches: what is farther inside is white, what is farther outside is black.
    reach = [3 * max(1.0, each) for each in scale]  # Lanczos has three lobes; the mask's triangle reaches one
    inside = covered(begin + reach, end - reach, bucket) == 1
    outside = covered(begin - reach, end + reach, bucket) == 0
    for found in (mask, pixels.min(axis=-1)):
        assert found[inside].min(initial=255) >= 250
        assert found[outside].max(initial=0) <= 5

    # On the latents' grid, the mean of each 8 x 8 of the mask is the mark's share of it, and lies where the picture's
    # own light does.
    def on_grid(values: np.ndarray) -> np.ndarray:
        return values.reshape(bucket[0] // 8, 8, bucket[1] // 8, 8).astype(np.float64).mean(axis=(1, 3))

    blur = 0.05 * max(1.0, *scale)
    assert np.abs(on_grid(mask / 255) - on_grid(expected)).max() <= blur
    assert np.abs(on_grid(mask / 255) - on_grid(pixels.min(axis=-1) / 255)).max() <= 2 * blur


def stored(picture: Image.Image, alpha: Image.Image | None, orientation: int) -> bytes:
    """Return the file of a picture that is as given when it is turned upright."""
    if alpha is not None:
        picture.putalpha(alpha)
    lies = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # what Pillow's transposes undo each orientation's
    if orientation > 1:
        picture = picture.transpose(Image.Transpose(lies[orientation]))
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    return encoded(picture, exif=exif)


def covered(begin: np.ndarray, end: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return how much of each pixel, (height, width), lies in the block between two places (down, across)."""
    spans = []
    for first, last, length in zip(begin, end, size, strict=True):
        places = np.arange(length)
        spans.append(np.clip(np.minimum(last, places + 1) - np.maximum(first, places), 0, 1))
    return spans[0][:, None] * spans[1][None, :]


def sample_with(content: bytes, mask: SampleMask, size: tuple[int, int]) -> Sample:
    facts = examine_picture(content, MAX_PIXELS)
    return Sample("a.png", "set", hashlib.sha256(content).hexdigest(), size, "", 1, facts, lambda: content, mask=mask)


@pytest.mark.parametrize("is_alpha", [True, False])
def test_a_mask_is_read_alike_here_and_in_another_process_and_a_changed_one_is_refused(is_alpha: bool) -> None:
    picture = scene(40, 56)
    levels = np.random.default_rng(2).integers(0, 256, (40, 56), dtype=np.uint8)
    picture.putalpha(grey(levels))
    content = encoded(picture)
    source = content if is_alpha else encoded(grey(levels))
    mask = SampleMask(0.0, 0.5, None if is_alpha else "a-mask.png", hashlib.sha256(source).hexdigest(), lambda: source)
    sample = sample_with(content, mask, (40, 56))
    frame = Frame((40, 56), (32, 45), (0, 5), (32, 32), flipped=True)
    here = sample.render_mask(frame)
    there = replace(sample, decoders=shared_decoders(MAX_PIXELS)).render_mask(frame)
    assert here is not None
    assert there is not None
    assert here.shape == (32, 32)
    assert np.array_equal(here, there)
    assert np.array_equal(here, in_frame(grey(levels), frame))
    changed = replace(sample, mask=replace(mask, sha256="00" * 32))
    named = "a.png: it was changed" if is_alpha else "a.png: its mask a-mask.png: it was changed"
    for decoders in (None, shared_decoders(MAX_PIXELS)):
        with pytest.raises(PictureError, match=named):
            replace(changed, decoders=decoders).render_mask(frame)
    assert replace(sample, mask=None).render_mask(frame) is None
