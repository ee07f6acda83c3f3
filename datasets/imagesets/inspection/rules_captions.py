"""What may be wrong with captions: missing, unread, repeated, too long, a trigger where it does not belong."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from imagesets.inspection.facts import InspectedPicture, SetFacts
from imagesets.inspection.findings import Finding, Item, count_of
from imagesets.inspection.rules_pictures import item_of
from imagesets.inspection.strays import StrayCaption

_SHOWN_CHARACTERS = 60
_MOST_TOKENS = 225
"""As many as a recipe lets be read."""


def _missing(facts: SetFacts) -> Iterator[Finding]:
    for kind, indices, what in (
        ("missing_caption", facts.captions.missing, "no caption"),
        ("empty_caption", facts.captions.empty, "an empty caption"),
    ):
        unread = {stray.sample for stray in facts.strays if stray.alone}
        unread |= {picture.index for picture, _ in _beside_metadata(facts)}
        rest = [index for index in indices if index not in unread]  # those are told with the file that is not read
        bare = [index for index in rest if not facts.report.samples[index].caption]
        triggered = [index for index in rest if facts.report.samples[index].caption]
        if bare:
            labels = {facts.report.samples[index].source for index in bare}
            keys = [source.key for source in facts.plan.sources if source.label in labels]
            yield Finding(
                kind,
                "warning",
                f"{count_of(len(bare), 'picture has', 'pictures have')} {what} and "
                f"{'is' if len(bare) == 1 else 'are'} trained without words",
                "Write what each shows into a text file of its name, or give the source a trigger: "
                + ", ".join(f"{key}.trigger=…" for key in dict.fromkeys(keys)),
                tuple(item_of(facts.pictures[index]) for index in bare),
            )
        if triggered:
            yield Finding(
                kind,
                "note",
                f"{count_of(len(triggered), 'picture has', 'pictures have')} {what} and "
                f"{'is' if len(triggered) == 1 else 'are'} trained on the trigger alone",
                "Fine for one thing on changing backgrounds; otherwise say what else each shows, or it becomes part of "
                "the trigger",
                tuple(item_of(facts.pictures[index]) for index in triggered),
            )


def _strays(facts: SetFacts) -> Iterator[Finding]:
    alone = [stray for stray in facts.strays if stray.alone]
    beside = [stray for stray in facts.strays if not stray.alone]
    if alone:
        yield Finding(
            "unread_caption",
            "error",
            f"{count_of(len(alone), 'picture is', 'pictures are')} trained without the caption that lies beside "
            f"{'it' if len(alone) == 1 else 'them'}: {_endings(facts, alone)}",
            f"Read them: {_remedy(facts, alone)}; or rename the files",
            tuple(_stray_item(facts, stray) for stray in alone),
        )
    if beside:
        yield Finding(
            "other_caption",
            "warning",
            f"{count_of(len(beside), 'picture has', 'pictures have')} another caption that is passed over: "
            f"{_endings(facts, beside)}",
            f"If those are the right ones: {_remedy(facts, beside)}; otherwise remove them",
            tuple(_stray_item(facts, stray) for stray in beside),
        )


def _metadata_instead(facts: SetFacts) -> Iterator[Finding]:
    bare = {*facts.captions.missing, *facts.captions.empty}
    found = _beside_metadata(facts)
    alone = [pair for pair in found if pair[0].index in bare]
    beside = [pair for pair in found if pair[0].index not in bare]
    if alone:
        yield Finding(
            "unread_caption",
            "error",
            f"{count_of(len(alone), 'picture is', 'pictures are')} trained without the caption that lies beside "
            f"{'it' if len(alone) == 1 else 'them'}: captions come from metadata, which has none for "
            f"{'it' if len(alone) == 1 else 'them'}",
            f"Add {'it' if len(alone) == 1 else 'them'} to the metadata, or read text files too: "
            f"{_captions_setting(facts, alone, 'auto')}",
            tuple(item_of(picture, text) for picture, text in alone),
        )
    if beside:
        yield Finding(
            "other_caption",
            "warning",
            f"{count_of(len(beside), 'picture has', 'pictures have')} another caption that is passed over: "
            "a text file where the metadata file is read",
            f"If the text files are the right ones: {_captions_setting(facts, beside, 'files')}; otherwise remove them",
            tuple(item_of(picture, text) for picture, text in beside),
        )


def _beside_metadata(facts: SetFacts) -> list[tuple[InspectedPicture, str]]:
    """Return pictures with caption files that are not read because captions come from metadata."""
    texts = {(note.source, note.name): note.text for note in facts.report.notes if note.kind == "unread_caption"}
    keys = (((picture.sample.source, picture.sample.name), picture) for picture in facts.pictures)
    return [(picture, texts[key]) for key, picture in keys if key in texts]


def _captions_setting(facts: SetFacts, found: Sequence[tuple[InspectedPicture, str]], value: str) -> str:
    labels = {picture.sample.source for picture, _ in found}
    return ", ".join(f"{source.key}.captions={value}" for source in facts.plan.sources if source.label in labels)


def _stray_item(facts: SetFacts, stray: StrayCaption) -> Item:
    return item_of(facts.pictures[stray.sample], f"{stray.name} is not read")


def _endings(facts: SetFacts, strays: Sequence[StrayCaption]) -> str:
    pairs = Counter((stray.extension, facts.plan.sources[stray.source].caption_extension) for stray in strays)
    return ", ".join(f"{other} where {read} is read" for (other, read), _ in pairs.most_common())


def _remedy(facts: SetFacts, strays: Sequence[StrayCaption]) -> str:
    remedies = Counter(facts.plan.sources[stray.source].to_read(stray.extension) for stray in strays)
    return ", ".join(remedy for remedy, _ in remedies.most_common(3))


def _unused(facts: SetFacts) -> Iterator[Finding]:
    unused = [note for note in facts.report.notes if note.kind == "unused_caption"]
    if unused:
        yield Finding(
            "unused_caption",
            "warning",
            f"{count_of(len(unused), 'caption file belongs', 'caption files belong')} to no picture",
            "Rename the file or the picture, so that both have one name, or remove it",
            tuple(Item(note.name, note.text, note.source) for note in unused),
        )


def _repeated(facts: SetFacts) -> Iterator[Finding]:
    groups = facts.captions.repeated
    if not groups:
        return
    pictures = sum(map(len, groups))
    whole = len(groups) == 1 and pictures == len(facts.pictures)
    yield Finding(
        "repeated_caption",
        "note",
        f"All {pictures} pictures have the same caption" if whole else
        f"{count_of(len(groups), 'caption stands', 'captions stand')} with more than one picture, "
        f"{pictures} pictures in all",
        "What differs between such pictures cannot be told apart by words; say it where it matters",
        tuple(
            item_of(facts.pictures[index], f"“{_short(facts.report.samples[index].caption)}”, {len(group)} times")
            for group in groups
            for index in group
        ),
    )  # fmt: skip


def _long(facts: SetFacts) -> Iterator[Finding]:
    long = [picture for picture in facts.pictures if picture.beyond]
    if long:
        limit = facts.plan.max_tokens
        more = ", or let more be read: training.max_caption_tokens=225" if limit < _MOST_TOKENS else ""
        long.sort(key=lambda picture: (-picture.num_tokens, picture.index))
        yield Finding(
            "long_caption",
            "warning",
            f"{count_of(len(long), 'caption is', 'captions are')} longer than the {limit} tokens that are read; "
            "the rest is cut off",
            f"Shorten them, or put first what matters{more}; the page and --json show what is cut off",
            tuple(
                item_of(picture, f"{picture.num_tokens} tokens; not read: “{_short(picture.beyond)}”")
                for picture in long
            ),
        )


def _triggers(facts: SetFacts) -> Iterator[Finding]:
    for trigger in facts.captions.triggers:
        if trigger.elsewhere:
            yield Finding(
                "trigger_elsewhere",
                "warning",
                f"{count_of(len(trigger.elsewhere), 'caption', 'captions')} of other sources "
                f"{'has' if len(trigger.elsewhere) == 1 else 'have'} the trigger “{trigger.trigger}” "
                f"of {trigger.source}",
                "A trigger that stands elsewhere means both: take another word, or take it out of those captions",
                tuple(item_of(facts.pictures[index]) for index in trigger.elsewhere),
            )


def _common_tags(facts: SetFacts) -> Iterator[Finding]:
    common = facts.captions.common
    if common and len(facts.pictures) > 2 and facts.captions.distinct > 1:
        yield Finding(
            "common_tag",
            "note",
            f"{count_of(len(common), 'tag stands', 'tags stand')} in nearly all captions",
            "What every caption says acts as a trigger; leave it out of the captions where it should always be there",
            tuple(Item(tag, f"in {count} of {len(facts.pictures)}") for tag, count in common),
        )


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


CAPTION_RULES: tuple[Callable[[SetFacts], Iterator[Finding]], ...] = (
    _missing,
    _strays,
    _metadata_instead,
    _unused,
    _repeated,
    _long,
    _triggers,
    _common_tags,
)
