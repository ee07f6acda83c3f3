"""Caption files that lie beside pictures and are not read, because another ending is: `.caption` beside `.txt`.

Nothing on the disk is read for it: the scan has listed what it passed over.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from imagesets.inspection.plan import SourcePlan
from imagesets.samples import ScanReport

CAPTION_ENDINGS = (".txt", ".caption", ".captions", ".tags", ".prompt")
"""Endings by which other tools know captions; capitals are another ending to us and to most systems."""


@dataclass(frozen=True)
class StrayCaption:
    """A caption file that is not read.

    Attributes:
        name: of the file.
        extension: its ending, as it is written.
        sample: index of the picture it lies beside.
        source: index of that picture's source.
        alone: whether the picture has no other caption, so that it is trained without.
    """

    name: str
    extension: str
    sample: int
    source: int
    alone: bool


def find_strays(
    report: ScanReport, sources: Sequence[SourcePlan], without_caption: Sequence[int]
) -> tuple[StrayCaption, ...]:
    """Find caption files beside pictures among what the scan passed over, in the order of the pictures.

    Args:
        report: of the scan.
        sources: in their order.
        without_caption: indices of samples that have no caption, or an empty one.
    """
    by_label = {source.label: place for place, source in reversed(list(enumerate(sources)))}
    by_stem: dict[tuple[str, str], list[int]] = {}
    for index, sample in enumerate(report.samples):
        by_stem.setdefault((sample.source, _stem(sample.name)), []).append(index)
    bare = set(without_caption)
    strays = []
    for name, label in ((each.name, each.source) for each in report.passed_over):
        extension = PurePosixPath(name).suffix
        if extension.lower() not in CAPTION_ENDINGS:
            continue
        for index in by_stem.get((label, _stem(name)), ()):
            place = by_label.get(report.samples[index].source)
            if place is not None and sources[place].caption_extension not in (None, extension):
                strays.append(StrayCaption(name, extension, index, place, index in bare))
    return tuple(sorted(strays, key=lambda stray: (stray.sample, stray.name)))


def _stem(name: str) -> str:
    return name[: len(name) - len(PurePosixPath(name).suffix)]
