"""Something to say about a file: its name, what happens in which reader, and what to do."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from finetune.readers.contents import Entry

Severity = Literal["broken", "awkward", "note"]


@dataclass(frozen=True)
class Finding:
    """Something about a file that its reader or its owner should know.

    Attributes:
        name: a short name, `bundled-embedding`.
        severity: broken (some of it acts nowhere it should, or wrong); awkward (right in some programs only); note.
        what: what it is and what happens in which reader.
        remedy: what to do.
        keys: some of the keys it is about.
        num_keys: how many it is about.
    """

    name: str
    severity: Severity
    what: str
    remedy: str
    keys: tuple[str, ...] = ()
    num_keys: int = 0

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data, for JSON."""
        return {
            "name": self.name,
            "severity": self.severity,
            "what": self.what,
            "remedy": self.remedy,
            "keys": list(self.keys),
            "num_keys": self.num_keys,
        }


def make_finding(name: str, severity: Severity, what: str, remedy: str, keys: Iterable[str] = ()) -> Finding:
    """Return a finding about `keys`, of which the first few are kept to be shown."""
    every = sorted(keys)
    return Finding(name, severity, what, remedy, tuple(every[:_MAX_SHOWN]), len(every))


TO_KOHYA = "atelier lora convert FILE --to kohya"


TO_DIFFUSERS = "atelier lora convert FILE --to diffusers"


_MAX_SHOWN = 3


def all_keys(entries: Iterable[Entry]) -> list[str]:
    """Return the names of all tensors of some modules."""
    return [key for entry in entries for key in entry.keys.values()]
