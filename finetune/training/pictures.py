"""Which picture is seen at which step, in which frame, with which caption: all pure functions of seed and step."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from finetune.errors import DataError
from imagesets.buckets import AssignedBuckets, assign_buckets
from imagesets.framing import Frame, make_frame
from imagesets.manifest import manifest_lines
from imagesets.plan import EpochPlan, Item, epoch_plan
from imagesets.randomness import key_to_fraction
from imagesets.scan import Sample

Size = tuple[int, int]

MAX_SHOWINGS = 20_000_000
"""How many an epoch may have: its plan takes some tens of bytes for each."""


@dataclass(frozen=True)
class PlannedSample:
    """One picture as one step sees it.

    Attributes:
        sample: the picture.
        frame: how it is resized, cut and mirrored.
        caption: its caption, or None where it is dropped.
        key: unique within the step; random draws are keyed by it.
    """

    sample: Sample
    frame: Frame
    caption: str | None
    key: str


class Pictures(Protocol):
    """What the loop trains on: a listed set, or a stream."""

    @property
    def micro_batch_size(self) -> int:
        """Samples in one forward pass."""
        ...

    @property
    def batches_per_step(self) -> int:
        """Forward passes in one optimizer step, over all processes."""
        ...

    @property
    def steps_per_epoch(self) -> int | None:
        """Optimizer steps in which every picture is seen once a repeat; None where nobody knows."""
        ...

    @property
    def num_pictures(self) -> int | None:
        """How many there are; None where nobody knows."""
        ...

    @property
    def has_finite_frames(self) -> bool:
        """Whether what training can ask for is a finite set, which can be encoded beforehand."""
        ...

    @property
    def has_finite_captions(self) -> bool:
        """Whether the captions training can ask for are a finite set, which can be encoded beforehand."""
        ...

    def epoch_of(self, global_step: int) -> int:
        """Return the epoch, from 0, that an optimizer step, from 1, belongs to."""
        ...

    def batches_of(self, global_step: int) -> tuple[tuple[PlannedSample, ...], ...]:
        """Return the micro batches of one optimizer step, over all processes; an epoch's last step may have fewer."""
        ...

    def used_buckets(self) -> set[Size]:
        """Return every (height, width) that pictures are, or may come to be, trained at."""
        ...

    def lines(self) -> Iterator[str]:
        """Yield the manifest's lines."""
        ...

    def place(self) -> dict[str, Any] | None:
        """Return what a checkpoint has to keep of how far they were gone over; None where the step says it all."""
        ...

    def go_to(self, global_step: int, place: Mapping[str, Any] | None) -> None:
        """Go on behind a step that was taken."""
        ...


@dataclass(frozen=True)
class TrainingPictures:
    """A set of pictures with its buckets, and the order it is trained in.

    Attributes:
        samples: the pictures.
        buckets: the (height, width) they may be trained at, but for those that have their own.
        crop: 'center' or 'random'.
        flip_probability: how often a picture is mirrored.
        caption_dropout: how often a caption is dropped.
        micro_batch_size: samples in one forward pass.
        batches_per_step: forward passes in one optimizer step, over all processes.
        seed: the run's seed.
        crops_per_picture: how many random crops each picture has; None draws a new one at every showing.
    """

    samples: Sequence[Sample]
    buckets: Sequence[Size]
    crop: str
    flip_probability: float
    caption_dropout: float
    micro_batch_size: int
    batches_per_step: int
    seed: int
    crops_per_picture: int | None = None

    def __post_init__(self) -> None:
        if not self.samples:
            raise DataError("there is no picture to train on. Give a folder with JPEG, PNG or WebP files.")
        _require_bounded_epoch(self.samples)
        object.__setattr__(self, "_assigned", _assigned(self.samples, self.buckets))
        object.__setattr__(self, "_plans", {})
        # Every epoch has as many batches; asking the plan at each step would drop the epoch's own from memory.
        object.__setattr__(self, "_steps_per_epoch", -(-len(self._plan(0)) // self.batches_per_step))

    @property
    def assigned(self) -> AssignedBuckets:
        """The (height, width) each sample is trained at."""
        assigned: AssignedBuckets = self._assigned  # type: ignore[attr-defined]
        return assigned

    @property
    def num_pictures(self) -> int:
        """How many there are."""
        return len(self.samples)

    def used_buckets(self) -> set[Size]:
        """Return every (height, width) that a picture is trained at."""
        return set(self.assigned)

    def lines(self) -> Iterator[str]:
        """Yield the manifest's lines."""
        return manifest_lines(self.samples, self.assigned)

    def place(self) -> None:
        """Return None: the step says what comes next."""
        return

    def go_to(self, _global_step: int, _place: Mapping[str, Any] | None) -> None:
        """Do nothing: any step can be asked for."""

    def bucket_of(self, index: int) -> Size:
        """Return the (height, width) sample `index` is trained at."""
        return self.assigned[index]

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in which every picture is seen once a repeat."""
        steps: int = self._steps_per_epoch  # type: ignore[attr-defined]
        return steps

    def epoch_of(self, global_step: int) -> int:
        """Return the epoch, from 0, that optimizer step `global_step`, from 1, belongs to."""
        return (global_step - 1) // self.steps_per_epoch

    def batches_of(self, global_step: int) -> tuple[tuple[PlannedSample, ...], ...]:
        """Return the micro batches of one optimizer step, over all processes; an epoch's last step may have fewer."""
        epoch = self.epoch_of(global_step)
        first = (global_step - 1) % self.steps_per_epoch * self.batches_per_step
        batches = self._plan(epoch)[first : first + self.batches_per_step]
        return tuple(
            tuple(self._planned(item, batch.bucket, epoch, global_step) for item in batch.items) for batch in batches
        )

    @property
    def has_finite_frames(self) -> bool:
        """Whether what training can ask for is a finite set, which can be encoded beforehand."""
        return self.crop == "center" or self.crops_per_picture is not None

    def frames(self) -> list[tuple[Sample, Frame]]:
        """Return every (picture, frame) that training can ask for, where they are a finite set."""
        assert self.has_finite_frames, "random crops without a number are not a finite set"
        flips = [False, True] if self.flip_probability > 0.0 else [False]
        crops = range(1 if self.crop == "center" or self.crops_per_picture is None else self.crops_per_picture)
        return [
            (sample, self._frame(index, crop, flipped=flipped))
            for index, sample in enumerate(self.samples)
            for crop in crops
            for flipped in flips
        ]

    @property
    def has_finite_captions(self) -> bool:
        """Whether the captions training can ask for are a finite set, which can be encoded beforehand."""
        return all(sample.num_captions is not None for sample in self.samples)

    def captions(self) -> list[str]:
        """Return every caption that training can ask for, where they are a finite set; a sample's lie together."""
        assert self.has_finite_captions, "new wordings at every showing are not a finite set"
        return [caption for index in range(len(self.samples)) for caption in self.captions_of(index)]

    def captions_of(self, index: int) -> list[str]:
        """Return every caption sample `index` can have; where there is no end of them, as it reads before any draw."""
        sample = self.samples[index]
        if sample.num_captions is None:
            return [sample.caption]
        return [sample.caption_of(turn, self._caption_key(index)) for turn in range(sample.num_captions)]

    def _caption_key(self, index: int) -> tuple[int | str, ...]:
        return (self.seed, "wording", index)

    def _planned(self, item: Item, bucket: Size, epoch: int, global_step: int) -> PlannedSample:
        sample = self.samples[item.sample]
        key = f"{item.sample}.{item.repeat}"
        flipped = key_to_fraction(self.seed, "flip", epoch, key) < self.flip_probability
        dropped = key_to_fraction(self.seed, "caption-dropout", global_step, key) < self.caption_dropout
        showing = epoch * sample.repeats + item.repeat
        if self.crop == "random" and self.crops_per_picture is None:
            crop_key = (self.seed, "crop", epoch, key)
            frame = make_frame(sample.original_size, bucket, "random", flipped=flipped, key=crop_key)
        else:
            frame = self._frame(item.sample, showing % (self.crops_per_picture or 1), flipped=flipped)
        caption = None if dropped else sample.caption_of(showing, self._caption_key(item.sample))
        return PlannedSample(sample, frame, caption, key)

    def _frame(self, index: int, crop: int, *, flipped: bool) -> Frame:
        """Return a picture's centred frame, or its random one of number `crop`."""
        key = (self.seed, "crop of a few", crop, index)
        return make_frame(self.samples[index].original_size, self.bucket_of(index), self.crop, flipped=flipped, key=key)

    def _plan(self, epoch: int) -> EpochPlan:
        plans: dict[int, EpochPlan] = self._plans  # type: ignore[attr-defined]
        if epoch not in plans:
            plans.clear()
            repeats = np.fromiter((sample.repeats for sample in self.samples), np.int64, len(self.samples))
            plans[epoch] = epoch_plan(self.assigned, repeats, self.micro_batch_size, self.seed, epoch)
        return plans[epoch]


def _require_bounded_epoch(samples: Sequence[Sample]) -> None:
    showings = sum(sample.repeats for sample in samples)
    if showings > MAX_SHOWINGS:
        most = max(sample.repeats for sample in samples)
        raise DataError(
            f"an epoch shows {showings:,} pictures ({len(samples):,}, repeated up to {most:,} times); at most "
            f"{MAX_SHOWINGS:,} are planned at once. Give sources fewer repeats: data.sources.0.repeats=1"
        )


def _assigned(samples: Sequence[Sample], buckets: Sequence[Size]) -> AssignedBuckets:
    """Assign every sample its bucket, out of its own where it has some."""
    choices: dict[int, tuple[Sequence[Size], list[int]]] = {}
    for index, sample in enumerate(samples):
        # A source's samples share one object; hashing the sizes a million times would take longer than all else.
        choices.setdefault(id(sample.buckets), (sample.buckets or buckets, []))[1].append(index)
    sizes = tuple(dict.fromkeys(size for choice, _ in choices.values() for size in choice))
    places = {size: place for place, size in enumerate(sizes)}
    indices = np.empty(len(samples), dtype=np.int64)
    for choice, members in choices.values():
        taken = assign_buckets((samples[index].original_size for index in members), choice)
        indices[members] = np.array([places[size] for size in choice])[taken.indices]
    return AssignedBuckets(sizes, indices)
