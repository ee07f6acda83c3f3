"""A finding: what is wrong with which pictures, how bad that is, and what to do.

The rules that make them are in `rules_pictures`, `rules_captions` and `rules_set`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""From bad to harmless. An error stops training or trains something else than is meant."""

NAMES_SHOWN = 3


@dataclass(frozen=True)
class Item:
    """One thing that a finding is about.

    Attributes:
        name: of a picture, a file or a bucket.
        text: what is to be said of it alone; '' where the finding says all.
        source: the name of its source; '' where it has none.
        sample: index of the sample; None where it is no usable picture.
        called: the name as it is shown: after that of the source where there are several; '' for the name alone.
    """

    name: str
    text: str = ""
    source: str = ""
    sample: int | None = None
    called: str = ""

    @property
    def shown(self) -> str:
        """What a person is to read for the name."""
        return self.called or self.name


@dataclass(frozen=True)
class Finding:
    """What is wrong with which pictures.

    Attributes:
        kind: what programs know it by; `docs/inspect.md` lists them.
        severity: how bad it is.
        text: what was found, with the numbers, as a sentence without its full stop.
        advice: what to do, as a sentence without its full stop.
        items: what it is about; empty where it is about the whole set.
    """

    kind: str
    severity: Severity
    text: str
    advice: str
    items: tuple[Item, ...] = ()

    def line(self) -> str:
        """Return it on one line: what was found, the first names, and what to do."""
        names = ", ".join(item.shown for item in self.items[:NAMES_SHOWN])
        more = f" and {len(self.items) - NAMES_SHOWN} more" if len(self.items) > NAMES_SHOWN else ""
        shown = f" ({names}{more})" if names else ""
        return f"{self.text}{shown}. {self.advice}"


def ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Put findings in order: errors, warnings, notes; within each what concerns the most first, then by kind."""
    return tuple(
        sorted(findings, key=lambda finding: (SEVERITIES.index(finding.severity), -len(finding.items), finding.kind))
    )


def count_of(count: int, singular: str, plural: str | None = None) -> str:
    """Write a number with its noun: '1 picture', '3 pictures'."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"
