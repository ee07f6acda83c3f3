"""A run's previews in order: prompts down, steps across, each drawn in several ways. It opens no picture.

What is drawn in which way is told by the files' names, as `finetune.preview` writes them: `02-lora-off-refiner.png` is
the second prompt without the LoRA, through the refiner. A model that was trained whole has `untrained` and `trained`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from webui.paths import file_inside

_NAME = re.compile(
    r"(?P<prompt>[0-9]{2,4})-(?P<way>lora-off|lora|untrained|trained)(?P<refined>-refiner)?\.png", re.ASCII
)

Stage = Literal["base", "refined"]


@dataclass(frozen=True)
class Cell:
    """One picture's place.

    Attributes:
        prompt: from 1.
        step: optimizer steps done.
        learned: whether what was learned is on.
        refined: whether the refiner finished it.
    """

    prompt: int
    step: int
    learned: bool
    refined: bool


@dataclass(frozen=True)
class Wall:
    """All previews of a run.

    Attributes:
        pictures: the file of each place, relative to the run's folder, as the log has it.
        prompts: numbers from 1, rising.
        steps: rising.
        has_refined: whether there are pictures through the refiner.
    """

    pictures: Mapping[Cell, str]
    prompts: tuple[int, ...]
    steps: tuple[int, ...]
    has_refined: bool

    def shown(self, prompt: int, step: int, *, refined: bool) -> str | None:
        """Return the picture of a place with what was learned: at step 0 that is the untouched one."""
        return self.pictures.get(Cell(prompt, step, learned=True, refined=refined)) or self.pictures.get(
            Cell(prompt, step, learned=False, refined=refined)
        )

    def pair(self, prompt: int, step: int, way: "Pair", *, refined: bool) -> tuple[str, str] | None:
        """Return the two pictures to hold beside each other, or None where one is missing."""
        if way == "learned":
            # A model trained whole has its untrained pictures at the first step alone.
            places = [Cell(prompt, at, learned=False, refined=refined) for at in (step, *self.steps)]
            before = next((self.pictures[place] for place in places if place in self.pictures), None)
            after = self.pictures.get(Cell(prompt, step, learned=True, refined=refined))
        else:
            before, after = self.shown(prompt, step, refined=False), self.shown(prompt, step, refined=True)
        return None if before is None or after is None else (before, after)


Pair = Literal["learned", "refined"]


def build_wall(previews: Mapping[int, Sequence[str]]) -> Wall:
    """Put the pictures of a log in order; what has no name of ours is left out."""
    pictures: dict[Cell, str] = {}
    for step, paths in previews.items():
        for path in paths:
            match = _NAME.fullmatch(path.rpartition("/")[2])
            if match is not None:
                learned = match["way"] in ("lora", "trained")
                pictures[Cell(int(match["prompt"]), step, learned, match["refined"] is not None)] = path
    return Wall(
        pictures,
        tuple(sorted({cell.prompt for cell in pictures})),
        tuple(sorted({cell.step for cell in pictures})),
        any(cell.refined for cell in pictures),
    )


def evenly(steps: Sequence[int], count: int) -> tuple[int, ...]:
    """Choose at most `count` of the steps: the first, the last, and what lies evenly between."""
    if len(steps) <= count:
        return tuple(steps)
    last = len(steps) - 1
    return tuple(steps[round(index * last / (count - 1))] for index in range(count))


def on_disk(run: Path, relative: str | None) -> str | None:
    """Return the path of a run's picture, where it is a plain file inside the run's folder."""
    path = None if relative is None else file_inside(run, relative)
    return None if path is None else str(path)
