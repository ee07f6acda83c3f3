"""A folder with every kind of file a stranger may put there is scanned to its end, and each gets what it deserves."""

import sys
from collections import Counter

import numpy as np
import pytest

from imagesets.opening.decoders import Decoders
from imagesets.samples import ScanReport
from imagesets.scan import scan_sources
from imagesets.sources import FolderSource
from tests.imagesets.making import scene
from tests.imagesets.opening.adversarial import Kind, flawed_kinds, sound_kinds, useless_kinds

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it holds names and links only Linux knows")

KINDS = [*sound_kinds(), *useless_kinds(), *flawed_kinds()] if sys.platform == "linux" else []
SOUND = [kind for kind in KINDS if kind.size is not None]
USELESS = [kind for kind in KINDS if kind.size is None]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, hostile_decoders: Decoders) -> ScanReport:
    """Scan the folder once, with a decoder that has flaws."""
    folder = tmp_path_factory.mktemp("strange") / "pictures"
    folder.mkdir()
    for kind in KINDS:
        kind.make(folder / kind.name)
    return scan_sources([FolderSource(folder)], decoders=hostile_decoders)


def test_there_are_enough_kinds_and_every_file_is_accounted_for_once(report: ScanReport) -> None:
    assert len(SOUND) >= 40
    assert len(USELESS) >= 60
    listed = Counter([sample.name for sample in report.samples] + [bad.name for bad in report.bad])
    assert listed == Counter(kind.title for kind in KINDS)


@pytest.mark.parametrize("kind", SOUND, ids=lambda kind: ascii(kind.name)[1:40])
def test_no_sound_picture_is_refused(report: ScanReport, kind: Kind) -> None:
    sizes = {sample.name: sample.original_size for sample in report.samples}
    assert kind.title in sizes, [bad.reason for bad in report.bad if bad.name == kind.title]
    assert sizes[kind.title] == kind.size


@pytest.mark.parametrize("kind", USELESS, ids=lambda kind: ascii(kind.name)[1:40])
def test_what_is_of_no_use_is_refused_by_name_with_the_reason(report: ScanReport, kind: Kind) -> None:
    (reason,) = (bad.reason for bad in report.bad if bad.name == kind.title)
    assert reason.strip()
    assert kind.reason in reason
    assert reason.isprintable()
    reason.encode()


def test_the_sound_ones_open_to_the_scene_they_show(report: ScanReport) -> None:
    """A kind that were decoded sideways, inverted or from the wrong frame would be far from it."""
    expected = np.asarray(scene(48, 64)).astype(int)
    shown = {sample.name: sample for sample in report.samples}
    for name in ("plain.jpg", "lossless.webp", "interlaced.png", "animated.png", "phone.jpg", "cmyk.jpg", "profile.png",
                 "exif-1.png", "restarts.jpg"):  # fmt: skip
        pixels = np.asarray(shown[name].load()).astype(int)
        assert np.abs(pixels - expected)[..., :2].mean() < 12, name
