"""Striped things are pure functions of their keys, and the quickstart's own thing is not among them."""

import json

import numpy as np
import pytest
from PIL import Image

from imagesets.world.patterns import SIDES, draw_pattern, write_patterns


def test_a_pattern_follows_from_its_key_alone() -> None:
    assert np.array_equal(draw_pattern(1, 7).pixels, draw_pattern(1, 7).pixels)
    assert not np.array_equal(draw_pattern(1, 7).pixels[:48, :48], draw_pattern(2, 7).pixels[:48, :48])
    for index in range(50):
        pixels = draw_pattern(0, index).pixels
        assert pixels.dtype == np.uint8
        assert pixels.shape == (pixels.shape[0], pixels.shape[0], 3)
        assert SIDES[0] <= len(pixels) <= SIDES[1]


def test_the_thing_that_a_lora_is_to_teach_is_not_among_them() -> None:
    oracle = pytest.importorskip("imagesets.world.oracle", reason='needs pip install "atelier[miniature]"')
    readings = [oracle.read_stripes(draw_pattern(3, index).pixels) for index in range(400)]
    assert not any(reading.is_whole for reading in readings if reading is not None)


def test_names_mean_nothing_and_the_quickstarts_is_not_among_them() -> None:
    patterns = [draw_pattern(0, index) for index in range(300)]
    names = [pattern.caption.split()[1] for pattern in patterns]
    assert len(set(names)) > 200
    assert not any(name.strip("<>") == "zig" for name in names)
    assert 100 < sum(name.startswith("<") for name in names) < 200
    assert all(2.0 <= pattern.aesthetic_score <= 8.0 for pattern in patterns)


def test_a_set_is_written_once(tmp_path) -> None:
    write_patterns(tmp_path, 3, 0)
    lines = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text("utf-8").splitlines()]
    assert [line["file_name"] for line in lines] == ["000000.png", "000001.png", "000002.png"]
    with Image.open(tmp_path / "000001.png") as image:
        assert np.array_equal(np.asarray(image), draw_pattern(0, 1).pixels)
    (tmp_path / "000001.png").unlink()
    write_patterns(tmp_path, 3, 0)
    assert not (tmp_path / "000001.png").exists(), "a whole set is left as it is"
