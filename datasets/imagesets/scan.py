"""Reads and checks every picture and caption of the sources, before anything costly is begun.

Each picture is decoded whole, as training will, so that what is found here is all there is to find.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice

from imagesets.colours import parse_colour
from imagesets.entries import Opening, SourcedEntry
from imagesets.errors import of_source
from imagesets.opening.decoders import Decoders, shared_decoders
from imagesets.reading.listing import list_source
from imagesets.samples import DEFAULT_MAX_PIXELS, BadPicture, Note, PassedOver, Sample, ScanReport
from imagesets.sources import Entry, Listing, Source
from imagesets.streams import mixed, open_streams

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
    listings = []
    for place, source in enumerate(sources):
        with of_source(place):
            listings.append((source, list_source(source)))
    entries = [(source, entry) for source, listing in listings for entry in listing.entries]
    report = _opened(entries, opening, progress)
    unused = [note for source, listing in listings for note in _unused(source, listing)]
    return replace(
        report,
        notes=(*report.notes, *unused, *_duplicates(report.samples)),
        passed_over=tuple(PassedOver(source.label, name) for source, listing in listings for name in listing.ignored),
    )


def scan_beginning(
    sources: Sequence[Source],
    count: int,
    background: str = "#ffffff",
    max_pixels: int = DEFAULT_MAX_PIXELS,
    progress: Callable[[int, int], None] | None = None,
    decoders: Decoders | None = None,
) -> ScanReport:
    """Open and decode the first pictures of sources that are read as they come, mixed as training mixes them.

    Args:
        sources: where to look; others than streams are listed whole.
        count: how many pictures, at most. Of a stream their bytes stay in memory with the samples.
        background: as `scan_sources`'s, as are the rest and what is raised.
        max_pixels: so, too.
        progress: so, too.
        decoders: so, too.
    """
    opening = Opening(decoders or shared_decoders(max_pixels), parse_colour(background), max_pixels)
    showings = mixed(open_streams(sources), ("beginning",), lambda _number: True)
    first = list(islice(showings, count))
    seen: set[tuple[str, str]] = set()
    entries = []
    for streamed in first:  # a picture that is repeated is looked at once
        key = (streamed.source.label, streamed.entry.name)
        if key not in seen:
            seen.add(key)
            entries.append((streamed.source, streamed.entry))
    more_come = next(showings, None) is not None
    report = _opened(entries, opening, progress)
    return replace(report, notes=(*report.notes, *_duplicates(report.samples)), is_beginning=more_come)


def _opened(
    entries: Sequence[SourcedEntry], opening: Opening, progress: Callable[[int, int], None] | None
) -> ScanReport:
    """Open every entry's picture and sort out what can be used."""
    samples: list[Sample] = []
    bad: list[BadPicture] = []
    notes: list[Note] = []
    with closing(opening.open(entries, len(entries))) as results:
        try:
            for (source, entry), result in zip(entries, results, strict=True):
                if isinstance(result, Sample):
                    samples.append(result)
                    notes += _notes(result, entry, source)
                else:
                    bad.append(result)
                if progress is not None:
                    progress(len(samples) + len(bad), len(entries))
        except KeyboardInterrupt:
            opening.decoders.stop()  # nobody waits for what is under way
            raise
    labels = dict.fromkeys(source.label for source, _ in entries)
    return ScanReport(tuple(samples), tuple(bad), tuple(notes), sources=tuple(labels))


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
    """Name the captions and masks that belong to no picture, and the captions that are not read."""
    text = "there is no picture of this name"
    notes = [Note(source.label, name, "unused_caption", text) for name in listing.unused_captions]
    notes += [
        Note(source.label, picture, "unread_caption", f"{file} is not read")
        for picture, file in listing.unread_captions
    ]
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
