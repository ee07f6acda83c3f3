"""What may be wrong with masks: missing, without a picture, or such that they keep next to nothing or all."""

from collections.abc import Callable, Iterator

from imagesets.inspection.facts import InspectedPicture, SetFacts
from imagesets.inspection.findings import Finding, Item, count_of
from imagesets.inspection.rules_pictures import item_of
from imagesets.masks import BESIDE

MIN_SHARE = 0.02
"""A mask that keeps less of a picture is probably the wrong way round, or of another picture."""
MAX_SHARE = 0.99
"""A mask that keeps more of a picture hardly does anything."""
MASK_ENDINGS = ("-masklabel", "_masklabel", "-mask", "_mask", ".mask")
"""How tools end the names of masks beside pictures, before the file's own ending and in whatever letters."""


def share_in_words(picture: InspectedPicture) -> str:
    """Say what a picture's mask keeps: 'keeps 34% of it, and the rest counts 0.1'; '' where it has none."""
    mask = picture.sample.mask
    if mask is None:
        return ""
    rest = f", and the rest counts {mask.weight_outside:g}" if mask.weight_outside > 0 else ""
    return f"keeps {_percent(mask.share)} of it{rest}"


def _percent(share: float) -> str:
    return f"{share:.2%}" if share < 0.01 else f"{share:.0%}"


def _masked(facts: SetFacts) -> list[tuple[float, InspectedPicture]]:
    return [(picture.sample.mask.share, picture) for picture in facts.pictures if picture.sample.mask is not None]


def _missing(facts: SetFacts) -> Iterator[Finding]:
    missing = {(note.source, note.name) for note in facts.report.notes if note.kind == "missing_mask"}
    without = [picture for picture in facts.pictures if (picture.sample.source, picture.sample.name) in missing]
    if without:
        labels = {picture.sample.source for picture in without}
        keys = [f"{source.key}.mask" for source in facts.plan.sources if source.label in labels]
        yield Finding(
            "missing_mask",
            "warning",
            f"{count_of(len(without), 'picture has', 'pictures have')} no mask, and all of "
            f"{'it' if len(without) == 1 else 'them'} is trained on",
            f"Add masks, look whether {' and '.join(keys) or 'the mask setting'} names them rightly, or put pictures "
            "without masks into a source of their own",
            tuple(item_of(picture) for picture in without),
        )


def _unused(facts: SetFacts) -> Iterator[Finding]:
    unused = [note for note in facts.report.notes if note.kind == "unused_mask"]
    if unused:
        yield Finding(
            "unused_mask",
            "warning",
            f"{count_of(len(unused), 'mask belongs', 'masks belong')} to no picture",
            "Name each as its picture, or remove it",
            tuple(Item(note.name, "", note.source) for note in unused),
        )


def _taken_for_pictures(facts: SetFacts) -> Iterator[Finding]:
    by_stem = {(picture.sample.source, _stem(picture)): picture for picture in facts.pictures}
    found = []
    for picture in facts.pictures:
        stem = _stem(picture)
        ending = next((ending for ending in MASK_ENDINGS if stem.endswith(ending)), None)
        other = None if ending is None else by_stem.get((picture.sample.source, stem.removesuffix(ending)))
        if other is not None:
            found.append((picture, other))
    if found:
        labels = {picture.sample.source for picture, _ in found}
        keys = [f"{source.key}.mask" for source in facts.plan.sources if source.label in labels]
        yield Finding(
            "mask_as_picture",
            "warning",
            f"{count_of(len(found), 'picture is', 'pictures are')} named as a mask of another and trained on as a "
            "picture",
            f"If {'it is a mask' if len(found) == 1 else 'they are masks'}, let its name end as "
            f"{' and '.join(keys) or 'the mask setting'} says ({{kind: files}} takes {BESIDE}, in small letters), or "
            "remove it",
            tuple(item_of(picture, f"looks like a mask of {other.sample.name}") for picture, other in found),
        )


def _stem(picture: InspectedPicture) -> str:
    """Return a picture's path without its ending, in small letters."""
    return picture.sample.name.rpartition(".")[0].casefold()


def _keeps_little(facts: SetFacts) -> Iterator[Finding]:
    little = sorted((share, picture.index) for share, picture in _masked(facts) if share < MIN_SHARE)
    if little:
        pictures = [facts.pictures[index] for _, index in little]
        yield Finding(
            "mask_keeps_little",
            "warning",
            f"{count_of(len(little), 'mask keeps', 'masks keep')} less than {MIN_SHARE:.0%} of "
            f"{'its picture' if len(little) == 1 else 'their pictures'}, at least {_percent(little[0][0])}",
            "White is what is learned: look whether they are the wrong way round",
            tuple(item_of(picture, share_in_words(picture)) for picture in pictures),
        )


def _keeps_all(facts: SetFacts) -> Iterator[Finding]:
    whole = [picture for share, picture in _masked(facts) if share > MAX_SHARE]
    if whole:
        yield Finding(
            "mask_keeps_all",
            "note",
            f"{count_of(len(whole), 'mask keeps', 'masks keep')} next to all of "
            f"{'its picture' if len(whole) == 1 else 'their pictures'}",
            "Nothing, if that is meant: they are trained as if they had none",
            tuple(item_of(picture, share_in_words(picture)) for picture in whole),
        )


MASK_RULES: tuple[Callable[[SetFacts], Iterator[Finding]], ...] = (
    _missing,
    _unused,
    _taken_for_pictures,
    _keeps_little,
    _keeps_all,
)
