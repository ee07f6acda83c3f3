"""Pictures that are too many to be listed: read as they come, put into batches by a bounded buffer, seen step by step.

What a step sees is a function of the seed and of what the sources hold, as with a listed set, but it is reached only
by going over the epoch from its beginning. A checkpoint therefore keeps the place: what of the epoch was read, and
which of it was still in the buffer. Every process goes over the whole stream and trains on its share of each step.
"""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from finetune.errors import DataError
from finetune.training.pictures import PlannedSample, Size
from imagesets import HuggingFaceSource, SourceError
from imagesets.buckets import assign_bucket
from imagesets.entries import Opening, SourcedEntry
from imagesets.files import HeldBytes
from imagesets.framing import make_frame
from imagesets.randomness import key_to_fraction
from imagesets.reading.addresses import shown_address
from imagesets.samples import BadPicture, Sample
from imagesets.stream_buffer import BucketBuffer
from imagesets.streams import EntryStream, Streamed, mixed, possible_buckets

PART = 4
"""Pictures a decoding process is asked for at once: few, as what is read ahead is in memory beside the buffer."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """A picture in the buffer."""

    sample: Sample
    showing: int
    number: int


@dataclass
class _Epoch:
    """Where an epoch has got to.

    Attributes:
        index: which epoch, from 0.
        opened: yields what comes next, a picture or why it cannot be used.
        coming: what `opened` was given and has not answered yet.
        buffer: what was read and not yet seen.
        num_read: how many showings were read.
        num_batches: how many batches were made.
    """

    index: int
    opened: Iterator[Sample | BadPicture]
    coming: deque[Streamed]
    buffer: BucketBuffer[_Opened]
    num_read: int = 0
    num_batches: int = 0


@dataclass
class StreamedPictures:
    """A stream of pictures, and the order it is trained in. Steps are asked for one after the other.

    Attributes:
        streams: the sources.
        opening: how pictures are opened.
        buckets: the (height, width) they may be trained at, but for those that have their own.
        crop: 'center' or 'random'.
        flip_probability: how often a picture is mirrored.
        caption_dropout: how often a caption is dropped.
        micro_batch_size: samples in one forward pass.
        batches_per_step: forward passes in one optimizer step, over all processes.
        seed: the run's seed.
        max_held: pictures in the buffer.
        max_held_bytes: memory their files take.
        on_bad: told of each picture that cannot be used; it may raise.
        warn: told where a stream is not what a checkpoint knew.
    """

    streams: Sequence[EntryStream]
    opening: Opening
    buckets: Sequence[Size]
    crop: str
    flip_probability: float
    caption_dropout: float
    micro_batch_size: int
    batches_per_step: int
    seed: int
    max_held: int
    max_held_bytes: int
    on_bad: Callable[[BadPicture], None]
    warn: Callable[[str], None]
    has_finite_frames: bool = field(default=False, init=False)
    has_finite_captions: bool = field(default=False, init=False)
    _epoch: _Epoch | None = field(default=None, init=False, repr=False)
    _step: int = field(default=0, init=False, repr=False)

    @property
    def steps_per_epoch(self) -> int | None:
        """Nobody knows before the end of the stream."""
        return None

    @property
    def num_pictures(self) -> int | None:
        """Nobody knows before the end of the stream."""
        return None

    def used_buckets(self) -> set[Size]:
        """Return every (height, width) a picture may come to be trained at."""
        return possible_buckets([stream.source for stream in self.streams], self.buckets)

    def epoch_of(self, global_step: int) -> int:
        """Return the epoch, from 0, of the step that was asked for last."""
        assert global_step == self._step, "a stream knows the epoch of its last step"
        return 0 if self._epoch is None else self._epoch.index

    def batches_of(self, global_step: int) -> tuple[tuple[PlannedSample, ...], ...]:
        """Return the micro batches of one optimizer step, over all processes; an epoch's last step may have fewer.

        Raises:
            DataError: the stream cannot be read any more, or holds no picture that can be used.
        """
        assert global_step == self._step + 1, "a stream is gone over in order"
        try:
            if self._epoch is None:
                self._epoch = self._begun(0)
            batches = self._next_batches()
            if not batches:
                self._epoch = self._begun(self._epoch.index + 1)
                batches = self._next_batches()
        except SourceError as error:
            raise DataError(str(error)) from error
        if not batches:
            raise DataError("the stream holds no picture that can be used. Look at it with: atelier data inspect")
        self._step = global_step
        return tuple(tuple(self._planned(opened, bucket, global_step) for opened in items) for bucket, items in batches)

    def place(self) -> dict[str, Any] | None:
        """Return, for a checkpoint, how far the stream was read."""
        epoch = self._epoch
        if epoch is None:
            return None
        return {
            "epoch": epoch.index,
            "read": epoch.num_read,
            "held": epoch.buffer.numbers,
            "held_hash": _hash_of(epoch.buffer.items),
            "batches": epoch.num_batches,
        }

    def go_to(self, global_step: int, place: Mapping[str, Any] | None) -> None:
        """Go on behind a step that was taken: what the buffer held then is read again, the rest is passed over."""
        self._step = global_step
        if place is None:
            return
        held, read = frozenset(place["held"]), place["read"]
        epoch = self._begun(place["epoch"], lambda number: number in held or number >= read)
        epoch.num_batches = place["batches"]
        while len(epoch.buffer) < len(held) and self._read_one(epoch):
            pass
        epoch.num_read = read
        self._epoch = epoch
        if epoch.buffer.numbers != place["held"] or _hash_of(epoch.buffer.items) != place["held_hash"]:
            self.warn("the stream is not what it was when the run was saved: other pictures come from here on")

    def lines(self) -> Iterator[str]:
        """Yield a manifest's line for each source: what can be said of a stream before it is read."""
        for stream in self.streams:
            source = stream.source
            where = source.name if isinstance(source, HuggingFaceSource) else shown_address(str(source.path))
            facts = json.dumps(stream.facts(), ensure_ascii=False)
            entry = {
                "stream": where,
                "repeats": source.repeats,
                "pictures": stream.estimate,
                "facts_hash": hashlib.sha256(facts.encode("utf-8", "backslashreplace")).hexdigest(),
            }
            yield json.dumps(entry, ensure_ascii=False) + "\n"

    def _begun(self, index: int, wanted: Callable[[int], bool] = lambda _number: True) -> _Epoch:
        """Return an epoch at its beginning; what is not wanted of it is passed over."""
        coming: deque[Streamed] = deque()

        def entries() -> Iterator[SourcedEntry]:
            for streamed in mixed(self.streams, (self.seed, "stream", index), wanted):
                coming.append(streamed)
                yield streamed.source, streamed.entry

        buffer: BucketBuffer[_Opened] = BucketBuffer(self.micro_batch_size, self.max_held, self.max_held_bytes)
        return _Epoch(index, self.opening.open(entries(), part=PART), coming, buffer)

    def _next_batches(self) -> list[tuple[Size, list[_Opened]]]:
        """Take the batches of a step out of the buffer, which is kept full; none at the epoch's end."""
        epoch = self._epoch
        assert epoch is not None, "it was begun"
        batches: list[tuple[Size, list[_Opened]]] = []
        while len(batches) < self.batches_per_step:
            while not epoch.buffer.is_full and self._read_one(epoch):
                pass
            if not len(epoch.buffer):
                break
            batches.append(epoch.buffer.take((self.seed, "stream-batch", epoch.index, epoch.num_batches)))
            epoch.num_batches += 1
        return batches

    def _read_one(self, epoch: _Epoch) -> bool:
        """Put the next picture that can be used into the buffer; return whether there was one."""
        for result in epoch.opened:
            streamed = epoch.coming.popleft()
            epoch.num_read = streamed.number + 1
            if isinstance(result, BadPicture):
                self.on_bad(result)
                continue
            bucket = assign_bucket(result.original_size, result.buckets or self.buckets)
            num_bytes = len(result.read.content) if isinstance(result.read, HeldBytes) else 0
            opened = _Opened(result, streamed.showing, streamed.number)
            epoch.buffer.put(opened, streamed.number, bucket, num_bytes)
            return True
        return False

    def _planned(self, opened: _Opened, bucket: Size, global_step: int) -> PlannedSample:
        assert self._epoch is not None, "it was begun"
        sample, epoch, key = opened.sample, self._epoch.index, str(opened.number)
        flipped = key_to_fraction(self.seed, "flip", epoch, key) < self.flip_probability
        dropped = key_to_fraction(self.seed, "caption-dropout", global_step, key) < self.caption_dropout
        crop_key = (self.seed, "crop", epoch, key)
        frame = make_frame(sample.original_size, bucket, self.crop, flipped=flipped, key=crop_key)
        showing = epoch * sample.repeats + opened.showing
        caption = None if dropped else sample.caption_of(showing, (self.seed, "wording", sample.source, sample.name))
        return PlannedSample(sample, frame, caption, key)


def _hash_of(held: Iterable[_Opened]) -> str:
    """Return a hash of pictures in the buffer, with their captions."""
    digest = hashlib.sha256()
    for opened in held:
        digest.update(f"{opened.sample.sha256} {opened.sample.caption}\n".encode("utf-8", "backslashreplace"))
    return digest.hexdigest()
