"""Numbers read off one picture: what the oracle finds in it against what was asked, how sharp, how dark an outline."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from finetune.miniature.effects.asking import Ask
from finetune.miniature.effects.rows import Pixels
from imagesets.world.oracle import Reading, find_parts, read_picture
from imagesets.world.palette import COLOURS, GROUNDS, to_lab
from imagesets.world.scenes import RELATIONS

MIN_OVERLAP = 0.6
"""How well a thing has to fill a shape to count as one."""

_OUTLINE_LIGHTNESS = 3.6
"""L* of the outline's colour, (12, 12, 14)."""

_OUTLINE_DEPTHS = (1, 2, 3)


@dataclass(frozen=True)
class Hits:
    """What of one picture is as it was asked.

    Attributes:
        colour: of the largest thing.
        shape: of the largest thing, filling its template to MIN_OVERLAP.
        ground: of the picture.
        whole: there is a thing and no border cuts it.
        overlap: of the largest thing with the shape that was asked for, 0 where it is read as another.
    """

    colour: bool
    shape: bool
    ground: bool
    whole: bool
    overlap: float

    @property
    def both(self) -> bool:
        """Colour and shape."""
        return self.colour and self.shape


def read_all(pictures: Sequence[Pixels]) -> list[Reading]:
    """Read pictures with the oracle."""
    return [read_picture(picture) for picture in pictures]


def hits(reading: Reading, ask: Ask) -> Hits:
    """Compare a reading with the lone thing that was asked for."""
    right_ground = reading.ground == ask.scene.ground
    if not reading.things:
        return Hits(False, False, right_ground, False, 0.0)
    thing = reading.things[0]
    overlap = thing.overlap if thing.shape == ask.thing.shape else 0.0
    return Hits(
        colour=thing.colour == ask.thing.colour,
        shape=overlap >= MIN_OVERLAP,
        ground=right_ground,
        whole=not thing.is_cut,
        overlap=overlap,
    )


def has_both_colours(reading: Reading, ask: Ask) -> bool:
    """Whether the two largest things have the two colours that were asked for."""
    return {thing.colour for thing in reading.things[:2]} == {thing.colour for thing in ask.scene.things}


def has_relation(reading: Reading, ask: Ask) -> bool:
    """Whether both colours are there and the first lies from the second where it was asked to."""
    if not has_both_colours(reading, ask):
        return False
    centres = {thing.colour: np.array(thing.centre) for thing in reading.things[:2]}
    first, second = (centres[thing.colour] for thing in ask.scene.things)
    away = first - second
    axis = int(np.argmax(np.abs(away)))
    found = [0, 0]
    found[axis] = int(np.sign(away[axis]))
    assert ask.scene.relation is not None, "there are two things"
    return tuple(found) == RELATIONS[ask.scene.relation]


def sharpness(picture: Pixels, ask: Ask) -> float:
    """Return the variance of the Laplacian of how much of each pixel is the thing, 0 the ground and 1 its fill.

    Each pixel is projected on the line from the ground's colour to the fill's as they were asked for, in sRGB, so that
    colours and contrasts do not matter.
    """
    ground = np.array(GROUNDS[ask.scene.ground], dtype=np.float64)
    axis = np.array(COLOURS[ask.thing.colour], dtype=np.float64) - ground
    share = (picture.astype(np.float64) - ground) @ axis / (axis @ axis)
    return float(ndimage.laplace(share).var())


def outline_darkness(picture: Pixels) -> float | None:
    """Return how dark the rim of the largest thing is: 0 as its fill, 1 as black; None where there is no thing.

    The lightness L* is averaged along lines of equal depth inside the thing, and the darkest of the first three is
    taken: the line of the outline itself, wherever the edge's softness puts it.
    """
    lab = to_lab(picture)
    _, parts = find_parts(lab)
    if not parts:
        return None
    depth = ndimage.distance_transform_cdt(np.pad(parts[0], 1), metric="chessboard")[1:-1, 1:-1]
    fill = float(np.median(lab[depth >= min(4, int(depth.max()))][:, 0]))
    rims = [float(lab[depth == step][:, 0].mean()) for step in _OUTLINE_DEPTHS if (depth == step).any()]
    return (fill - min(rims)) / max(fill - _OUTLINE_LIGHTNESS, 1.0)


def brightness(picture: Pixels) -> float:
    """Return the mean of a picture, 0 to 255."""
    return float(picture.mean())
