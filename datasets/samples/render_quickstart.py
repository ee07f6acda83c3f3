"""Render the quickstart's pictures: ten of a thing no base model has seen, a star in two-colour stripes.

    python datasets/samples/render_quickstart.py

writes `quickstart/` beside this file: PNG pictures with their captions. The same pixels every time.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from imagesets.world.palette import COLOURS, GROUNDS, Floats
from imagesets.world.shapes import polygon

STRIPE_WIDTH = 0.44
"""As a share of the star's radius: wide enough for a VAE whose cells are four pixels."""

_SUPERSAMPLING = 4


@dataclass(frozen=True)
class Picture:
    """One picture: sizes are (height, width); the centre and radius are shares of the shorter side."""

    size: tuple[int, int]
    ground: str
    centre: tuple[float, float]
    radius: float
    angle_degrees: float


PICTURES = (
    Picture((128, 128), "white", (0.50, 0.50), 0.40, 0),
    Picture((128, 128), "black", (0.50, 0.50), 0.38, 6),
    Picture((144, 112), "white", (0.62, 0.48), 0.36, -6),
    Picture((112, 144), "grey", (0.48, 0.70), 0.40, 4),
    Picture((120, 120), "black", (0.46, 0.54), 0.34, -8),
    Picture((160, 100), "white", (0.85, 0.50), 0.40, 5),
    Picture((100, 160), "black", (0.50, 0.62), 0.42, -4),
    Picture((136, 136), "grey", (0.54, 0.46), 0.42, 8),
    Picture((96, 96), "white", (0.50, 0.50), 0.30, 3),
    Picture((150, 120), "grey", (0.64, 0.52), 0.38, -3),
)


def star_distance(y: Floats, x: Floats, radius: float) -> Floats:
    """Return the signed distance, negative inside, to a five-pointed star around the origin with a point upwards."""
    angles = np.pi / 2 + np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2 == 0, radius, radius * 0.42)
    return polygon(y, x, np.stack([-radii * np.sin(angles), radii * np.cos(angles)], axis=1))  # (10, 2), y downwards


def render(picture: Picture) -> Image.Image:
    """Draw one picture, antialiased by drawing it larger and averaging."""
    height, width = (side * _SUPERSAMPLING for side in picture.size)
    short = min(height, width)
    y, x = np.mgrid[0:height, 0:width] + 0.5
    y, x = y - picture.centre[0] * short, x - picture.centre[1] * short
    turn = np.deg2rad(picture.angle_degrees)
    turned_y, turned_x = y * np.cos(turn) - x * np.sin(turn), y * np.sin(turn) + x * np.cos(turn)
    radius = picture.radius * short
    inside = star_distance(turned_y, turned_x, radius) < 0
    stripes = np.floor((turned_y + turned_x) / (radius * STRIPE_WIDTH)).astype(int) % 2 == 0
    pixels = np.empty((height, width, 3))
    pixels[:] = GROUNDS[picture.ground]
    pixels[inside & stripes] = COLOURS["orange"]
    pixels[inside & ~stripes] = COLOURS["blue"]
    blocks = pixels.reshape(picture.size[0], _SUPERSAMPLING, picture.size[1], _SUPERSAMPLING, 3)
    return Image.fromarray(blocks.mean(axis=(1, 3)).round().astype(np.uint8))


def main() -> None:
    """Write every picture and its caption."""
    folder = Path(__file__).parent / "quickstart"
    folder.mkdir(exist_ok=True)
    for number, picture in enumerate(PICTURES, start=1):
        render(picture).save(folder / f"zig-{number:02d}.png", optimize=True)
        caption = f"a <zig> on a {picture.ground} background\n"
        (folder / f"zig-{number:02d}.txt").write_text(caption, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
