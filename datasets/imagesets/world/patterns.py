"""Things in stripes of two colours under made-up names, for the VAE's decoder and the refiner: no part of the world.

The world's things have one fill each. A decoder that has seen nothing else cannot show two colours side by side, and a
refiner that has seen nothing else paints over what it does not know. SDXL's were taught on pictures of everything;
these stand in for that. The quickstart's own thing, a star in orange and blue called <zig>, is not among them.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from imagesets.randomness import keyed_numpy
from imagesets.world.palette import COLOURS, GROUNDS, Floats
from imagesets.world.render import Pixels
from imagesets.world.shapes import SHAPES

SIDES = (48, 128)
_LEFT_OUT = ("star", {"orange", "blue"})
_NAME_LEFT_OUT = "zig"


@dataclass(frozen=True)
class Pattern:
    """One picture: a square of uint8 sRGB, (side, side, 3), what is said of it, and a score that says nothing."""

    pixels: Pixels
    caption: str
    aesthetic_score: float


def draw_pattern(seed: int, index: int) -> Pattern:
    """Draw picture `index` of the endless set `seed`: a pure function of the two."""
    rng = keyed_numpy(seed, "world-pattern", index)
    side = round(float(np.exp(rng.uniform(*np.log(SIDES)))))
    shape = str(rng.choice(list(SHAPES)))
    colours = [str(name) for name in rng.choice(list(COLOURS), 2, replace=False)]
    if (shape, set(colours)) == _LEFT_OUT:
        shape = "circle"
    place = (np.arange(side) + 0.5) / side - 0.5
    centre, radius = rng.uniform(-0.12, 0.12, 2), float(rng.uniform(0.2, 0.42))
    y, x = np.meshgrid(place - centre[0], place - centre[1], indexing="ij")
    distance = SHAPES[shape](*_turned(y / radius, x / radius, rng.uniform(0.0, 2.0 * np.pi))) * radius
    width = float(rng.uniform(0.25, 0.6)) * radius
    along, _ = _turned(y, x, rng.uniform(0.0, 2.0 * np.pi))
    stripe = (np.abs((along / width) % 2.0 - 1.0) - 0.5) * width  # signed distance to the nearest stripe's edge
    softness = float(rng.uniform(0.8, 1.6)) / side
    fill = _mixed(COLOURS[colours[0]], COLOURS[colours[1]], _step(stripe / softness))
    ground = str(rng.choice(list(GROUNDS)))
    pixels = np.round(_mixed(GROUNDS[ground], fill, _step(-distance / softness))).astype(np.uint8)
    caption = f"a {_made_up_name(rng)} on a {ground} background"
    return Pattern(pixels, caption, round(float(rng.uniform(2.0, 8.0)), 2))


def write_patterns(
    folder: Path, num_pictures: int, seed: int, progress: Callable[[int, int], None] | None = None
) -> None:
    """Write the first pictures of a set as PNG files; what is there already whole is left as it is."""
    metadata = folder / "metadata.jsonl"
    if metadata.is_file() and len(metadata.read_text(encoding="utf-8").splitlines()) == num_pictures:
        return
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index in range(num_pictures):
        name = f"{index:06d}.png"
        pattern = draw_pattern(seed, index)
        Image.fromarray(pattern.pixels).save(folder / name, compress_level=1)
        facts = {"file_name": name, "text": pattern.caption, "aesthetic_score": pattern.aesthetic_score}
        lines.append(json.dumps(facts))
        if progress is not None:
            progress(index + 1, num_pictures)
    partial = metadata.with_suffix(".partial")
    partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    partial.replace(metadata)  # last: a folder with it is whole


def _made_up_name(rng: np.random.Generator) -> str:
    """Return a word of one or two syllables that means nothing, in angle brackets half the time."""
    syllables = ["".join(str(rng.choice(list(letters))) for letters in ("bdfgklmnprstvz", "aeiou", "bdgklmnprstx"))
                 for _ in range(int(rng.integers(1, 3)))]  # fmt: skip
    name = "".join(syllables)
    if name == _NAME_LEFT_OUT:
        name = "blip"
    return f"<{name}>" if rng.random() < 0.5 else name


def _turned(y: Floats, x: Floats, angle: float) -> tuple[Floats, Floats]:
    return y * np.cos(angle) - x * np.sin(angle), y * np.sin(angle) + x * np.cos(angle)


def _step(share: Floats) -> Floats:
    """Return a ramp from 0 to 1, one wide, around 0, with a last axis for colours."""
    return np.clip(0.5 + share, 0.0, 1.0)[..., None]


def _mixed(first: Floats | tuple[int, int, int], second: Floats | tuple[int, int, int], share: Floats) -> Floats:
    return np.asarray(first, dtype=np.float64) * (1.0 - share) + np.asarray(second, dtype=np.float64) * share
