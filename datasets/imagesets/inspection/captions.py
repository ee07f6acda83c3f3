"""What the captions of a set say together: how many there are, which repeat, their tags, and where triggers stand."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from imagesets.captions import with_trigger
from imagesets.emphasis import plain_text
from imagesets.inspection.plan import SourcePlan
from imagesets.samples import Sample, ScanReport

TAGS_KEPT = 200
_MIN_COMMON = 0.9


@dataclass(frozen=True)
class TriggerFacts:
    """Where a source's trigger word stands.

    Attributes:
        source: the source's name.
        key: where the trigger is set.
        trigger: the word or words.
        pictures: of the source.
        with_trigger: how many of their captions have it as they are trained: all, unless something went wrong.
        alone: how many captions are the trigger and nothing else.
        elsewhere: samples of sources that do not have this trigger, whose captions hold it all the same.
    """

    source: str
    key: str
    trigger: str
    pictures: int
    with_trigger: int
    alone: int
    elsewhere: tuple[int, ...]


@dataclass(frozen=True)
class CaptionFacts:
    """What the captions of a set say together. Pictures are indices of samples.

    Attributes:
        missing: pictures without a caption of their own.
        empty: pictures whose caption says nothing.
        repeated: groups of pictures with one caption, the largest first.
        distinct: how many different captions there are.
        tags: the most frequent parts between commas, in lower case, with the number of captions that hold each.
        num_tags: how many different tags there are.
        single_tags: how many of them stand in one caption only.
        common: tags of nearly all captions that are no trigger.
        triggers: of each source that has one.
    """

    missing: tuple[int, ...]
    empty: tuple[int, ...]
    repeated: tuple[tuple[int, ...], ...]
    distinct: int
    tags: tuple[tuple[str, int], ...]
    num_tags: int
    single_tags: int
    common: tuple[tuple[str, int], ...]
    triggers: tuple[TriggerFacts, ...]


def gather_captions(report: ScanReport, sources: Sequence[SourcePlan], *, weighted: bool = False) -> CaptionFacts:
    """Count what there is to count in the captions, as they are trained.

    Args:
        report: the scan.
        sources: in their order.
        weighted: whether brackets in captions are weights, which then belong to no tag.
    """
    samples = report.samples
    noted = {kind: {(note.source, note.name) for note in report.notes if note.kind == kind}
             for kind in ("missing_caption", "empty_caption")}  # fmt: skip
    missing, empty = (
        tuple(index for index, sample in enumerate(samples) if (sample.source, sample.name) in noted[kind])
        for kind in ("missing_caption", "empty_caption")
    )
    without = {*missing, *empty}
    by_caption: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        if index not in without:
            by_caption.setdefault(sample.caption, []).append(index)
    repeated = sorted((tuple(group) for group in by_caption.values() if len(group) > 1), key=lambda g: (-len(g), g))
    tags = count_tags(plain_text(sample.caption) if weighted else sample.caption for sample in samples)
    triggers = tuple(_trigger_facts(source, sources, samples) for source in sources if source.trigger)
    words = {tag for facts in triggers for tag in split_tags(facts.trigger)}
    enough = max(2, _MIN_COMMON * len(samples))
    common = ((tag, count) for tag, count in tags.most_common(TAGS_KEPT) if count >= enough and tag not in words)
    return CaptionFacts(
        missing=missing,
        empty=empty,
        repeated=tuple(repeated),
        distinct=len({sample.caption for sample in samples}),
        tags=tuple(tags.most_common(TAGS_KEPT)),
        num_tags=len(tags),
        single_tags=sum(count == 1 for count in tags.values()),
        common=tuple(common),
        triggers=triggers,
    )


def split_tags(caption: str) -> list[str]:
    """Return the parts of a caption between commas, in lower case, each once, in their order."""
    parts = (part.strip().casefold() for part in caption.split(","))
    return list(dict.fromkeys(part for part in parts if part))


def count_tags(captions: Iterable[str]) -> Counter[str]:
    """Count in how many captions each tag stands."""
    return Counter(tag for caption in captions for tag in split_tags(caption))


def _trigger_facts(source: SourcePlan, sources: Sequence[SourcePlan], samples: Sequence[Sample]) -> TriggerFacts:
    sharing = {each.label for each in sources if each.trigger.casefold() == source.trigger.casefold()}
    own = [sample for sample in samples if sample.source == source.label]
    return TriggerFacts(
        source=source.label,
        key=source.key,
        trigger=source.trigger,
        pictures=len(own),
        with_trigger=sum(_has_trigger(sample, source.trigger) for sample in own),
        alone=sum(sample.caption.casefold() == source.trigger.casefold() for sample in own),
        elsewhere=tuple(
            index
            for index, sample in enumerate(samples)
            if sample.source not in sharing and _has_trigger(sample, source.trigger)
        ),
    )


def _has_trigger(sample: Sample, trigger: str) -> bool:
    """Whether a caption needs no trigger put before it, by the trainer's own judgement."""
    return with_trigger(sample.caption, trigger) == sample.caption
