"""Scenes, captions and photos: pure functions of their keys, and true to what they say."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from imagesets.world.captions import draw_caption, full_caption
from imagesets.world.palette import COLOURS, GROUNDS, nearest_name, to_lab
from imagesets.world.photos import MAX_ASPECT, SHORTER_SIDES, draw_photo, write_photos
from imagesets.world.scenes import RELATIONS, Scene, Thing, draw_scene


def test_lab_of_known_colours() -> None:
    # Values of the sRGB primaries and white under D65, as standard tables give them.
    assert to_lab([255, 255, 255]) == pytest.approx([100.0, 0.0, 0.0], abs=0.02)
    assert to_lab([255, 0, 0]) == pytest.approx([53.24, 80.09, 67.20], abs=0.02)
    assert to_lab([0, 0, 255]) == pytest.approx([32.30, 79.19, -107.86], abs=0.02)
    assert to_lab([0, 0, 0]) == pytest.approx([0.0, 0.0, 0.0], abs=1e-9)


def test_the_palette_can_be_told_apart() -> None:
    for names in (COLOURS, GROUNDS):
        lab = {name: to_lab(colour) for name, colour in names.items()}
        distances = [np.linalg.norm(lab[a] - lab[b]) for a in lab for b in lab if a < b]
        assert min(distances) > 25
        assert all(nearest_name(value + 5, names) == name for name, value in lab.items())


def test_a_scene_follows_from_its_generator_alone() -> None:
    drawn = [draw_scene(np.random.default_rng(seed), num_things=1 + seed % 2) for seed in range(50)]
    again = [draw_scene(np.random.default_rng(seed), num_things=1 + seed % 2) for seed in range(50)]
    assert drawn == again
    assert len(set(drawn)) == 50


def test_two_things_lie_as_their_relation_says_and_do_not_touch() -> None:
    for seed in range(200):
        scene = draw_scene(np.random.default_rng(seed), num_things=2)
        first, second = scene.things
        offset = np.subtract(first.centre, second.centre)
        assert scene.relation is not None
        assert tuple(np.sign(np.round(offset, 9)).astype(int)) == RELATIONS[scene.relation]
        assert first.colour != second.colour
        assert np.abs(offset).max() > first.radius + second.radius


def test_captions_say_what_is_there() -> None:
    thing = Thing("star", "orange", (0.0, 0.0), 0.3)
    assert full_caption(Scene((thing,), "white", "large", None, 0.5)) == "an orange star on a white background"
    pair = Scene((thing, Thing("ring", "blue", (0.2, 0.0), 0.2)), "grey", None, "above", 0.0)
    assert full_caption(pair) == "an orange star above a blue ring on a grey background"
    drawn = {draw_caption(pair, np.random.default_rng(seed)) for seed in range(60)}
    assert "a photo of a blue ring below an orange star on grey" in drawn
    assert all(("orange star above" in text) != ("blue ring below" in text) for text in drawn)


def test_photos_have_the_sizes_they_promise() -> None:
    photos = [draw_photo(3, index) for index in range(600)]
    assert photos == [draw_photo(3, index) for index in range(600)]
    for photo in photos:
        assert SHORTER_SIDES[0] <= min(photo.size) <= SHORTER_SIDES[1]
        assert max(photo.size) <= MAX_ASPECT * min(photo.size) + 2
    square = sum(height == width for height, width in (photo.size for photo in photos))
    assert 0.2 < square / 600 < 0.35
    assert {len(photo.scene.things) for photo in photos} == {1, 2}
    assert min(Counter(photo.scene.ground for photo in photos).values()) > 150


def test_a_set_of_photos_is_written_once(tmp_path) -> None:
    write_photos(tmp_path / "photos", 5, seed=2)
    lines = [json.loads(line) for line in (tmp_path / "photos" / "metadata.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines] == [draw_photo(2, index).caption for index in range(5)]
    assert all(2 <= line["aesthetic_score"] <= 8 for line in lines)
    with Image.open(tmp_path / "photos" / lines[3]["file_name"]) as picture:
        assert picture.size == draw_photo(2, 3).size[::-1]
    before = (tmp_path / "photos" / "000000.png").stat().st_mtime_ns
    write_photos(tmp_path / "photos", 5, seed=2)
    assert (tmp_path / "photos" / "000000.png").stat().st_mtime_ns == before
