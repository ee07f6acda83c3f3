"""Read a picture of the world back: ground, things, their shapes, colours and places. Nothing in it is trained.

The ground is the border's median, a thing is a connected part that differs from it, a colour is the nearest of the
palette in L*a*b*, a shape is the template that covers the part best. `read_stripes` reads the one thing that is not of
the world, the star in stripes of two colours that the quickstart's pictures teach.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from imagesets.world.palette import COLOURS, GROUNDS, Floats, nearest_name, to_lab
from imagesets.world.shapes import SHAPES

Mask = npt.NDArray[np.bool_]

MIN_AREA = 0.008
"""Smaller parts, as a share of the picture, are specks."""

MIN_CONTRAST = 16.0
"""How far from the ground, in L*a*b*, a pixel of a thing lies at least."""

STRIPES = ("orange", "blue")
"""The two colours of the quickstart's thing."""

MIN_STRIPES = 0.2
"""What share of the thing each of the two has to cover."""

MIN_STAR_OVERLAP = 0.6
"""How well the thing has to fill a star's outline."""

_STAR_TURNS = tuple(range(-36, 36, 6))
"""Degrees; a star turned by 72 is the same."""

_TEMPLATE_SIDE = 48


@dataclass(frozen=True)
class ThingReading:
    """One thing as read off a picture.

    Attributes:
        shape: the nearest of SHAPES.
        colour: the nearest of COLOURS.
        centre: (y, x) of its bounding box, in pixels.
        size: (height, width) of its bounding box, in pixels.
        area: share of the picture it covers.
        overlap: intersection over union with the template of its shape, 0 to 1.
        is_cut: whether it touches the picture's border.
    """

    shape: str
    colour: str
    centre: tuple[float, float]
    size: tuple[int, int]
    area: float
    overlap: float
    is_cut: bool


@dataclass(frozen=True)
class Reading:
    """What a picture shows: the ground and its things, the largest first."""

    ground: str
    things: tuple[ThingReading, ...]


@dataclass(frozen=True)
class StripesReading:
    """What a picture shows of the star in stripes.

    Attributes:
        shares: of the thing's pixels that are nearest to each of STRIPES in the whole palette.
        overlap: intersection over union of its outline with the nearest star's, 0 to 1.
        is_star: whether no other shape is nearer.
    """

    shares: dict[str, float]
    overlap: float
    is_star: bool

    @property
    def has_both_colours(self) -> bool:
        """Whether either colour covers MIN_STRIPES of the thing."""
        return min(self.shares.values()) >= MIN_STRIPES

    @property
    def is_whole(self) -> bool:
        """Whether both colours are there in the outline of a star."""
        return self.has_both_colours and self.is_star and self.overlap >= MIN_STAR_OVERLAP


def read_picture(pixels: npt.NDArray[np.uint8]) -> Reading:
    """Read a picture, uint8 sRGB, (height, width, 3)."""
    lab = to_lab(pixels)
    ground, parts = find_parts(lab)
    return Reading(nearest_name(ground, GROUNDS), tuple(_read_thing(part, lab) for part in parts))


def find_parts(lab: Floats) -> tuple[Floats, list[Mask]]:
    """Return the ground's colour, (3,), and the masks of the things, the largest first, of a picture in L*a*b*."""
    ground = np.median(_border(lab), axis=0)
    labels, num_parts = ndimage.label(np.linalg.norm(lab - ground, axis=-1) > MIN_CONTRAST)
    parts = [labels == index + 1 for index in range(num_parts)]
    return ground, sorted((part for part in parts if part.mean() >= MIN_AREA), key=lambda part: -int(part.sum()))


def read_stripes(pixels: npt.NDArray[np.uint8]) -> StripesReading | None:
    """Read the largest thing of a picture, uint8 sRGB, (height, width, 3), as one in stripes; None where there is none.

    Its outline is compared with the star's at every turn, and with the other shapes' as they stand in the world.
    """
    lab = to_lab(pixels)
    _, parts = find_parts(lab)
    if not parts:
        return None
    table = to_lab(np.array(list(COLOURS.values())))  # (colours, 3)
    nearest = np.linalg.norm(lab[parts[0]][:, None] - table, axis=-1).argmin(axis=1)
    shares = {name: float((nearest == list(COLOURS).index(name)).mean()) for name in STRIPES}
    cut = _cut_out(parts[0])
    star = max(_overlap(cut, "star", turn) for turn in _STAR_TURNS)
    other = max(_overlap(cut, name) for name in SHAPES if name != "star")
    return StripesReading(shares, star, star > other)


def _border(lab: Floats) -> Floats:
    return np.concatenate([lab[0], lab[-1], lab[1:-1, 0], lab[1:-1, -1]])


def _read_thing(part: Mask, lab: Floats) -> ThingReading:
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    cut = _cut_out(part)
    overlaps = {name: _overlap(cut, name) for name in SHAPES}
    shape = max(overlaps, key=lambda name: overlaps[name])
    height, width = part.shape
    return ThingReading(
        shape=shape,
        colour=nearest_name(_plain_colour(part, lab), COLOURS),
        centre=((top + bottom) / 2, (left + right) / 2),
        size=(int(bottom - top), int(right - left)),
        area=float(part.mean()),
        overlap=overlaps[shape],
        is_cut=bool(top == 0 or left == 0 or bottom == height or right == width),
    )


def _plain_colour(part: Mask, lab: Floats) -> Floats:
    """Return the median colour of the inner pixels, away from edge and outline as far as there are any, (3,)."""
    depth = ndimage.distance_transform_cdt(np.pad(part, 1), metric="chessboard")[1:-1, 1:-1]
    return np.median(lab[depth >= min(4, int(depth.max()))], axis=0)


def _cut_out(part: Mask) -> Mask:
    """Cut a mask to its bounding box."""
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    return part[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _overlap(part: Mask, shape: str, turn: int = 0) -> float:
    """Return the intersection over union of a part, scaled to a square, with a shape's template; 0 to 1."""
    height, width = part.shape
    if max(height, width) > 1.6 * min(height, width):
        return 0.0  # no shape is so lengthy: it is a piece of one, or two in one
    scaled = Image.fromarray(part.astype(np.uint8) * 255).resize(
        (_TEMPLATE_SIDE, _TEMPLATE_SIDE), Image.Resampling.BILINEAR
    )
    mask = np.asarray(scaled) > 127
    template = _template(shape, turn)
    return float((mask & template).sum() / (mask | template).sum())


@cache
def _template(shape: str, turn: int) -> Mask:
    """Return the mask of a shape turned by whole degrees, cut to its bounding box and scaled to the templates' side."""
    grid = (np.arange(480) + 0.5) / 480 * 2.6 - 1.3
    y, x = np.meshgrid(grid, grid, indexing="ij")
    angle = np.deg2rad(turn)
    mask = SHAPES[shape](y * np.cos(angle) - x * np.sin(angle), y * np.sin(angle) + x * np.cos(angle)) < 0
    cut = Image.fromarray(_cut_out(mask).astype(np.uint8) * 255)
    return np.asarray(cut.resize((_TEMPLATE_SIDE, _TEMPLATE_SIDE), Image.Resampling.BOX)) > 127
