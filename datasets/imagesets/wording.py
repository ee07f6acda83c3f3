"""How a caption is worded anew for each showing: shuffled and dropped tags, wildcards, lines by turns, ends of its own.

Pure functions of the caption and a key. The trigger word and the cleaning of what a source has are `captions`'s work,
which caption is dropped whole is the trainer's.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from imagesets.emphasis import split_outside_brackets
from imagesets.randomness import KeyPart, key_to_fraction, key_to_seed

_WILDCARD_SIGN = re.compile(r"(\\[{|}]|[{|}])")
_CLOSES_UP = tuple(",.;:!?")


@dataclass(frozen=True, slots=True)
class Wording:
    """What is done to the captions of a source; as it stands, nothing.

    Attributes:
        separator: what stands between tags; they are told apart by it without the spaces around it.
        keep_first: how many tags at the front keep their place and are never dropped.
        keep_separator: a sign; in a caption that has it, what stands before the first keeps its place and is never
            dropped, what stands behind the second neither, and `keep_first` does not count. '' for no sign. Where
            prefix or suffix have it, they are parted with the caption between them.
        secondary_separator: a sign that holds several tags together as one; in the end the separator stands for it.
        shuffle: whether the other tags change places.
        tag_dropout: how often each of the other tags is left out, from 0 to 1.
        wildcards: whether of `{a|b}` one is taken; they may lie in one another, and a backslash keeps a sign.
        choose_line: whether each line is a caption of its own, taken in turn.
        prefix: put before what the rest has given.
        suffix: put behind it.
        variants: how many wordings each line has, taken in turn; None draws another at every showing.
        keep_brackets: whether a pair of brackets holds what is in it together: a tag ends only outside of them.
    """

    separator: str = ", "
    keep_first: int = 0
    shuffle: bool = False
    tag_dropout: float = 0.0
    wildcards: bool = False
    choose_line: bool = False
    prefix: str = ""
    suffix: str = ""
    variants: int | None = None
    keep_brackets: bool = False
    keep_separator: str = ""
    secondary_separator: str = ""

    @property
    def draws(self) -> bool:
        """Whether one line can be worded in several ways."""
        return self.shuffle or self.tag_dropout > 0.0 or self.wildcards


def word(caption: str, wording: Wording, key: Sequence[KeyPart], turn: int = 0) -> str:
    """Return a caption as it is worded for one key.

    Args:
        caption: clean; its lines apart by a line feed where lines are chosen.
        wording: what is done to it.
        key: what the draws depend on, with the caption itself and nothing else.
        turn: which line is taken, counted on around the lines' number.
    """
    line = _line(caption, wording, turn)
    if wording.wildcards:
        line = _without_wildcards(line, (*key, "wildcard"))
    if _ends_are_parted(wording):
        line = f"{wording.prefix} {line} {wording.suffix}"
    if wording.shuffle or wording.tag_dropout > 0.0:
        line = _with_tags_drawn(line, wording, key)
    return _finished(line, wording)


def plain_words(caption: str, wording: Wording) -> str:
    """Return a caption before any draw: its first line, the first of each wildcard's choices, all tags in order."""
    line = _line(caption, wording, 0)
    line = _without_wildcards(line, None) if wording.wildcards else line
    if _ends_are_parted(wording):
        line = f"{wording.prefix} {line} {wording.suffix}"
    return _finished(line, wording)


def num_wordings(caption: str, wording: Wording) -> int | None:
    """Return after how many showings a caption's wordings come round again; None where they never do."""
    num_lines = caption.count("\n") + 1 if wording.choose_line else 1
    if not wording.draws:
        return num_lines
    return None if wording.variants is None else wording.variants * num_lines


def braces_match(caption: str, wording: Wording) -> bool:
    """Whether in each line that is worded every brace of a wildcard has its partner."""
    return all(map(_is_even, caption.split("\n") if wording.choose_line else [caption]))


def _is_even(line: str) -> bool:
    depth = 0
    for part in _WILDCARD_SIGN.split(line):
        depth += {"{": 1, "}": -1}.get(part, 0)
        if depth < 0:
            return False
    return depth == 0


def _line(caption: str, wording: Wording, turn: int) -> str:
    if not wording.choose_line:
        return caption
    lines = caption.split("\n")
    return lines[turn % len(lines)]


def _without_wildcards(line: str, key: tuple[KeyPart, ...] | None) -> str:
    """Take one choice of each wildcard, the first where there is no key. Braces without a partner stay."""
    # What is open: the choices of each wildcard, the innermost last; at the bottom the line itself.
    open_choices: list[list[str]] = [[""]]
    number = 0
    for part in _WILDCARD_SIGN.split(line):
        inside = len(open_choices) > 1
        if part == "{":
            open_choices.append([""])
        elif part == "|" and inside:
            open_choices[-1].append("")
        elif part == "}" and inside:
            choices = open_choices.pop()
            open_choices[-1][-1] += choices[0 if key is None else key_to_seed(*key, number) % len(choices)]
            number += 1
        else:
            open_choices[-1][-1] += part[1:] if part in {"\\{", "\\|", "\\}"} else part
    return "{".join("|".join(choices) for choices in open_choices)


def _with_tags_drawn(line: str, wording: Wording, key: Sequence[KeyPart]) -> str:
    """Drop and shuffle the tags that are not kept. A draw belongs to the tag's place as it was written."""
    front, drawn, back = _parts(line, wording)
    tags = [*front, *drawn, *back]
    places = [
        place
        for place in range(len(front), len(front) + len(drawn))
        if key_to_fraction(*key, "tag-dropout", place) >= wording.tag_dropout
    ]
    if wording.shuffle:
        places.sort(key=lambda place: key_to_seed(*key, "tag-order", place))
    return wording.separator.join([*front, *(tags[place] for place in places), *back])


def _parts(line: str, wording: Wording) -> tuple[list[str], list[str], list[str]]:
    """Return the tags that are kept in front, those that may change, and those that are kept at the end."""
    if wording.keep_separator and wording.keep_separator in line:
        front, drawn, *back = (_tags(part, wording) for part in line.split(wording.keep_separator))
        return front, drawn, [tag for part in back for tag in part]
    tags = _tags(line, wording)
    return tags[: wording.keep_first], tags[wording.keep_first :], []


def _tags(line: str, wording: Wording) -> list[str]:
    between = wording.separator.strip()
    if wording.keep_brackets:
        parts = split_outside_brackets(line, between)
    else:
        parts = line.split(between) if between else line.split()
    return [part.strip() for part in parts if part.strip()]


def _without_signs(line: str, wording: Wording) -> str:
    """Put the separator in place of the signs that say what is kept, and what belongs together."""
    if wording.keep_separator and wording.keep_separator in line:
        line = wording.separator.join(tag for part in _parts(line, wording) for tag in part)
    sign = wording.secondary_separator
    return wording.separator.join(part.strip() for part in line.split(sign)) if sign and sign in line else line


def _ends_are_parted(wording: Wording) -> bool:
    """Whether the sign of what is kept stands in prefix or suffix, so that these are a part of what it parts."""
    sign = wording.keep_separator
    return bool(sign) and (sign in wording.prefix or sign in wording.suffix)


def _finished(line: str, wording: Wording) -> str:
    """Take the signs out and put the ends on, where they are not on yet."""
    line = _without_signs(line, wording)
    return line if _ends_are_parted(wording) else _with_ends(line, wording)


def _with_ends(line: str, wording: Wording) -> str:
    """Put prefix and suffix on, a space between, but for a suffix that begins with a mark such as a comma."""
    words = " ".join(line.split())
    front, back = (" ".join(end.split()) for end in (wording.prefix, wording.suffix))
    if not words:
        front = front.rstrip(" ,;:")  # nothing is there for them to part
    words = f"{front} {words}".strip()
    if not words:
        return back.lstrip(" ,;:")
    gap = "" if back.startswith(_CLOSES_UP) else " "
    return f"{words}{gap}{back}".strip()
