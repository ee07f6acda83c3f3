"""Which picture is seen at which step, in which frame, with which caption: all pure functions of seed and step."""

from collections.abc import Sequence
from dataclasses import dataclass

from finetune.errors import DataError
from imagesets.buckets import assign_bucket
from imagesets.framing import Frame, make_frame
from imagesets.plan import Batch, Item, epoch_plan
from imagesets.randomness import key_to_fraction
from imagesets.scan import Sample

Size = tuple[int, int]


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
        assigned = tuple(assign_bucket(sample.original_size, sample.buckets or self.buckets) for sample in self.samples)
        object.__setattr__(self, "_assigned", assigned)
        object.__setattr__(self, "_plans", {})
        # Every epoch has as many batches; asking the plan at each step would drop the epoch's own from memory.
        object.__setattr__(self, "_steps_per_epoch", -(-len(self._plan(0)) // self.batches_per_step))

    def bucket_of(self, index: int) -> Size:
        """Return the (height, width) sample `index` is trained at."""
        assigned: tuple[Size, ...] = self._assigned  # type: ignore[attr-defined]
        return assigned[index]

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

    def _planned(self, item: Item, bucket: Size, epoch: int, global_step: int) -> PlannedSample:
        sample = self.samples[item.sample]
        key = f"{item.sample}.{item.repeat}"
        flipped = key_to_fraction(self.seed, "flip", epoch, key) < self.flip_probability
        dropped = key_to_fraction(self.seed, "caption-dropout", global_step, key) < self.caption_dropout
        if self.crop == "random" and self.crops_per_picture is None:
            crop_key = (self.seed, "crop", epoch, key)
            frame = make_frame(sample.original_size, bucket, "random", flipped=flipped, key=crop_key)
        else:
            showing = epoch * sample.repeats + item.repeat
            frame = self._frame(item.sample, showing % (self.crops_per_picture or 1), flipped=flipped)
        return PlannedSample(sample, frame, None if dropped else sample.caption, key)

    def _frame(self, index: int, crop: int, *, flipped: bool) -> Frame:
        """Return a picture's centred frame, or its random one of number `crop`."""
        key = (self.seed, "crop of a few", crop, index)
        return make_frame(self.samples[index].original_size, self.bucket_of(index), self.crop, flipped=flipped, key=key)

    def _plan(self, epoch: int) -> tuple[Batch, ...]:
        plans: dict[int, tuple[Batch, ...]] = self._plans  # type: ignore[attr-defined]
        if epoch not in plans:
            plans.clear()
            plans[epoch] = epoch_plan(
                [self.bucket_of(index) for index in range(len(self.samples))],
                [sample.repeats for sample in self.samples],
                self.micro_batch_size,
                self.seed,
                epoch,
            )
        return plans[epoch]
