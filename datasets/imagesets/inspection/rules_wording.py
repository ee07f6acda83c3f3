"""What may be wrong with wildcards in captions: written and not taken, or with a brace that has no partner."""

import re
from collections.abc import Callable, Iterator, Sequence

from imagesets.inspection.facts import InspectedPicture, SetFacts
from imagesets.inspection.findings import Finding, count_of
from imagesets.inspection.rules_pictures import item_of
from imagesets.wording import braces_match

_WILDCARD = re.compile(r"(?<!\\)\{[^{}]*\|[^{}]*\}")


def _plain(facts: SetFacts) -> Iterator[Finding]:
    """Wildcards where none are taken: the model is trained on the braces."""
    found: list[tuple[InspectedPicture, str]] = []
    for picture in facts.pictures:
        wording, match = picture.sample.wording, _WILDCARD.search(picture.sample.caption)
        if match is not None and not (wording is not None and wording.wildcards):
            found.append((picture, match.group()))
    if found:
        are = "caption holds a wildcard" if len(found) == 1 else "captions hold wildcards"
        yield Finding(
            "plain_wildcard",
            "warning",
            f"{len(found):,} {are}, of which no choice is taken: braces and all are trained as they are written",
            f"Let one be taken: {_remedy(facts, [picture for picture, _ in found])}; or take the braces out",
            tuple(item_of(picture, f"“{text}”") for picture, text in found),
        )


def _remedy(facts: SetFacts, pictures: Sequence[InspectedPicture]) -> str:
    labels = {picture.sample.source for picture in pictures}
    return ", ".join(
        f"enable_wildcard = true in {source.place}" if source.place else f"{source.key}.wording.wildcards=true"
        for source in facts.plan.sources
        if source.label in labels
    )


def _uneven(facts: SetFacts) -> Iterator[Finding]:
    """Braces without a partner where wildcards are taken: they stay, and with them the choices."""
    uneven = [
        picture
        for picture in facts.pictures
        if picture.sample.wording is not None
        and picture.sample.wording.wildcards
        and not braces_match(picture.sample.written, picture.sample.wording)
    ]
    if uneven:
        yield Finding(
            "uneven_braces",
            "warning",
            f"{count_of(len(uneven), 'caption has', 'captions have')} a brace without a partner, which is trained as "
            "it is written",
            r"Close or remove it; where a brace is meant, write \{ or \}",
            tuple(item_of(picture, f"“{_around_brace(picture.sample.written)}”") for picture in uneven),
        )


def _around_brace(caption: str) -> str:
    place = min(found for found in (caption.find("{"), caption.find("}")) if found >= 0)
    return " ".join(caption[max(0, place - 20) : place + 40].split())


WORDING_RULES: tuple[Callable[[SetFacts], Iterator[Finding]], ...] = (_plain, _uneven)
