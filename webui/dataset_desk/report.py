"""What an inspection found, as the page shows it, from the JSON of `atelier data inspect` (docs/inspect.md).

Names and captions in it are text from files, never markup.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from finetune.errors import DataError

Size = tuple[int, int]


@dataclass(frozen=True)
class ShownPicture:
    """A usable picture.

    Attributes:
        index: its place in the report.
        name: its path below the folder.
        thumbnail: a small WebP file of all of it, upright; None where there is none.
        original_size: (height, width) in pixels.
        bucket: (height, width) it is trained at.
        scale: trained over original side length; above 1 it is blown up.
        cut_fraction: of its area that is cut away.
        kept: edges of what is left, as fractions of its sides: left, top, right, bottom.
        repeats: how often it is seen in an epoch.
        caption: as it is trained.
        tokens: of the caption, by the tokenizer that counts more.
        beyond: the end of the caption that is not read.
        findings: kinds of what is wrong with it.
    """

    index: int
    name: str
    thumbnail: Path | None
    original_size: Size
    bucket: Size
    scale: float
    cut_fraction: float
    kept: tuple[float, float, float, float]
    repeats: int
    caption: str
    tokens: int
    beyond: str
    findings: tuple[str, ...]


@dataclass(frozen=True)
class ShownFinding:
    """What is wrong, and with what.

    Attributes:
        kind: as programs know it.
        severity: 'error', 'warning' or 'note'.
        text: what was found.
        advice: what to do.
        items: names, each with what is to be said of it alone.
        pictures: places in the report of the usable pictures among them.
    """

    kind: str
    severity: str
    text: str
    advice: str
    items: tuple[tuple[str, str], ...]
    pictures: tuple[int, ...]


@dataclass(frozen=True)
class ShownBucket:
    """A bucket in use: its (height, width), and how many pictures it has, with and without repeats."""

    size: Size
    pictures: int
    showings: int
    batches: int
    left_over: int


@dataclass(frozen=True)
class Report:
    """Everything an inspection found.

    Attributes:
        name: of the set.
        summary: counts, as docs/inspect.md has them.
        findings: the worst first.
        buckets: those in use, by size.
        pictures: the usable ones.
        unusable: the others, each with its reason.
        tags: the most frequent ones, with how many captions have each.
        token_source: in words, whose tokenizers counted.
        max_tokens: how many are read.
    """

    name: str
    summary: dict[str, Any]
    findings: tuple[ShownFinding, ...]
    buckets: tuple[ShownBucket, ...]
    pictures: tuple[ShownPicture, ...]
    unusable: tuple[tuple[str, str], ...]
    tags: tuple[tuple[str, int], ...]
    token_source: str
    max_tokens: int

    @cached_property
    def by_name(self) -> dict[str, ShownPicture]:
        """The pictures by their names."""
        return {picture.name: picture for picture in self.pictures}

    def in_bucket(self, size: Size) -> list[ShownPicture]:
        """Return the pictures that are trained at a size."""
        return [picture for picture in self.pictures if picture.bucket == size]

    def facts(self) -> list[tuple[str, str]]:
        """Return names and values that say what the set is."""
        summary = self.summary
        facts = [("Pictures", f"{summary['pictures']:,}")]
        if summary["unusable"]:
            facts.append(("Cannot be used", f"{summary['unusable']:,}"))
        if summary["showings_per_epoch"] not in (None, summary["pictures"]):
            facts.append(("Seen in an epoch, with repeats", f"{summary['showings_per_epoch']:,}"))
        facts.append(("Buckets", f"{summary['buckets']:,}"))
        captioned = sum(bool(picture.caption) for picture in self.pictures)
        facts.append(("With a caption", f"{captioned:,} of {len(self.pictures):,}"))
        counted = [picture.tokens for picture in self.pictures if picture.caption]
        if counted:
            facts.append(("Longest caption", f"{max(counted):,} tokens"))
        counts = [f"{summary[f'{word}s']} {word}{'' if summary[f'{word}s'] == 1 else 's'}"
                  for word in ("error", "warning", "note") if summary[f"{word}s"]]  # fmt: skip
        return [*facts, ("Found", ", ".join(counts) or "nothing wrong")]


def read_report(text: bytes, thumbnails: Path) -> Report:
    """Return what an inspection printed.

    Args:
        text: what `atelier data inspect --json --thumbnails` has printed.
        thumbnails: the folder that it wrote them to.

    Raises:
        DataError: it is cut off, or something else.
    """
    try:
        return _report(json.loads(text), thumbnails)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError("The inspection ended without a report. Inspect again") from error


def _report(data: dict[str, Any], thumbnails: Path) -> Report:
    return Report(
        name=str(data["name"]),
        summary=data["summary"],
        findings=tuple(map(_finding, data["findings"])),
        buckets=tuple(
            ShownBucket(_size(each["size"]), each["pictures"], each["showings_per_epoch"], each["batches_per_epoch"],
                        each["in_last_short_batch"])
            for each in data["buckets"]
        ),
        pictures=tuple(_picture(index, each, thumbnails) for index, each in enumerate(data["pictures"])),
        unusable=tuple((str(each["name"]), str(each["reason"])) for each in data["unusable"]),
        tags=tuple((str(each["tag"]), int(each["captions"])) for each in data["captions"]["tags"]),
        token_source=str(data["captions"]["token_source"]),
        max_tokens=int(data["captions"]["max_tokens"]),
    )  # fmt: skip


def _picture(index: int, data: dict[str, Any], thumbnails: Path) -> ShownPicture:
    kept = data["kept"]
    return ShownPicture(
        index=index,
        name=str(data["name"]),
        thumbnail=None if data["thumbnail"] is None else thumbnails / Path(data["thumbnail"]).name,
        original_size=_size(data["original_size"]),
        bucket=_size(data["bucket"]),
        scale=float(data["scale"]),
        cut_fraction=float(data["cut_fraction"]),
        kept=(kept["left"], kept["top"], kept["right"], kept["bottom"]),
        repeats=int(data["repeats"]),
        caption=str(data["caption"]),
        tokens=max([0, *data["tokens"].values()]),
        beyond=str(data["beyond"]),
        findings=tuple(map(str, data["findings"])),
    )


def _finding(data: dict[str, Any]) -> ShownFinding:
    items: Sequence[dict[str, Any]] = data["items"]
    return ShownFinding(
        kind=str(data["kind"]),
        severity=str(data["severity"]),
        text=str(data["text"]),
        advice=str(data["advice"]),
        items=tuple((str(item["name"]), str(item["text"])) for item in items),
        pictures=tuple(dict.fromkeys(item["picture"] for item in items if item["picture"] is not None)),
    )


def _size(sides: Sequence[int]) -> Size:
    height, width = sides
    return (int(height), int(width))
