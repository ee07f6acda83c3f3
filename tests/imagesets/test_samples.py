"""The pictures that ship are those their renderer draws, small, varied, and captioned as recipes expect."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagesets.scan import scan_sources
from imagesets.sources import FolderSource

SAMPLES = Path(__file__).parents[2] / "datasets" / "samples"
QUICKSTART = SAMPLES / "quickstart"


def test_the_quickstart_scans_without_a_word_and_varies() -> None:
    report = scan_sources([FolderSource(QUICKSTART)])
    assert (report.bad, report.notes, report.ignored) == ((), (), ())
    assert len(report.samples) == 10
    for sample in report.samples:
        assert re.fullmatch(r"a <zig> on a \w+ background", sample.caption), sample.name
        assert all(96 <= side <= 160 for side in sample.original_size)
    assert len({sample.caption for sample in report.samples}) >= 3
    aspects = [height / width for height, width in (sample.original_size for sample in report.samples)]
    assert min(aspects) < 0.7
    assert max(aspects) > 1.4


def test_the_samples_are_small() -> None:
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file()) < 150_000


def test_the_renderer_draws_what_ships(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("render_quickstart", SAMPLES / "render_quickstart.py")
    assert spec is not None
    assert spec.loader is not None
    renderer = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "render_quickstart", renderer)
    spec.loader.exec_module(renderer)
    shipped = sorted(QUICKSTART.glob("*.png"))
    assert len(renderer.PICTURES) == len(shipped)
    for index in (0, 5, 9):
        # Compressors differ between machines, pixels do not.
        drawn = np.asarray(renderer.render(renderer.PICTURES[index]))
        assert np.array_equal(drawn, np.asarray(Image.open(shipped[index])))
