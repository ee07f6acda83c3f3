"""A key depends on everything a value is computed from, and on nothing else."""

from dataclasses import fields, replace

import pytest

from finetune.cache import keys
from finetune.cache.keys import LatentAddress, TextAddress
from finetune.model.text_reader import EncoderTexts, TokenChunks
from imagesets.framing import Frame, make_frame
from imagesets.pictures import PictureFacts
from imagesets.scan import Sample

LATENTS = LatentAddress("vae", "float32", "cpu", {"torch": "2"}, 1)
TEXT = TextAddress("encoders", "bfloat16", "float32", "cpu", {"torch": "2"}, 1)
FRAME = make_frame((40, 60), (32, 32), "center")
SAMPLE = Sample(
    name="a.png",
    source="pictures",
    sha256="ab" * 32,
    original_size=(40, 60),
    caption="a cat",
    repeats=1,
    facts=PictureFacts((40, 60), "PNG", "RGB", 1, has_alpha=False, num_frames=1),
    read=lambda: b"",
)
GIVEN = EncoderTexts(TokenChunks(((0, 7, 1), (0, 1, 1)), None), TokenChunks(((0, 7, 1), (0, 1, 2)), None), 0).facts()
SEE_THROUGH = replace(SAMPLE, facts=replace(SAMPLE.facts, has_alpha=True))


@pytest.mark.parametrize("name", [field.name for field in fields(LatentAddress)])
def test_latents_ask_for_another_key_with_another(name):
    other = {"packages": {"torch": "3"}, "code": 2}.get(name, "another")
    assert replace(LATENTS, **{name: other}).key(SAMPLE, FRAME) != LATENTS.key(SAMPLE, FRAME)


@pytest.mark.parametrize("name", [field.name for field in fields(TextAddress)])
def test_text_asks_for_another_key_with_another(name):
    other = {"packages": {"torch": "3"}, "code": 2}.get(name, "another")
    assert replace(TEXT, **{name: other}).key(GIVEN) != TEXT.key(GIVEN)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("original_size", (41, 60)),
        ("resized_size", (33, 48)),
        ("crop_top_left", (0, 7)),
        ("target_size", (32, 48)),
        ("flipped", True),
    ],
)
def test_every_part_of_a_frame_counts(name, other):
    assert {field.name for field in fields(Frame)} == {
        "original_size", "resized_size", "crop_top_left", "target_size", "flipped",
    }  # fmt: skip
    assert LATENTS.key(SAMPLE, replace(FRAME, **{name: other})) != LATENTS.key(SAMPLE, FRAME)


def test_a_pictures_bytes_count_and_its_name_caption_and_place_do_not():
    key = LATENTS.key(SAMPLE, FRAME)
    assert LATENTS.key(replace(SAMPLE, sha256="cd" * 32), FRAME) != key
    moved = replace(SAMPLE, name="b.png", source="others", caption="a dog", repeats=3, aesthetic_score=1.0)
    assert LATENTS.key(moved, FRAME) == key


def test_the_background_counts_under_what_is_see_through():
    black = (0, 0, 0)
    assert LATENTS.key(replace(SAMPLE, background=black), FRAME) == LATENTS.key(SAMPLE, FRAME)
    assert LATENTS.key(replace(SEE_THROUGH, background=black), FRAME) != LATENTS.key(SEE_THROUGH, FRAME)


def test_every_token_and_weight_of_a_text_counts_and_what_is_cut_off_does_not():
    once, twice = TokenChunks(((0, 7, 1),), None), TokenChunks(((0, 7, 1), (0, 1, 1)), None)
    other, weighted = TokenChunks(((0, 8, 1),), None), TokenChunks(((0, 7, 1),), ((1.0, 1.2, 1.0),))
    lighter = TokenChunks(((0, 7, 1),), ((1.0, 0.8, 1.0),))
    given = [EncoderTexts(first, second, 0) for first in (None, once, twice, other, weighted, lighter)
             for second in (once, twice, other, weighted, lighter)]  # fmt: skip
    assert len({TEXT.key(each.facts()) for each in given}) == len(given)
    assert TEXT.key(replace(given[0], num_cut_off=5).facts()) == TEXT.key(given[0].facts())


def test_keys_do_not_change_by_accident():
    """New keys for old things would encode everybody's pictures again. Where that is meant, write them here."""
    assert LATENTS.key(SAMPLE, FRAME) == "4de2e6ce0ae7f0740de7286213478df1f7ad4897a85a89a517640ee68bb22764"
    assert TEXT.key(GIVEN) == "925c1a84c04a96f8940c34a87cc3c2d1a65d482d53721782c17a4c3c74d5aac8"


def test_what_is_installed_counts_without_its_build():
    assert keys.package_versions(("torch", "no-such-package")) == {
        "torch": __import__("torch").__version__.partition("+")[0],
        "no-such-package": "unknown",
    }
