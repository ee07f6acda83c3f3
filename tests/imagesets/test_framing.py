"""Frames over all sizes, crops and flips: what SDXL is told is where the pixels are."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesets.buckets import PAPER_BUCKETS, Size, assign_bucket, symmetric_buckets
from imagesets.framing import Frame, cover, make_frame

SIDES = st.integers(1, 12_000)
SIZES = st.tuples(SIDES, SIDES)
BUCKETS = st.sampled_from(symmetric_buckets())
CROPS = st.sampled_from(["center", "random"])
KEYS = st.tuples(st.integers(0, 9), st.just("crop"), st.integers(0, 9))


def test_the_case_others_get_wrong() -> None:
    """A picture 1000 wide and 1500 high into 1024 x 1024, from the centre."""
    frame = make_frame((1500, 1000), (1024, 1024), "center")
    assert frame.original_size == (1500, 1000)
    assert frame.resized_size == (1536, 1024)
    assert frame.crop_top_left == (256, 0)
    assert frame.add_time_ids() == (1500, 1000, 256, 0, 1024, 1024)


def test_its_mirror_in_landscape_by_hand() -> None:
    frame = make_frame((1000, 1502), (1024, 1024), "center")
    assert frame.resized_size == (1024, 1538)  # 1538.048
    assert frame.add_time_ids() == (1000, 1502, 0, 257, 1024, 1024)
    assert make_frame((1000, 1503), (1024, 1024), "center").resized_size == (1024, 1539)  # 1539.07


def test_an_odd_slack_is_mirrored_when_flipped() -> None:
    straight = make_frame((1000, 1503), (1024, 1024), "center")
    flipped = make_frame((1000, 1503), (1024, 1024), "center", flipped=True)
    assert straight.crop_top_left == (0, 257)
    assert flipped.crop_top_left == (0, 258)  # 1539 - 1024 - 257
    assert flipped.crop_box == straight.crop_box == (257, 0, 257 + 1024, 1024)


@given(SIZES, BUCKETS, CROPS, st.booleans(), KEYS)
def test_time_ids_are_exact_whole_numbers_in_the_papers_order(
    size: Size, bucket: Size, crop: str, flipped: bool, key: tuple[Any, ...]
) -> None:
    ids = make_frame(size, bucket, crop, flipped=flipped, key=key).add_time_ids()
    assert all(type(number) is int for number in ids)
    assert ids[:2] == size
    assert ids[4:] == bucket


@given(SIZES, BUCKETS, CROPS, st.booleans(), KEYS)
def test_the_cut_is_of_the_buckets_size_and_lies_inside_the_resized_picture(
    size: Size, bucket: Size, crop: str, flipped: bool, key: tuple[Any, ...]
) -> None:
    frame = make_frame(size, bucket, crop, flipped=flipped, key=key)
    left, top, right, bottom = frame.crop_box
    assert (bottom - top, right - left) == bucket
    assert 0 <= left < right <= frame.resized_size[1]
    assert 0 <= top < bottom <= frame.resized_size[0]


@given(SIZES, BUCKETS)
def test_the_resize_is_the_smallest_that_covers_the_bucket_with_the_aspect_kept(size: Size, bucket: Size) -> None:
    resized = cover(size, bucket)
    assert resized[0] >= bucket[0]
    assert resized[1] >= bucket[1]
    assert resized[0] == bucket[0] or resized[1] == bucket[1]
    scale = max(Fraction(bucket[0], size[0]), Fraction(bucket[1], size[1]))
    assert abs(resized[0] - size[0] * scale) <= Fraction(1, 2)
    assert abs(resized[1] - size[1] * scale) <= Fraction(1, 2)


@given(SIZES, BUCKETS, CROPS, KEYS)
def test_flipping_mirrors_the_offset_and_leaves_the_cut(
    size: Size, bucket: Size, crop: str, key: tuple[Any, ...]
) -> None:
    straight = make_frame(size, bucket, crop, flipped=False, key=key)
    flipped = make_frame(size, bucket, crop, flipped=True, key=key)
    assert flipped.crop_box == straight.crop_box
    assert flipped.resized_size == straight.resized_size
    assert flipped.crop_top_left[0] == straight.crop_top_left[0]
    # What lies left of the cut in the mirrored picture lay right of it before.
    assert flipped.crop_top_left[1] == straight.resized_size[1] - straight.crop_box[2]


@given(SIZES)
def test_transposing_a_size_transposes_bucket_and_frame(size: Size) -> None:
    if size[0] == size[1]:
        return
    buckets = symmetric_buckets()
    frame = make_frame(size, assign_bucket(size, buckets), "center")
    turned = make_frame(size[::-1], assign_bucket(size[::-1], buckets), "center")
    assert turned == Frame(
        original_size=(size[1], size[0]),
        resized_size=(frame.resized_size[1], frame.resized_size[0]),
        crop_top_left=(frame.crop_top_left[1], frame.crop_top_left[0]),
        target_size=(frame.target_size[1], frame.target_size[0]),
        flipped=False,
    )


@given(SIZES, BUCKETS)
def test_the_centre_cut_leaves_as_much_on_each_side(size: Size, bucket: Size) -> None:
    frame = make_frame(size, bucket, "center")
    left, top, right, bottom = frame.crop_box
    assert 0 <= (frame.resized_size[1] - right) - left <= 1
    assert 0 <= (frame.resized_size[0] - bottom) - top <= 1


@given(SIZES, BUCKETS, KEYS)
def test_a_random_cut_is_a_pure_function_of_its_key(size: Size, bucket: Size, key: tuple[Any, ...]) -> None:
    assert make_frame(size, bucket, "random", key=key) == make_frame(size, bucket, "random", key=key)


def test_random_cuts_reach_every_place_and_both_ends() -> None:
    frames = [make_frame((16, 21), (16, 16), "random", key=(0, "crop", epoch)) for epoch in range(200)]
    assert {frame.crop_top_left for frame in frames} == {(0, left) for left in range(6)}


def test_random_cuts_differ_between_samples_of_an_epoch() -> None:
    cuts = {make_frame((1000, 3000), (1024, 1024), "random", key=(0, "crop", 0, sample)) for sample in range(20)}
    assert len(cuts) > 15


@pytest.mark.parametrize("size", [(1, 1), (1, 12_000), (12_000, 1), (7, 4096)])
def test_extreme_pictures_have_a_frame(size: Size) -> None:
    bucket = assign_bucket(size, PAPER_BUCKETS)
    frame = make_frame(size, bucket, "center")
    assert frame.target_size == bucket


def test_scale_tells_what_is_blown_up() -> None:
    assert make_frame((512, 512), (1024, 1024), "center").scale == 2.0
    assert make_frame((3000, 2000), (1216, 832), "center").scale == pytest.approx(0.416, abs=0.001)


def test_an_unknown_crop_and_an_empty_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown crop 'middle'. Known: 'center', 'random'"):
        make_frame((10, 10), (16, 16), "middle")
    with pytest.raises(ValueError, match="1 or more"):
        make_frame((0, 10), (16, 16), "center")
