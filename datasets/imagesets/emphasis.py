r"""Weights written into a text, as prompts have them: `(word)`, `(word:1.3)`, `[word]`. Read here, applied elsewhere.

`(word)` weighs 1.1, `((word))` 1.21, `[word]` 1/1.1, `(some words:1.3)` 1.3; nested ones multiply. `\(`, `\)`, `\[`
and `\]` are the signs themselves. Everything else is text as it stands: brackets without a partner, brackets with
nothing in them, a backslash before anything else.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_WEIGHT = 100.0
"""A larger weight, also one that nested brackets multiply to, counts as this one."""

_STEP = 1.1
"""What one pair of round brackets multiplies by, and one of square brackets divides by."""

_SIGN = re.compile(r"\\[()\[\]]|[()\[\]]")
_NUMBER = re.compile(r":\s*(\d+(?:\.\d*)?|\.\d+)\s*$", re.ASCII)
_OPENS = {")": "(", "]": "["}


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a text that has one weight."""

    text: str
    weight: float


@dataclass(frozen=True, slots=True)
class _Pair:
    """A pair of brackets: where it opens and closes, where what it holds ends, and what it multiplies by."""

    begin: int
    close: int
    end: int
    factor: float


def parse_weights(text: str) -> list[Segment]:
    """Return the pieces of a text with their weights, without the brackets; neighbours differ in weight."""
    segments: list[Segment] = []
    for begin, end, weight in _pieces(text):
        if segments and segments[-1].weight == weight:
            segments[-1] = Segment(segments[-1].text + text[begin:end], weight)
        else:
            segments.append(Segment(text[begin:end], weight))
    return segments


def plain_text(text: str) -> str:
    """Return a text without the brackets and numbers that weigh."""
    return "".join(segment.text for segment in parse_weights(text))


def places_in(text: str) -> list[int]:
    """Return where in a text each character stands that the pieces together have."""
    return [place for begin, end, _ in _pieces(text) for place in range(begin, end)]


def split_outside_brackets(text: str, separator: str) -> list[str]:
    """Split a text at a separator, or at white space where it is '', but not within a pair of brackets."""
    pairs = _pairs(text)
    depth_changes = {pair.begin: 1 for pair in pairs} | {pair.close: -1 for pair in pairs}
    parts, depth, begin = [], 0, 0
    between = re.escape(separator) if separator else r"\s+"
    for found in re.finditer(f"({_SIGN.pattern})|{between}", text):
        if found.group(1):
            depth += depth_changes.get(found.start(), 0)
        elif depth == 0:
            parts.append(text[begin : found.start()])
            begin = found.end()
    return [*parts, text[begin:]]


def _pieces(text: str) -> Iterator[tuple[int, int, float]]:
    """Give what stands between the signs that weigh: where each piece begins and ends, and its weight."""
    pairs = _pairs(text)
    opening, closing = {pair.begin: pair for pair in pairs}, {pair.close: pair for pair in pairs}
    factors = [1.0]
    begin = 0
    for sign in _SIGN.finditer(text):
        place, factor = sign.start(), factors[-1]
        if place in opening:
            end, after = place, sign.end()
            factors.append(min(factor * opening[place].factor, MAX_WEIGHT))
        elif place in closing:
            end, after = closing[place].end, sign.end()
            factors.pop()
        elif sign.group()[0] == "\\":
            end, after = place, place + 1  # the sign itself is text
        else:
            continue
        if begin < end:
            yield begin, end, round(factor, 6)  # ([word]) weighs 1, not a bit more
        begin = after
    if begin < len(text):
        yield begin, len(text), 1.0


def _pairs(text: str) -> list[_Pair]:
    """Return the brackets that belong together: each closing one takes the nearest of its kind that is still open.

    What is open between the two stays without a partner.
    """
    pairs = []
    opened: list[tuple[str, int]] = []
    counts = {"(": 0, "[": 0}
    last_end = 0  # of the sign before: what a number stands in must be plain text
    for sign in _SIGN.finditer(text):
        kind = sign.group()
        if kind in counts:
            opened.append((kind, sign.start()))
            counts[kind] += 1
        elif kind in _OPENS and counts[_OPENS[kind]]:
            other, begin = "", 0
            while other != _OPENS[kind]:
                other, begin = opened.pop()
                counts[other] -= 1
            pair = _pair(text, kind, begin, sign.start(), last_end)
            if pair is not None:
                pairs.append(pair)
        last_end = sign.end()
    return pairs


def _pair(text: str, kind: str, begin: int, close: int, last_end: int) -> _Pair | None:
    """Return a pair with its factor, or None where it holds nothing."""
    end, factor = close, _STEP if kind == ")" else 1.0 / _STEP
    number = _NUMBER.search(text, last_end, close) if kind == ")" else None
    if number is not None:
        end, factor = number.start(), float(number.group(1))
    return _Pair(begin, close, end, factor) if text[begin + 1 : end].strip() else None
