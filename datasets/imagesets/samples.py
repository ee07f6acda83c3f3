"""What a scan finds: usable pictures, unusable ones with the reason, and what is allowed but worth a look."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from PIL import Image

from imagesets.captions import with_trigger
from imagesets.colours import Colour
from imagesets.errors import PictureError
from imagesets.files import PictureBytes
from imagesets.framing import Frame, Size
from imagesets.masks import SampleMask
from imagesets.opening.decoders import Decoders
from imagesets.pictures import (
    Levels,
    PictureFacts,
    Pixels,
    open_mask,
    open_picture,
    open_transparency,
    render,
    render_mask,
    render_small,
)
from imagesets.randomness import KeyPart
from imagesets.sources import DEFAULT_AESTHETIC_SCORE
from imagesets.wording import Wording, num_wordings, word

DEFAULT_MAX_PIXELS = 64_000_000

NoteKind = Literal[
    "missing_caption",
    "empty_caption",
    "unused_caption",
    "unread_caption",
    "animation",
    "duplicate",
    "missing_mask",
    "unused_mask",
    "setting",
]


@dataclass(frozen=True, slots=True)
class Sample:
    """One usable picture.

    Attributes:
        name: how messages and the manifest call it: its path in the source, or 'row 12'.
        source: the name of its source.
        sha256: of its bytes, in hexadecimal.
        original_size: (height, width), upright, before any resize.
        caption: as it is trained, with its trigger word; '' where there is none. Where it is worded anew for each
            showing, how it reads before any draw.
        repeats: how often it is seen in an epoch.
        facts: format, colour mode, orientation.
        read: returns its bytes, or raises a PictureError.
        background: what lies under see-through parts.
        max_pixels: larger pictures are refused.
        aesthetic_score: from 0 to 10: what a refiner is told of it.
        buckets: the (height, width) it may be trained at; None for those of the whole set.
        wording: what is done to its caption at each showing; None leaves it as it is.
        written: the caption that is worded, as the source has it; each line one of its own where lines are chosen.
        trigger: the word that calls up what is learned; '' where there is none.
        loss_weight: what its loss counts beside that of others, which is 1.
        mask: which of its parts count; None where all do.
        decoders: the processes that open it; None opens it in this one, for a picture of one's own making.
    """

    name: str
    source: str
    sha256: str
    original_size: Size
    caption: str
    repeats: int
    facts: PictureFacts
    read: PictureBytes = field(compare=False, repr=False)
    background: Colour = (255, 255, 255)
    max_pixels: int = DEFAULT_MAX_PIXELS
    aesthetic_score: float = DEFAULT_AESTHETIC_SCORE
    buckets: tuple[Size, ...] | None = None
    wording: Wording | None = None
    written: str = ""
    trigger: str = ""
    loss_weight: float = 1.0
    mask: SampleMask | None = None
    decoders: Decoders | None = field(default=None, compare=False, repr=False)

    @property
    def num_captions(self) -> int | None:
        """After how many showings its captions come round again; None where they never do."""
        return 1 if self.wording is None else num_wordings(self.written, self.wording)

    def caption_of(self, showing: int, key: Sequence[KeyPart]) -> str:
        """Return the caption of one showing, with the trigger word.

        Args:
            showing: its number, from 0, over all epochs.
            key: what the draws depend on beside the showing.
        """
        if self.wording is None:
            return self.caption
        turn = showing if self.num_captions is None else showing % self.num_captions
        return with_trigger(word(self.written, self.wording, (*key, turn), turn), self.trigger)

    def load(self) -> Image.Image:
        """Open the picture: upright, 8-bit sRGB.

        Raises:
            PictureError: it has changed since it was scanned, or can no longer be read; the message names it.
        """
        with self._named_errors():
            if self.decoders is not None:
                return self.decoders.load(self.read, self.sha256, self.background, self.max_pixels)
            return open_picture(_unchanged(self.read, self.sha256), self.background, self.max_pixels)

    def render(self, frame: Frame) -> Pixels:
        """Open the picture and return its pixels in a frame, (H, W, 3), uint8.

        Raises:
            PictureError: as `load` does, or the frame was made for another picture.
        """
        with self._named_errors():
            if self.decoders is not None:
                return self.decoders.render(self.read, self.sha256, self.background, self.max_pixels, frame)
            return render(open_picture(_unchanged(self.read, self.sha256), self.background, self.max_pixels), frame)

    def render_small(self, size: Size) -> Pixels:
        """Open the picture to be looked at: whole, at a (height, width) far below its own, (H, W, 3), uint8.

        Raises:
            PictureError: as `load` does.
        """
        with self._named_errors():
            if self.decoders is not None:
                return self.decoders.render_small(self.read, self.sha256, self.background, self.max_pixels, size)
            return render_small(_unchanged(self.read, self.sha256), self.background, self.max_pixels, size)

    def render_mask(self, frame: Frame) -> Levels | None:
        """Open the mask and return its pixels in the picture's frame, (H, W), uint8; None where there is none.

        255 counts whole and 0 as little as the mask's `weight_outside`.

        Raises:
            PictureError: as `render` does.
        """
        mask = self.mask
        if mask is None:
            return None
        with self._named_errors():
            try:
                if self.decoders is not None:
                    return self.decoders.render_mask(mask, self.max_pixels, frame)
                open_levels = open_transparency if mask.is_alpha else open_mask
                return render_mask(open_levels(_unchanged(mask.read, mask.sha256), self.max_pixels), frame)
            except PictureError as error:
                raise PictureError(f"its mask {mask.name}: {error}" if mask.name else str(error)) from error

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except PictureError as error:
            raise PictureError(f"{self.name}: {error}") from error


def _unchanged(read: PictureBytes, sha256: str) -> bytes:
    content = read()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise PictureError("it was changed since it was scanned. Start again")
    return content


@dataclass(frozen=True, slots=True)
class BadPicture:
    """A datum that cannot be used: a picture, or a line of a metadata file ('metadata.jsonl:3')."""

    source: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something that is allowed and may not be meant."""

    source: str
    name: str
    kind: NoteKind
    text: str


@dataclass(frozen=True, slots=True)
class PassedOver:
    """Something in a source that is no picture."""

    source: str
    name: str


@dataclass(frozen=True)
class ScanReport:
    """What the sources hold, in the sources' order and that of the names within each.

    Attributes:
        samples: usable pictures.
        bad: what cannot be used, each with its reason.
        notes: what is allowed and may not be meant.
        passed_over: what is no picture: hidden files, other kinds of files.
        sources: the names of the sources, each once.
        is_beginning: whether these are only the first pictures of what is read as it comes.
    """

    samples: tuple[Sample, ...]
    bad: tuple[BadPicture, ...]
    notes: tuple[Note, ...] = ()
    passed_over: tuple[PassedOver, ...] = ()
    sources: tuple[str, ...] = ()
    is_beginning: bool = False

    @property
    def ignored(self) -> tuple[str, ...]:
        """The names of what was passed over."""
        return tuple(each.name for each in self.passed_over)

    def called(self, source: str, name: str) -> str:
        """Return a name as messages have it: after that of its source where there are several."""
        return f"{source}: {name}" if len(self.sources) > 1 and source else name

    def describe_bad(self, shown: int = 20) -> str:
        """Return the message for a person: how many cannot be used, and the first `shown` with their reasons."""
        total = len(self.bad) + len(self.samples)
        lines = [f"{len(self.bad)} of {total} {'picture' if total == 1 else 'pictures'} cannot be used:"]
        lines += [f"  {bad.source}: {bad.name}: {bad.reason}" for bad in self.bad[:shown]]
        if len(self.bad) > shown:
            lines.append(f"  … and {len(self.bad) - shown} more")
        return "\n".join(lines)
