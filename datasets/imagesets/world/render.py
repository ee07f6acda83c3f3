"""Paint a scene: smooth edges from signed distances, the softness of a lens, an outline."""

import numpy as np
import numpy.typing as npt

from imagesets.world.palette import COLOURS, GROUNDS, Floats
from imagesets.world.scenes import Scene
from imagesets.world.shapes import SHAPES

Pixels = npt.NDArray[np.uint8]

OUTLINE_WIDTH = 0.024
"""Of an outline, as a share of the picture's shorter side; it lies inside the shape."""

EDGE_SOFTNESS_PX = 1.6
"""Over how many of the picture's own pixels an edge fades: a larger picture of the same thing is a sharper one."""

_OUTLINE_COLOUR = np.array([12.0, 12.0, 14.0])


def render_scene(scene: Scene, size: tuple[int, int]) -> Pixels:
    """Return the scene as a picture of `size` (height, width), uint8 sRGB, (height, width, 3)."""
    height, width = size
    side = min(size)
    y = ((np.arange(height) + 0.5 - height / 2) / side)[:, None]
    x = ((np.arange(width) + 0.5 - width / 2) / side)[None, :]
    softness = EDGE_SOFTNESS_PX / side
    picture = np.broadcast_to(np.array(GROUNDS[scene.ground], dtype=np.float64), (height, width, 3)).copy()
    for thing in scene.things:
        local_y = np.broadcast_to((y - thing.centre[0]) / thing.radius, (height, width))
        local_x = np.broadcast_to((x - thing.centre[1]) / thing.radius, (height, width))
        distance = SHAPES[thing.shape](local_y, local_x) * thing.radius
        fill = np.array(COLOURS[thing.colour], dtype=np.float64)
        edge = fill + scene.outline * (_OUTLINE_COLOUR - fill)
        _paint(picture, edge, _coverage(distance, softness))
        _paint(picture, fill, _coverage(distance + OUTLINE_WIDTH, softness))
    return np.round(picture).astype(np.uint8)


def _coverage(distance: Floats, softness: float) -> Floats:
    """Return how much of each pixel lies inside, 0 to 1: a smooth step of the given width around distance 0."""
    share = np.clip(0.5 - distance / softness, 0.0, 1.0)
    return share * share * (3.0 - 2.0 * share)


def _paint(picture: Floats, colour: Floats, coverage: Floats) -> None:
    picture += coverage[..., None] * (colour - picture)
