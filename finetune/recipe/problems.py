"""Everything that is wrong with a recipe, gathered and said once: where, which key, what is needed."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.errors import RecipeError

_LONGEST_SHOWN = 60


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    `where` is a file and line (`recipe.yaml:12`) or an override as it was typed; `key` is dotted and may be empty.
    """

    where: str
    key: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.key, self.message) if part)


class RecipeProblems(RecipeError):  # noqa: N818  (it is plural: every problem at once)
    """All problems of a recipe at once; its text has one line for each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        assert self.problems, "an error without a problem"
        super().__init__("\n".join(str(problem) for problem in self.problems))


def nearest(word: str, known: Sequence[str]) -> str:
    """Return "Did you mean 'x'? " for the known word most like `word`, or nothing when none is near."""
    longer = [candidate for candidate in known if len(word) >= 3 and candidate.startswith(word)]
    close = longer[:1] or difflib.get_close_matches(word[:100], known, n=1, cutoff=0.6)
    return f"Did you mean '{close[0]}'? " if close else ""


def shown(value: Any) -> str:
    """Return a value as a message shows it: as YAML writes it, on one line, cut when long."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        simple = all(isinstance(item, int | float | str) for item in value)
        text = f"[{', '.join(shown(item) for item in value[:10])}]"
        return text if simple and len(text) <= _LONGEST_SHOWN else f"a list of {len(value)}"
    if isinstance(value, float) and not (abs(value) < float("inf")):
        return ".nan" if value != value else (".inf" if value > 0 else "-.inf")
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…"
