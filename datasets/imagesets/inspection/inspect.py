"""An inspection from beginning to end: gather what is known, look at the pixels, count tokens, judge."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from imagesets.errors import PictureError
from imagesets.inspection.buckets import gather_buckets
from imagesets.inspection.captions import gather_captions
from imagesets.inspection.facts import InspectedPicture, Inspection, SetFacts, center_frames, same_files
from imagesets.inspection.findings import Finding, ranked
from imagesets.inspection.looks import Look, ThumbnailLimits, look_at
from imagesets.inspection.near import group_nearly_alike
from imagesets.inspection.plan import CountTokens, TrainingPlan
from imagesets.inspection.rules_captions import CAPTION_RULES
from imagesets.inspection.rules_masks import MASK_RULES
from imagesets.inspection.rules_pictures import PICTURE_RULES
from imagesets.inspection.rules_set import BEGINNING_RULES, EPOCH_RULES, SET_RULES
from imagesets.inspection.rules_wording import WORDING_RULES
from imagesets.inspection.strays import find_strays
from imagesets.samples import ScanReport


def inspect_pictures(
    name: str,
    report: ScanReport,
    plan: TrainingPlan,
    count_tokens: CountTokens | None = None,
    *,
    token_source: str = "",
    thumbnails: ThumbnailLimits | None = None,
    num_thumbnails: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Inspection:
    """Find out everything about a set.

    Args:
        name: of the recipe, or of the folder.
        report: of the scan.
        plan: what training will do with the samples.
        count_tokens: counts the tokens of captions; None counts none.
        token_source: in words, whose tokenizers count, or why none does.
        thumbnails: limits of the thumbnails that are kept for a page; None keeps none.
        num_thumbnails: of how many pictures, from the first.
        progress: called with (done, total) as pixels are looked at.
    """
    facts = _with_tokens(_gather(report, plan), count_tokens)
    looks = look_at(report.samples, thumbnails, num_thumbnails, progress)
    facts = _with_looks(facts, looks)
    return Inspection(name, facts, _judge(facts), token_source)


def find_without_looking(
    report: ScanReport, plan: TrainingPlan, count_tokens: CountTokens | None = None
) -> tuple[Finding, ...]:
    """Return what a scan and a plan alone can tell, ranked: no pixel is read.

    Args:
        report: of the scan.
        plan: what training will do with the samples.
        count_tokens: counts the tokens of captions; None counts none.
    """
    return _judge(_with_tokens(_gather(report, plan), count_tokens))


def _with_tokens(facts: SetFacts, count_tokens: CountTokens | None) -> SetFacts:
    if count_tokens is None or not facts.pictures:
        return facts
    counted = count_tokens([picture.sample.caption for picture in facts.pictures])
    pictures = (replace(picture, tokens=tokens) for picture, tokens in zip(facts.pictures, counted, strict=True))
    return replace(facts, pictures=tuple(pictures))


def _gather(report: ScanReport, plan: TrainingPlan) -> SetFacts:
    captions = gather_captions(report, plan.sources, weighted=plan.weighted)
    return SetFacts(
        report=report,
        plan=plan,
        pictures=tuple(
            InspectedPicture(index, sample, frame)
            for index, (sample, frame) in enumerate(zip(report.samples, center_frames(report, plan), strict=True))
        ),
        buckets=gather_buckets(plan, [sample.repeats for sample in report.samples], is_beginning=report.is_beginning),
        captions=captions,
        strays=find_strays(report, plan.sources, (*captions.missing, *captions.empty)),
        same=same_files(report.samples),
    )


def _with_looks(facts: SetFacts, looks: Sequence[Look | PictureError]) -> SetFacts:
    """Add what was seen, and which pictures are nearly alike."""
    pictures = tuple(
        replace(picture, look=look if isinstance(look, Look) else None)
        for picture, look in zip(facts.pictures, looks, strict=True)
    )
    copies = {index for group in facts.same for index in group[1:]}
    seen = [
        (picture.index, picture.look)
        for picture in pictures
        if picture.look is not None and not picture.look.blank and picture.index not in copies
    ]
    near: list[tuple[int, ...]] = []
    if seen:
        groups = group_nearly_alike([look.hash for _, look in seen], np.stack([look.grid for _, look in seen]))
        near = [_largest_first(facts, [seen[place][0] for place in group]) for group in groups]
    changed = tuple(
        (index, str(look.__cause__ or look)) for index, look in enumerate(looks) if isinstance(look, PictureError)
    )
    return replace(facts, pictures=pictures, near=tuple(near), changed=changed, looked=True)


def _largest_first(facts: SetFacts, group: Sequence[int]) -> tuple[int, ...]:
    """Put the picture that is worth keeping first: the one with the most pixels."""
    sizes = {index: facts.report.samples[index].original_size for index in group}
    return tuple(sorted(group, key=lambda index: (-sizes[index][0] * sizes[index][1], index)))


def _judge(facts: SetFacts) -> tuple[Finding, ...]:
    epoch_rules = BEGINNING_RULES if facts.report.is_beginning else EPOCH_RULES
    rules = (*PICTURE_RULES, *MASK_RULES, *CAPTION_RULES, *WORDING_RULES, *SET_RULES, *epoch_rules)
    return ranked(_called(facts.report, finding) for rule in rules for finding in rule(facts))


def _called(report: ScanReport, finding: Finding) -> Finding:
    """Put the names of sources before those of items where there are several sources."""
    if len(report.sources) < 2:
        return finding
    items = tuple(replace(item, called=report.called(item.source, item.name)) for item in finding.items)
    return replace(finding, items=items)
