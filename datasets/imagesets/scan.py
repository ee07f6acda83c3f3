"""Find out what the sources hold: every usable picture with its size, hash and caption, every other with its reason."""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from imagesets.captions import with_trigger
from imagesets.colours import Colour, parse_colour
from imagesets.errors import PictureError
from imagesets.framing import Frame, Size
from imagesets.pictures import PictureFacts, Pixels, examine_picture, open_picture, render
from imagesets.sources import Entry, FolderSource, Rows, Source, folder_entries, read_file

DEFAULT_MAX_PIXELS = 64_000_000


@dataclass(frozen=True)
class Sample:
    """One usable picture.

    Attributes:
        name: how messages and the manifest call it.
        source: the name of its source.
        sha256: of its bytes.
        original_size: (height, width), upright, before any resize.
        caption: as it is trained, with its trigger word.
        repeats: how often it is seen in an epoch.
        facts: format, colour mode, orientation.
    """

    name: str
    source: str
    sha256: str
    original_size: Size
    caption: str
    repeats: int
    facts: PictureFacts
    read: Callable[[], bytes] = field(compare=False, repr=False)
    background: Colour = (255, 255, 255)
    max_pixels: int = DEFAULT_MAX_PIXELS

    def render(self, frame: Frame) -> Pixels:
        """Open the picture and return its pixels in a frame, (H, W, 3).

        Raises:
            PictureError: the picture has changed since it was scanned, or can no longer be read.
        """
        content = self.read()
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise PictureError(f"{self.name} was changed since it was scanned. Start again")
        return render(open_picture(content, self.background, self.max_pixels), frame)


@dataclass(frozen=True)
class BadPicture:
    """A datum that cannot be used."""

    source: str
    name: str
    reason: str


@dataclass(frozen=True)
class ScanReport:
    """What the sources hold, in the sources' order and that of the names within each."""

    samples: tuple[Sample, ...]
    bad: tuple[BadPicture, ...]


def scan_sources(
    sources: Sequence[Source], background: str = "#ffffff", max_pixels: int = DEFAULT_MAX_PIXELS
) -> ScanReport:
    """Open and decode every picture of every source once.

    Args:
        sources: where to look.
        background: the colour under see-through parts, as '#rrggbb'.
        max_pixels: larger pictures are refused before they are decoded.

    Raises:
        SourceError: a source cannot be read at all.
    """
    colour = parse_colour(background)
    found: list[Sample | BadPicture] = []
    for source in sources:
        found += _scan_source(source, colour, max_pixels)
    return ScanReport(
        samples=tuple(item for item in found if isinstance(item, Sample)),
        bad=tuple(item for item in found if isinstance(item, BadPicture)),
    )


def _scan_source(source: Source, background: Colour, max_pixels: int) -> list[Sample | BadPicture]:
    read: Callable[[Entry], Callable[[], bytes]]
    if isinstance(source, FolderSource):
        title, entries, read = source.path.name, folder_entries(source), _file_reader
    else:
        rows = Rows(source)
        title, entries, read = source.name, rows.entries(), _row_reader(rows)

    def examine(entry: Entry) -> Sample | BadPicture:
        if entry.problem is not None:
            return BadPicture(title, entry.name, entry.problem)
        reader = read(entry)
        try:
            content = reader()
            facts = examine_picture(content, max_pixels, entry.extension)
        except PictureError as error:
            return BadPicture(title, entry.name, str(error))
        return Sample(
            name=entry.name,
            source=title,
            sha256=hashlib.sha256(content).hexdigest(),
            original_size=facts.size,
            caption=with_trigger(entry.caption, source.trigger),
            repeats=source.repeats,
            facts=facts,
            read=reader,
            background=background,
            max_pixels=max_pixels,
        )

    # Decoders release the interpreter's lock; results come back in order.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(examine, entries))


def _file_reader(entry: Entry) -> Callable[[], bytes]:
    path = entry.path
    assert path is not None
    return lambda: read_file(path)


def _row_reader(rows: Rows) -> Callable[[Entry], Callable[[], bytes]]:
    def reader(entry: Entry) -> Callable[[], bytes]:
        row = entry.row
        assert row is not None
        return lambda: rows.read(row)

    return reader
