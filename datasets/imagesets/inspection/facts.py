"""What an inspection knows: of each picture, and of the set. Plain values; `inspect` fills them, views show them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from imagesets.framing import Frame, make_frame
from imagesets.inspection.buckets import BucketFacts
from imagesets.inspection.captions import CaptionFacts
from imagesets.inspection.findings import Finding
from imagesets.inspection.looks import Look
from imagesets.inspection.plan import TokenCount, TrainingPlan
from imagesets.inspection.strays import StrayCaption
from imagesets.samples import Sample, ScanReport


@dataclass(frozen=True)
class InspectedPicture:
    """One usable picture as training will take it.

    Attributes:
        index: of its sample.
        sample: the picture.
        frame: the centred, unmirrored way into its bucket; where crops are random, the middle of what is drawn from.
        tokens: of its caption, by each tokenizer; empty where tokens were not counted.
        look: what its pixels look like; None where nobody looked.
    """

    index: int
    sample: Sample
    frame: Frame
    tokens: tuple[TokenCount, ...] = ()
    look: Look | None = None

    @property
    def scale(self) -> float:
        """Trained over original side length: above 1 the picture is blown up."""
        return self.frame.scale

    @property
    def cut_fraction(self) -> float:
        """How much of the picture's area is cut away, from 0 to 1."""
        height, width = self.frame.resized_size
        return 1.0 - self.frame.target_size[0] * self.frame.target_size[1] / (height * width)

    @property
    def kept_box(self) -> tuple[float, float, float, float]:
        """The part that is kept, of the upright picture, as fractions of its sides: left, top, right, bottom."""
        height, width = self.frame.resized_size
        left, top, right, bottom = self.frame.crop_box
        return (left / width, top / height, right / width, bottom / height)

    @property
    def num_tokens(self) -> int:
        """The larger number of tokens, begin and end included; 0 where they were not counted."""
        return max((count.count for count in self.tokens), default=0)

    @property
    def beyond(self) -> str:
        """The longer end of the caption that an encoder is not given; '' where all is given."""
        return max((count.beyond for count in self.tokens), key=len, default="")


@dataclass(frozen=True)
class SetFacts:
    """A set of pictures before anything is judged: what the rules look at.

    Attributes:
        report: of the scan.
        plan: what training will do.
        pictures: the usable ones, by index.
        buckets: those in use.
        captions: what they say together.
        strays: caption files that are not read.
        same: groups of pictures that are the same file byte for byte.
        near: groups of pictures that look nearly alike, of which one of every `same` group is looked at.
        changed: indices of samples that could not be looked at, with the reason.
        looked: whether pixels were looked at.
    """

    report: ScanReport
    plan: TrainingPlan
    pictures: tuple[InspectedPicture, ...]
    buckets: tuple[BucketFacts, ...]
    captions: CaptionFacts
    strays: tuple[StrayCaption, ...]
    same: tuple[tuple[int, ...], ...]
    near: tuple[tuple[int, ...], ...] = ()
    changed: tuple[tuple[int, str], ...] = ()
    looked: bool = False

    @property
    def has_masks(self) -> bool:
        """Whether any picture has one."""
        return any(picture.sample.mask is not None for picture in self.pictures)

    @property
    def showings(self) -> int:
        """How many pictures an epoch shows: with repeats."""
        return sum(sample.repeats for sample in self.report.samples)


@dataclass(frozen=True)
class Inspection:
    """Everything found out about a set.

    Attributes:
        name: of the recipe, or of the folder.
        facts: what was measured.
        findings: what is wrong, ranked.
        token_source: in words, whose tokenizers counted; or why none did.
    """

    name: str
    facts: SetFacts
    findings: tuple[Finding, ...]
    token_source: str = ""

    @property
    def has_errors(self) -> bool:
        """Whether anything was found that stops training, or trains something else than is meant."""
        return any(finding.severity == "error" for finding in self.findings)

    @cached_property
    def findings_of(self) -> dict[int, list[int]]:
        """Which findings concern each sample, by the sample's index: positions in `findings`."""
        found: dict[int, list[int]] = {}
        for position, finding in enumerate(self.findings):
            for sample in dict.fromkeys(item.sample for item in finding.items if item.sample is not None):
                found.setdefault(sample, []).append(position)
        return found


def center_frames(report: ScanReport, plan: TrainingPlan) -> list[Frame]:
    """Return each sample's centred frame, made by what training makes its frames by."""
    return [
        make_frame(sample.original_size, bucket, "center")
        for sample, bucket in zip(report.samples, plan.buckets, strict=True)
    ]


def same_files(samples: Sequence[Sample]) -> tuple[tuple[int, ...], ...]:
    """Return groups of two or more samples that are the same file byte for byte."""
    by_hash: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        by_hash.setdefault(sample.sha256, []).append(index)
    return tuple(tuple(group) for group in by_hash.values() if len(group) > 1)
