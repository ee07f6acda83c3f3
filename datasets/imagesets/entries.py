"""Opens the pictures of entries, several at a time, and makes samples of those that can be used."""

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from imagesets.captions import with_trigger
from imagesets.colours import Colour
from imagesets.errors import PictureError
from imagesets.files import PictureBytes
from imagesets.framing import Size
from imagesets.masks import AlphaMask, FileMask, MaskOptions, SampleMask
from imagesets.opening.decoders import Decoders, Examined, ExaminedMask
from imagesets.samples import BadPicture, Sample
from imagesets.sources import Entry, Source
from imagesets.wording import plain_words

SourcedEntry = tuple[Source, Entry]

_MAX_PART = 16
"""Pictures a process is asked for at once: enough that it never waits, few enough that progress is seen."""

_PICTURES_FOR_A_PROCESS = 8
"""Starting a process takes as long as decoding some pictures: a few are left to one."""


@dataclass(frozen=True)
class Opening:
    """How pictures are opened.

    Attributes:
        decoders: the processes that decode, now and when a sample is loaded.
        background: the colour under see-through parts.
        max_pixels: larger pictures are refused before they are decoded.
    """

    decoders: Decoders
    background: Colour
    max_pixels: int

    def open(
        self, entries: Iterable[SourcedEntry], count: int | None = None, part: int = _MAX_PART
    ) -> Generator[Sample | BadPicture, None, None]:
        """Open every entry's picture whole, as training will, several processes at a time; give results in order.

        A bounded number of parts is under way at once, so that the entries may be a stream.

        Args:
            entries: each with its source.
            count: how many there are, where it is known.
            part: how many one process is asked for at once, at most.

        Raises:
            DecoderError: no process that decodes can be started.
        """
        num_processes, size = self.decoders.num_processes, part
        if count is not None:
            num_processes = max(1, min(num_processes, count // _PICTURES_FOR_A_PROCESS))
            size = max(1, min(size, count // (4 * num_processes)))
        waiting = iter(entries)
        under_way: deque[Future[list[Sample | BadPicture]]] = deque()
        threads = ThreadPoolExecutor(num_processes)
        try:
            while asked := list(islice(waiting, size)):
                under_way.append(threads.submit(self._open_part, asked))
                if len(under_way) > 2 * num_processes:
                    yield from under_way.popleft().result()
            while under_way:
                yield from under_way.popleft().result()
        except KeyboardInterrupt:
            self.decoders.stop()  # nobody waits for what is under way
            raise
        finally:
            threads.shutdown(cancel_futures=True)

    def _open_part(self, entries: Sequence[SourcedEntry]) -> list[Sample | BadPicture]:
        """Open the pictures of some entries in one process."""
        readable = [(_read_of(entry), entry.extension) for _, entry in entries if entry.problem is None]
        results = iter(self.decoders.examine(readable, self.background, self.max_pixels) if readable else [])
        examined = [PictureError(entry.problem) if entry.problem is not None else next(results) for _, entry in entries]
        files = [
            entry.mask
            for (_, entry), result in zip(entries, examined, strict=True)
            if entry.mask is not None and isinstance(result, Examined)
        ]
        masks = iter(self.decoders.examine_masks(files, self.max_pixels) if files else [])
        opened: list[Sample | BadPicture] = []
        for (source, entry), result in zip(entries, examined, strict=True):
            try:
                if isinstance(result, PictureError):
                    raise result
                mask = sample_mask(source.mask, entry, result, None if entry.mask is None else next(masks))
                opened.append(self._sample(source, entry, result, mask))
            except PictureError as error:
                opened.append(BadPicture(source.label, entry.name, str(error)))
        return opened

    def _sample(self, source: Source, entry: Entry, examined: Examined, mask: SampleMask | None) -> Sample:
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
            background=self.background,
            max_pixels=self.max_pixels,
            aesthetic_score=source.aesthetic_score if entry.aesthetic_score is None else entry.aesthetic_score,
            buckets=source.buckets,
            wording=wording,
            written="" if wording is None else caption,
            trigger=source.trigger,
            loss_weight=source.loss_weight,
            mask=mask,
            decoders=self.decoders,
        )


def sample_mask(
    options: MaskOptions | None, entry: Entry, examined: Examined, found: ExaminedMask | PictureError | None
) -> SampleMask | None:
    """Return the mask of a picture, or None where it has none and all of it counts.

    Args:
        options: where its source has masks.
        entry: the picture.
        examined: what it is.
        found: what the mask's file is, or why it cannot be used; None where there is none.

    Raises:
        PictureError: the mask cannot be used, shows another aspect than the picture, or leaves nothing of it.
    """
    if isinstance(options, AlphaMask) and examined.facts.has_alpha:
        mask = SampleMask(options.weight_outside, examined.facts.opacity, None, examined.sha256, _read_of(entry))
        said = "its transparency, which is its mask,"
    elif isinstance(options, FileMask) and entry.mask is not None and found is not None:
        said = f"its mask {entry.mask.name}"
        if isinstance(found, PictureError):
            raise PictureError(f"{said}: {found}")
        _require_same_aspect(found.facts.size, examined.facts.size, said)
        mask = SampleMask(options.weight_outside, found.facts.share, entry.mask.name, found.sha256, entry.mask)
    else:
        return None
    if mask.share == 0.0:
        raise PictureError(f"{said} leaves nothing of it: remove the picture, or mend the mask")
    return mask


def _require_same_aspect(mask: Size, picture: Size, said: str) -> None:
    """Raise a PictureError unless a mask is the picture's size, times a factor, to the nearest pixel."""
    (height, width), (full_height, full_width) = mask, picture
    if abs(height * full_width - width * full_height) > max(full_height, full_width):
        raise PictureError(
            f"{said} is {height} x {width} (height x width), and the picture {full_height} x {full_width}, upright: "
            "another aspect. Give the mask the picture's size"
        )


def _read_of(entry: Entry) -> PictureBytes:
    assert entry.read is not None, "what has no problem can be read"
    return entry.read
