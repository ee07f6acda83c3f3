"""Reads and checks every picture and caption of the sources, before anything costly is begun.

Each picture is decoded whole, as training will, so that what is found here is all there is to find.
"""

from collections.abc import Callable, Sequence
from contextlib import closing

from imagesets.colours import parse_colour
from imagesets.entries import Opening
from imagesets.opening.decoders import Decoders, shared_decoders
from imagesets.reading.listing import list_source
from imagesets.samples import DEFAULT_MAX_PIXELS, BadPicture, Note, Sample, ScanReport
from imagesets.sources import Entry, Listing, Source

__all__ = ["BadPicture", "Note", "Sample", "ScanReport", "scan_sources"]


def scan_sources(
    sources: Sequence[Source],
    background: str = "#ffffff",
    max_pixels: int = DEFAULT_MAX_PIXELS,
    progress: Callable[[int, int], None] | None = None,
    decoders: Decoders | None = None,
) -> ScanReport:
    """Open and decode every picture of every source once, in child processes on all cores.

    Args:
        sources: where to look.
        background: the colour under see-through parts, as '#rrggbb'.
        max_pixels: larger pictures are refused before they are decoded.
        progress: called with (done, total) after each picture of a source.
        decoders: the processes that decode, now and when a sample is loaded; None takes those all share.

    Raises:
        SourceError: a source cannot be read at all.
        DecoderError: no process that decodes can be started.
        ValueError: `background` is no colour.
    """
    opening = Opening(decoders or shared_decoders(max_pixels), parse_colour(background), max_pixels)
    listings = [(source, list_source(source)) for source in sources]
    total = sum(len(listing.entries) for _, listing in listings)
    samples: list[Sample] = []
    bad: list[BadPicture] = []
    notes: list[Note] = []
    for source, listing in listings:
        entries = [(source, entry) for entry in listing.entries]
        with closing(opening.open(entries, len(entries))) as results:
            for entry, result in zip(listing.entries, results, strict=True):
                if isinstance(result, Sample):
                    samples.append(result)
                    notes += _notes(result, entry, source)
                else:
                    bad.append(result)
                if progress is not None:
                    progress(len(samples) + len(bad), total)
        notes += _unused(source, listing)
    ignored = tuple(name for _, listing in listings for name in listing.ignored)
    return ScanReport(tuple(samples), tuple(bad), (*notes, *_duplicates(samples)), ignored)


def _notes(sample: Sample, entry: Entry, source: Source) -> list[Note]:
    """Say what is odd about one usable picture."""
    notes = []
    if entry.caption is None:
        notes.append(Note(sample.source, sample.name, "missing_caption", "it has no caption"))
    elif not entry.caption:
        notes.append(Note(sample.source, sample.name, "empty_caption", "its caption is empty"))
    if sample.facts.num_frames > 1:
        text = f"it is an animation of {sample.facts.num_frames} frames, of which the first is used"
        notes.append(Note(sample.source, sample.name, "animation", text))
    if source.mask is not None and sample.mask is None:
        text = "it has no mask, so all of it is trained on"
        notes.append(Note(sample.source, sample.name, "missing_mask", text))
    return notes


def _unused(source: Source, listing: Listing) -> list[Note]:
    """Name the captions and masks that belong to no picture."""
    text = "there is no picture of this name"
    notes = [Note(source.label, name, "unused_caption", text) for name in listing.unused_captions]
    return notes + [Note(source.label, name, "unused_mask", text) for name in listing.unused_masks]


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
