"""Reads and checks every picture and caption of the sources, before anything costly is begun.

Each picture is decoded whole, as training will, so that what is found here is all there is to find.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial

from imagesets.captions import with_trigger
from imagesets.colours import Colour, parse_colour
from imagesets.errors import PictureError
from imagesets.files import PictureBytes
from imagesets.opening.decoders import Decoders, Examined, shared_decoders
from imagesets.reading.listing import list_source
from imagesets.samples import DEFAULT_MAX_PIXELS, BadPicture, Note, Sample, ScanReport
from imagesets.sources import Entry, Listing, Source
from imagesets.wording import plain_words

__all__ = ["BadPicture", "Note", "Sample", "ScanReport", "scan_sources"]

_MAX_PART = 16
"""Pictures a process is asked for at once: enough that it never waits, few enough that progress is seen."""

_PICTURES_FOR_A_PROCESS = 8
"""Starting a process takes as long as decoding some pictures: a few are left to one."""


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
    colour = parse_colour(background)
    pool = decoders or shared_decoders(max_pixels)
    listings = [(source, list_source(source)) for source in sources]
    total = sum(len(listing.entries) for _, listing in listings)
    samples: list[Sample] = []
    bad: list[BadPicture] = []
    notes: list[Note] = []
    for source, listing in listings:
        with closing(_examined_in_order(listing.entries, pool, colour, max_pixels)) as results:
            for entry, result in zip(listing.entries, results, strict=True):
                if isinstance(result, Examined):
                    sample = _sample(entry, source, result, colour, max_pixels, pool)
                    samples.append(sample)
                    notes += _notes(sample, entry)
                else:
                    bad.append(BadPicture(source.label, entry.name, str(result)))
                if progress is not None:
                    progress(len(samples) + len(bad), total)
        notes += _unused_captions(source, listing)
    ignored = tuple(name for _, listing in listings for name in listing.ignored)
    return ScanReport(tuple(samples), tuple(bad), (*notes, *_duplicates(samples)), ignored)


def _examined_in_order(
    entries: Sequence[Entry], decoders: Decoders, background: Colour, max_pixels: int
) -> Generator[Examined | PictureError, None, None]:
    """Open every entry's picture, several processes at a time; a bounded number of parts is under way at once."""
    num_processes = max(1, min(decoders.num_processes, len(entries) // _PICTURES_FOR_A_PROCESS))
    size = max(1, min(_MAX_PART, len(entries) // (4 * num_processes)))
    examine = partial(_examine_part, decoders=decoders, background=background, max_pixels=max_pixels)
    under_way: deque[Future[list[Examined | PictureError]]] = deque()
    threads = ThreadPoolExecutor(num_processes)
    try:
        for start in range(0, len(entries), size):
            under_way.append(threads.submit(examine, entries[start : start + size]))
            if len(under_way) > 2 * num_processes:
                yield from under_way.popleft().result()
        while under_way:
            yield from under_way.popleft().result()
    except (KeyboardInterrupt, GeneratorExit):  # Ctrl-C in here, or in whoever goes over the results
        decoders.stop()  # nobody waits for what is under way
        raise
    finally:
        threads.shutdown(cancel_futures=True)


def _examine_part(
    entries: Sequence[Entry], decoders: Decoders, background: Colour, max_pixels: int
) -> list[Examined | PictureError]:
    """Open the pictures of some entries in one process."""
    readable = [(_read_of(entry), entry.extension) for entry in entries if entry.problem is None]
    results = iter(decoders.examine(readable, background, max_pixels) if readable else [])
    return [PictureError(entry.problem) if entry.problem is not None else next(results) for entry in entries]


def _read_of(entry: Entry) -> PictureBytes:
    assert entry.read is not None, "what has no problem can be read"
    return entry.read


def _sample(
    entry: Entry, source: Source, examined: Examined, background: Colour, max_pixels: int, decoders: Decoders
) -> Sample:
    caption, wording = entry.caption or "", source.wording
    return Sample(
        name=entry.name,
        source=source.label,
        sha256=examined.sha256,
        original_size=examined.facts.size,
        caption=with_trigger(caption if wording is None else plain_words(caption, wording), source.trigger),
        repeats=source.repeats * entry.repeats,
        facts=examined.facts,
        read=_read_of(entry),
        background=background,
        max_pixels=max_pixels,
        aesthetic_score=source.aesthetic_score if entry.aesthetic_score is None else entry.aesthetic_score,
        buckets=source.buckets,
        wording=wording,
        written="" if wording is None else caption,
        trigger="" if wording is None else source.trigger,
        loss_weight=source.loss_weight,
        decoders=decoders,
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
