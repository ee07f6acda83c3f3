"""The perceptual hash is imagehash's; what it and the grid forgive, and what they tell apart."""

from io import BytesIO

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from imagesets.inspection.fingerprints import is_blank, perceptual_hash, signature
from imagesets.inspection.near import MAX_DIFFERING_BITS, MIN_CORRELATION, correlation, differing_bits
from tests.imagesets.inspection.building import photo
from tests.imagesets.making import noise, scene


def saved_again(picture: Image.Image, kind: str, quality: int) -> Image.Image:
    stream = BytesIO()
    picture.save(stream, kind, quality=quality)
    return Image.open(stream).convert("RGB")


ALTERED = {
    "half the size": lambda picture: picture.resize((picture.width // 2, picture.height // 2)),
    "larger": lambda picture: picture.resize((picture.width * 17 // 10, picture.height * 17 // 10)),
    "JPEG of low quality": lambda picture: saved_again(picture, "JPEG", 25),
    "WebP of low quality": lambda picture: saved_again(picture, "WEBP", 30),
    "darker": lambda picture: ImageEnhance.Brightness(picture).enhance(0.7),
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.25),
    "less contrast": lambda picture: ImageEnhance.Contrast(picture).enhance(0.7),
    "small, bright and saved again": lambda picture: saved_again(
        ImageEnhance.Brightness(picture.resize((100, 75))).enhance(1.2), "JPEG", 40
    ),
}


def alike(one: Image.Image, other: Image.Image) -> bool:
    near = differing_bits(perceptual_hash(one), perceptual_hash(other)) <= MAX_DIFFERING_BITS
    return near and correlation(signature(one)[None], signature(other)[None])[0] >= MIN_CORRELATION


@pytest.mark.parametrize(
    "picture",
    [photo(0), photo(1, 300, 200), scene(48, 64), noise()],
    ids=["photo", "tall photo", "scene", "noise"],
)
def test_the_hash_is_imagehashs(picture: Image.Image) -> None:
    theirs = imagehash.phash(picture)
    assert f"{perceptual_hash(picture):016x}" == str(theirs)


@pytest.mark.parametrize("change", list(ALTERED))
def test_altered_copies_are_alike(change: str) -> None:
    for seed in range(10):
        picture = photo(seed, 240, 320)
        assert alike(picture, ALTERED[change](picture)), seed


def test_different_pictures_are_not_alike() -> None:
    pictures = [photo(seed, 120, 160) for seed in range(40)]
    pairs = [(one, other) for one in range(40) for other in range(one)]
    assert not [pair for pair in pairs if alike(pictures[pair[0]], pictures[pair[1]])]


def test_one_shape_in_two_colours_is_not_alike() -> None:
    """Lightness alone would call them the same: the grid sees the colours."""

    def disc(colour: tuple[int, int, int]) -> Image.Image:
        rows, columns = np.mgrid[0:96, 0:96]
        inside = (rows - 40) ** 2 + (columns - 50) ** 2 < 900
        return Image.fromarray(np.where(inside[..., None], np.array(colour), 255).astype(np.uint8))

    red, blue = disc((200, 60, 60)), disc((60, 95, 230))
    assert differing_bits(perceptual_hash(red), perceptual_hash(blue)) <= MAX_DIFFERING_BITS
    assert not alike(red, blue)
    assert alike(red, ALTERED["half the size"](red))


def test_blank_is_one_colour_and_nothing_else() -> None:
    assert is_blank(signature(Image.new("RGB", (50, 40), (9, 200, 30))))
    assert not is_blank(signature(photo(3)))
    faint = np.full((64, 64, 3), 128, dtype=np.uint8)
    faint[:32] += 8
    assert not is_blank(signature(Image.fromarray(faint)))
