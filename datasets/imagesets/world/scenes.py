"""What a picture of the world shows, drawn from a generator: one thing or two, their places, the ground."""

from dataclasses import dataclass

import numpy as np

from imagesets.world.palette import COLOURS, GROUNDS, Floats
from imagesets.world.shapes import SHAPES

RELATIONS: dict[str, tuple[int, int]] = {"above": (-1, 0), "below": (1, 0), "left of": (0, -1), "right of": (0, 1)}
"""Where the first thing lies as seen from the second, as signs of (y, x)."""

SIZES: dict[str, tuple[float, float]] = {"small": (0.21, 0.25), "large": (0.34, 0.39)}
"""The radii a lone thing may have, as shares of the picture's shorter side."""

PAIR_RADII = (0.17, 0.195)
PAIR_DISTANCE = 0.25
"""How far each of two things lies from the middle, as a share of the shorter side."""

CENTRE_JITTER = 0.02
"""How far a scene may lie from the picture's middle, at most, as a share of the shorter side.

Small on purpose: where a thing lies in a cut picture then follows from the cut, which is what crop conditioning is
told, and from little else.
"""


@dataclass(frozen=True)
class Thing:
    """One shape.

    Attributes:
        shape: a name of SHAPES.
        colour: a name of COLOURS.
        centre: (y, x) from the picture's middle, as shares of its shorter side.
        radius: as a share of the shorter side.
    """

    shape: str
    colour: str
    centre: tuple[float, float]
    radius: float


@dataclass(frozen=True)
class Scene:
    """What a picture shows.

    Attributes:
        things: one, or two with different colours.
        ground: a name of GROUNDS.
        size: the name of a lone thing's size, or None for two.
        relation: where the first of two lies, a name of RELATIONS, or None for one.
        outline: how dark the things' outlines are, 0 (none) to 1 (black).
    """

    things: tuple[Thing, ...]
    ground: str
    size: str | None
    relation: str | None
    outline: float

    @property
    def aesthetic_score(self) -> float:
        """The score a judge who likes outlines gives: 2 for none to 8 for black."""
        return round(2.0 + 6.0 * self.outline, 2)


def draw_scene(rng: np.random.Generator, *, num_things: int) -> Scene:
    """Draw a scene with one thing or two, each part of it independently and evenly."""
    ground = str(rng.choice(list(GROUNDS)))
    outline = float(rng.uniform())
    jitter = rng.uniform(-CENTRE_JITTER, CENTRE_JITTER, 2)
    if num_things == 1:
        size = str(rng.choice(list(SIZES)))
        thing = Thing(
            _choose(rng, list(SHAPES)), _choose(rng, list(COLOURS)), _place(jitter), rng.uniform(*SIZES[size])
        )
        return Scene((thing,), ground, size, None, outline)
    relation = _choose(rng, list(RELATIONS))
    direction = np.array(RELATIONS[relation]) * PAIR_DISTANCE
    colours = rng.choice(list(COLOURS), 2, replace=False)
    things = tuple(
        Thing(_choose(rng, list(SHAPES)), str(colour), _place(jitter + sign * direction), rng.uniform(*PAIR_RADII))
        for colour, sign in zip(colours, (1, -1), strict=True)
    )
    return Scene(things, ground, None, relation, outline)


def _choose(rng: np.random.Generator, names: list[str]) -> str:
    return str(rng.choice(names))


def _place(centre: Floats) -> tuple[float, float]:
    return (float(centre[0]), float(centre[1]))
