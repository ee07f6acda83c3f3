"""The world's shapes as signed distances: negative inside, in the units of the coordinates, y downwards."""

from collections.abc import Callable

import numpy as np

from imagesets.world.palette import Floats

Distance = Callable[[Floats, Floats], Floats]
"""(y, x) around the shape's centre, in units of its radius -> signed distance."""


def circle(y: Floats, x: Floats) -> Floats:
    """Return the distance to a disc of radius 1."""
    return np.hypot(y, x) - 1.0


def square(y: Floats, x: Floats) -> Floats:
    """Return the distance to an upright square of half side 0.86."""
    return _box(y, x, 0.86, 0.86)


def triangle(y: Floats, x: Floats) -> Floats:
    """Return the distance to a triangle with one corner up, moved so that its bounding box is centred."""
    return polygon(y, x, np.array([[-0.94, 0.0], [0.86, 1.04], [0.86, -1.04]]))


def star(y: Floats, x: Floats) -> Floats:
    """Return the distance to a five-pointed star with a point up."""
    angles = np.pi / 2 + np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2 == 0, 1.15, 1.15 * 0.44)
    return polygon(y, x, np.stack([-radii * np.sin(angles) + 0.08, radii * np.cos(angles)], axis=1))


def ring(y: Floats, x: Floats) -> Floats:
    """Return the distance to a ring of outer radius 1 and inner radius 0.5."""
    return np.abs(np.hypot(y, x) - 0.75) - 0.25


def cross(y: Floats, x: Floats) -> Floats:
    """Return the distance to an upright cross with arms of half width 0.32."""
    return np.minimum(_box(y, x, 1.0, 0.32), _box(y, x, 0.32, 1.0))


SHAPES: dict[str, Distance] = {
    "circle": circle,
    "square": square,
    "triangle": triangle,
    "star": star,
    "ring": ring,
    "cross": cross,
}


def _box(y: Floats, x: Floats, half_height: float, half_width: float) -> Floats:
    dy, dx = np.abs(y) - half_height, np.abs(x) - half_width
    return np.hypot(np.maximum(dy, 0.0), np.maximum(dx, 0.0)) + np.minimum(np.maximum(dy, dx), 0.0)


def polygon(y: Floats, x: Floats, corners: Floats) -> Floats:
    """Return the distance to a closed polygon of corners (N, 2) as (y, x): even-odd inside, nearest edge."""
    nearest = np.full(y.shape, np.inf)
    inside = np.zeros(y.shape, dtype=bool)
    for (y0, x0), (y1, x1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        ey, ex = y1 - y0, x1 - x0
        share = np.clip(((y - y0) * ey + (x - x0) * ex) / (ey * ey + ex * ex), 0.0, 1.0)
        nearest = np.minimum(nearest, np.hypot(y - y0 - share * ey, x - x0 - share * ex))
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return np.where(inside, -nearest, nearest)
