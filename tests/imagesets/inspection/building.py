"""Builds folders of pictures for the tests of this folder: clean ones, and ones with one thing wrong."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imagesets.buckets import assign_bucket
from imagesets.framing import Size
from imagesets.inspection import Inspection, SourcePlan, TrainingPlan, inspect_pictures
from imagesets.samples import ScanReport
from imagesets.scan import scan_sources
from imagesets.sources import FolderSource

BUCKETS: tuple[Size, ...] = ((64, 64), (48, 80), (80, 48))


def photo(seed: int, height: int = 96, width: int = 96) -> Image.Image:
    """Return a picture with large shapes and small ones in colour, as photos have; another one for each seed."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((height, width, 3))
    for cells, strength in ((3, 120.0), (6, 60.0), (16, 25.0)):
        coarse = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        layer = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)
        pixels += (layer / 255 - 0.5) * strength
    return Image.fromarray((pixels + 128).clip(0, 255).astype(np.uint8))


def save(folder: Path, name: str, picture: Image.Image, caption: str | None = None, **options: Any) -> Path:
    """Save a picture, and its caption beside it where there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    picture.save(folder / name, **options)
    if caption is not None:
        (folder / name).with_suffix(".txt").write_text(caption, encoding="utf-8")
    return folder / name


def clean_folder(folder: Path, count: int = 8) -> Path:
    """Make a folder with nothing wrong: different pictures and captions, half of two buckets each."""
    for index in range(count):
        size = (96, 96) if index < count // 2 else (96, 160)
        save(folder, f"{index}.png", photo(index, *size), f"a hill number {index}, under cloud {index}")
    return folder


def plan_for(report: ScanReport, sources: Sequence[FolderSource], **settings: Any) -> TrainingPlan:
    """Plan for samples as training would: batches of two, one a step."""
    plan = TrainingPlan(
        buckets=tuple(assign_bucket(sample.original_size, BUCKETS) for sample in report.samples),
        sources=tuple(
            SourcePlan(source.label, f"data.sources.{index}", source.trigger, source.repeats, source.caption_extension)
            for index, source in enumerate(sources)
        ),
        micro_batch_size=2,
        steps_per_epoch=max(1, len(report.samples) // 2),
        steps=100,
    )
    return replace(plan, **settings)


def inspect(*sources: FolderSource | Path, tokens: Any = None, scan: dict[str, Any] | None = None,
            page: dict[str, Any] | None = None, **settings: Any) -> Inspection:  # fmt: skip
    """Scan and inspect folders with a plan that may be changed."""
    given = [FolderSource(source) if isinstance(source, Path) else source for source in sources]
    report = scan_sources(given, **(scan or {}))
    return inspect_pictures("set", report, plan_for(report, given, **settings), tokens, **(page or {}))


def kinds(inspection: Inspection) -> set[str]:
    """Return the kinds of what was found."""
    return {finding.kind for finding in inspection.findings}
