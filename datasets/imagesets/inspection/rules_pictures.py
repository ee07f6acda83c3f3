"""What may be wrong with single pictures: unusable, blown up, cut, see-through, turned, blank."""

import math
from collections.abc import Callable, Iterator

from imagesets.inspection.facts import InspectedPicture, SetFacts
from imagesets.inspection.findings import Finding, Item, count_of

MAX_SCALE = 1.1
"""Blown up by more than this, a picture looks soft, and softness is learned."""
MAX_CUT_FRACTION = 0.15
"""Where more than this of a picture's area is cut away, heads and feet are at risk."""

_MODES = {
    "1": "black and white without greys",
    "L": "grey",
    "LA": "grey with transparency",
    "I": "grey of 32 bits",
    "I;16": "grey of 16 bits",
    "I;16B": "grey of 16 bits",
    "P": "a palette of colours",
    "PA": "a palette of colours with transparency",
    "CMYK": "printers' colours (CMYK)",
    "YCbCr": "luma and chroma (YCbCr)",
    "LAB": "CIELAB",
}
_TURNS = {
    2: "mirrored",
    3: "upside down",
    4: "upside down and mirrored",
    5: "on its left side and mirrored",
    6: "on its left side",
    7: "on its right side and mirrored",
    8: "on its right side",
}


def item_of(picture: InspectedPicture, text: str = "") -> Item:
    """Return a picture as what a finding is about."""
    return Item(picture.sample.name, text, picture.sample.source, picture.index)


def mode_in_words(mode: str) -> str:
    """Say what a colour mode of Pillow's means: 'RGB' stays, 'L' is 'grey'."""
    return _MODES.get(mode, mode)


def turn_in_words(orientation: int) -> str:
    """Say how a picture lies in its file, by its EXIF orientation: '' for upright."""
    return _TURNS.get(orientation, "")


def _unusable(facts: SetFacts) -> Iterator[Finding]:
    bad = facts.report.bad
    if bad:
        stops = facts.plan.stops_at_bad
        yield Finding(
            "unusable",
            "error" if stops else "warning",
            f"{count_of(len(bad), 'picture')} cannot be used",
            "Mend or remove them, as each says"
            + (", or train without them: data.on_bad_image=skip" if stops else "; they are left out of the training"),
            tuple(Item(each.name, each.reason, each.source) for each in bad),
        )
    if not facts.report.samples:
        yield Finding(
            "no_pictures",
            "error",
            "There is no picture to train on",
            "Mend those that cannot be used, or give others, as JPEG, PNG or WebP files: data.sources",
        )


def _changed(facts: SetFacts) -> Iterator[Finding]:
    if facts.changed:
        yield Finding(
            "changed",
            "error",
            f"{count_of(len(facts.changed), 'picture')} changed while being inspected",
            "Inspect again when nothing else writes there",
            tuple(item_of(facts.pictures[index], reason) for index, reason in facts.changed),
        )


def _blown_up(facts: SetFacts) -> Iterator[Finding]:
    blown = [picture for picture in facts.pictures if picture.scale > MAX_SCALE]
    if not blown:
        return
    blown.sort(key=lambda picture: (-picture.scale, picture.index))
    side = min(math.sqrt(math.prod(picture.frame.target_size)) / picture.scale for picture in blown)
    step = 64 if side >= 256 else 16
    resolution = int(side) // step * step
    smaller = (
        f", or train at the size they have: data.buckets={{kind: generated, resolution: {resolution}, step: {step}}}"
    )
    yield Finding(
        "blown_up",
        "warning",
        f"{count_of(len(blown), 'picture is', 'pictures are')} smaller than the bucket and blown up, "
        f"at most {blown[0].scale:.2g} times",
        "Use larger originals, leave them out" + (smaller if resolution > 0 else ""),
        tuple(item_of(picture, _scaling(picture)) for picture in blown),
    )


def _scaling(picture: InspectedPicture) -> str:
    (height, width), (to_height, to_width) = picture.frame.original_size, picture.frame.resized_size
    return f"blown up {picture.scale:.2f} times, {height} x {width} to {to_height} x {to_width}"


def _cut_away(facts: SetFacts) -> Iterator[Finding]:
    cut = [picture for picture in facts.pictures if picture.cut_fraction > MAX_CUT_FRACTION]
    if cut:
        cut.sort(key=lambda picture: (-picture.cut_fraction, picture.index))
        yield Finding(
            "cut_away",
            "warning",
            f"{count_of(len(cut), 'picture loses', 'pictures lose')} more than {MAX_CUT_FRACTION:.0%} of the area, "
            f"at most {cut[0].cut_fraction:.0%}",
            "Look at what is lost (--html draws it) and crop them yourself, or allow buckets nearer to their aspect: "
            "data.buckets",
            tuple(item_of(picture, cut_in_words(picture)) for picture in cut),
        )


def cut_in_words(picture: InspectedPicture) -> str:
    """Say what is cut away, in percent and in the original's pixels: '12 % cut away: 80 px left, 80 px right'."""
    if picture.cut_fraction <= 0:
        return "nothing cut away"
    height, width = picture.frame.original_size
    left, top, right, bottom = picture.kept_box
    sides = {
        "top": top * height,
        "bottom": (1 - bottom) * height,
        "left": left * width,
        "right": (1 - right) * width,
    }
    named = ", ".join(f"{side} {length:.0f} px" for side, length in sides.items() if length >= 0.5)
    return f"{picture.cut_fraction:.1%} cut away" + (f": {named}" if named else "")


def _blank(facts: SetFacts) -> Iterator[Finding]:
    blank = [picture for picture in facts.pictures if picture.look is not None and picture.look.blank]
    if blank:
        yield Finding(
            "blank",
            "warning",
            f"{count_of(len(blank), 'picture shows', 'pictures show')} one colour and nothing else",
            "Remove them unless emptiness is to be learned",
            tuple(item_of(picture) for picture in blank),
        )


def _animation(facts: SetFacts) -> Iterator[Finding]:
    moving = [picture for picture in facts.pictures if picture.sample.facts.num_frames > 1]
    if moving:
        yield Finding(
            "animation",
            "note",
            f"{count_of(len(moving), 'picture is an animation', 'pictures are animations')}; the first frame is used",
            "If another frame is meant, save it as a picture of its own",
            tuple(item_of(picture, f"{picture.sample.facts.num_frames} frames") for picture in moving),
        )


def _see_through(facts: SetFacts) -> Iterator[Finding]:
    # Where transparency is the mask, what lies under it counts little or nothing.
    masked = {picture.index for picture in facts.pictures if picture.sample.mask and picture.sample.mask.is_alpha}
    seen = [p for p in facts.pictures if p.sample.facts.has_alpha and p.index not in masked]
    if seen:
        yield Finding(
            "see_through",
            "note",
            f"{count_of(len(seen), 'picture has', 'pictures have')} transparency, under which {facts.plan.background} "
            "is put",
            "If that colour is not meant to be learned as background, set another: data.background='#808080'",
            tuple(item_of(picture, mode_in_words(picture.sample.facts.mode)) for picture in seen),
        )


def _turned(facts: SetFacts) -> Iterator[Finding]:
    turned = [picture for picture in facts.pictures if picture.sample.facts.orientation != 1]
    if turned:
        yield Finding(
            "turned",
            "note",
            f"{count_of(len(turned), 'picture lies', 'pictures lie')} turned in the file and "
            f"{'is' if len(turned) == 1 else 'are'} trained upright, as viewers show "
            f"{'it' if len(turned) == 1 else 'them'}",
            "Nothing, unless one looks turned on the page; then its EXIF orientation is wrong",
            tuple(item_of(picture, turn_in_words(picture.sample.facts.orientation)) for picture in turned),
        )


def _colours(facts: SetFacts) -> Iterator[Finding]:
    odd = [picture for picture in facts.pictures if picture.sample.facts.mode not in ("RGB", "RGBA")]
    if odd:
        yield Finding(
            "colour_mode",
            "note",
            f"{count_of(len(odd), 'picture is', 'pictures are')} not stored in RGB and "
            f"{'is' if len(odd) == 1 else 'are'} converted",
            "Look whether the colours are right; grey pictures among coloured ones teach greyness, so say it in their "
            "captions",
            tuple(item_of(picture, mode_in_words(picture.sample.facts.mode)) for picture in odd),
        )


PICTURE_RULES: tuple[Callable[[SetFacts], Iterator[Finding]], ...] = (
    _unusable,
    _changed,
    _blown_up,
    _cut_away,
    _blank,
    _animation,
    _see_through,
    _turned,
    _colours,
)
