"""Reads and checks every picture and caption of the sources, before anything costly is begun.

Each picture is decoded whole, as training will, so that what is found here is all there is to find.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from imagesets.captions import with_trigger
from imagesets.colours import Colour, parse_colour
from imagesets.errors import PictureError
from imagesets.folder import list_folder
from imagesets.huggingface import list_dataset
from imagesets.pictures import examine_picture
from imagesets.samples import DEFAULT_MAX_PIXELS, BadPicture, Note, Sample, ScanReport
from imagesets.sources import Entry, FolderSource, Listing, Source

__all__ = ["BadPicture", "Note", "Sample", "ScanReport", "scan_sources"]

_MAX_THREADS = 4
"""A picture of the largest size takes some hundred megabytes while it is checked, in each thread."""


def scan_sources(
    sources: Sequence[Source],
    background: str = "#ffffff",
    max_pixels: int = DEFAULT_MAX_PIXELS,
    progress: Callable[[int, int], None] | None = None,
) -> ScanReport:
    """Open and decode every picture of every source once.

    Args:
        sources: where to look.
        background: the colour under see-through parts, as '#rrggbb'.
        max_pixels: larger pictures are refused before they are decoded.
        progress: called with (done, total) after each picture of a source.

    Raises:
        SourceError: a source cannot be read at all.
        ValueError: `background` is no colour.
    """
    colour = parse_colour(background)
    listings = [
        (source, list_folder(source) if isinstance(source, FolderSource) else list_dataset(source))
        for source in sources
    ]
    total = sum(len(listing.entries) for _, listing in listings)
    samples: list[Sample] = []
    bad: list[BadPicture] = []
    notes: list[Note] = []
    # Decoders release the interpreter's lock; results come back in order.
    with ThreadPoolExecutor(max_workers=min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        for source, listing in listings:
            check = partial(_check, source=source, background=colour, max_pixels=max_pixels)
            for entry, result in zip(listing.entries, pool.map(check, listing.entries), strict=True):
                if isinstance(result, Sample):
                    samples.append(result)
                    notes += _notes(result, entry)
                else:
                    bad.append(result)
                if progress is not None:
                    progress(len(samples) + len(bad), total)
            notes += _unused_captions(source, listing)
    ignored = tuple(name for _, listing in listings for name in listing.ignored)
    return ScanReport(tuple(samples), tuple(bad), (*notes, *_duplicates(samples)), ignored)


def _check(entry: Entry, source: Source, background: Colour, max_pixels: int) -> Sample | BadPicture:
    """Read and decode one picture."""
    if entry.problem is not None:
        return BadPicture(source.label, entry.name, entry.problem)
    assert entry.read is not None, "what has no problem can be read"
    try:
        content = entry.read()
        facts = examine_picture(content, max_pixels, entry.extension, background)
    except PictureError as error:
        return BadPicture(source.label, entry.name, str(error))
    return Sample(
        name=entry.name,
        source=source.label,
        sha256=hashlib.sha256(content).hexdigest(),
        original_size=facts.size,
        caption=with_trigger(entry.caption or "", source.trigger),
        repeats=source.repeats,
        facts=facts,
        read=entry.read,
        background=background,
        max_pixels=max_pixels,
        aesthetic_score=source.aesthetic_score if entry.aesthetic_score is None else entry.aesthetic_score,
        buckets=source.buckets,
    )


def _notes(sample: Sample, entry: Entry) -> list[Note]:
    """Say what is odd about one usable picture."""
    notes = []
    if entry.caption is None:
        notes.append(Note(sample.source, sample.name, "missing_caption", "it has no caption"))
    elif not entry.caption:
        notes.append(Note(sample.source, sample.name, "empty_caption", "its caption is empty"))
    if sample.facts.num_frames > 1:
        text = f"it is an animation of {sample.facts.num_frames} frames, of which the first is used"
        notes.append(Note(sample.source, sample.name, "animation", text))
    return notes


def _unused_captions(source: Source, listing: Listing) -> list[Note]:
    return [
        Note(source.label, name, "unused_caption", "there is no picture of this name")
        for name in listing.unused_captions
    ]


def _duplicates(samples: Sequence[Sample]) -> list[Note]:
    """Say which pictures are the same file as an earlier one, byte for byte."""
    first: dict[str, Sample] = {}
    notes = []
    for sample in samples:
        earlier = first.setdefault(sample.sha256, sample)
        if earlier is not sample:
            text = f"it is the same as {earlier.source}: {earlier.name}"
            notes.append(Note(sample.source, sample.name, "duplicate", text))
    return notes
