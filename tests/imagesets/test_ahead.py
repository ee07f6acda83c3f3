"""Pictures rendered ahead come in order, as if rendered one by one, and a bad one at its turn."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagesets.ahead import rendered_ahead
from imagesets.errors import PictureError
from imagesets.framing import make_frame
from imagesets.scan import scan_sources
from imagesets.sources import FolderSource


def test_they_come_in_order_and_as_they_are_when_rendered_alone(tmp_path: Path) -> None:
    for index in range(20):
        Image.new("RGB", (40 + index, 30), (10 * index, 0, 0)).save(tmp_path / f"{index:02d}.png")
    samples = scan_sources([FolderSource(tmp_path)]).samples
    wanted = [(sample, make_frame(sample.original_size, (16, 16), "center")) for sample in samples]
    asked: list[int] = []

    def asking():
        for index, pair in enumerate(wanted):
            asked.append(index)
            yield pair

    rendered = rendered_ahead(asking())
    for index, (sample, frame) in enumerate(wanted):
        assert np.array_equal(next(rendered), sample.render(frame))
        assert sample.decoders is not None
        assert len(asked) <= index + 2 + 2 * sample.decoders.num_processes, "no further ahead than was said"
    assert next(rendered, None) is None


def test_a_picture_that_has_gone_is_told_at_its_turn_and_those_before_it_are_given(tmp_path: Path) -> None:
    for index in range(4):
        Image.new("RGB", (40, 30)).save(tmp_path / f"{index}.png")
    samples = scan_sources([FolderSource(tmp_path)]).samples
    (tmp_path / "2.png").unlink()
    rendered = rendered_ahead((sample, make_frame(sample.original_size, (16, 16), "center")) for sample in samples)
    assert [next(rendered).shape for _ in range(2)] == [(16, 16, 3)] * 2
    with pytest.raises(PictureError, match=r"2\.png"):
        next(rendered)


def test_of_nothing_nothing_comes() -> None:
    assert list(rendered_ahead([])) == []
