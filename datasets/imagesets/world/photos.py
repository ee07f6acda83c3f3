"""Write sets of photos of the world: PNG files of many sizes and shapes with their captions in metadata.jsonl."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from imagesets.randomness import keyed_numpy
from imagesets.world.captions import draw_caption
from imagesets.world.render import render_scene
from imagesets.world.scenes import Scene, draw_scene

MAX_ASPECT = 2.5
Sides = tuple[float, float]

SHORTER_SIDES: Sides = (24, 128)
"""Between which the shorter side of a photo lies, in pixels, unless something else is asked for."""

SQUARE_SHARE = 0.25
PAIR_SHARE = 0.4


@dataclass(frozen=True)
class Photo:
    """One picture of the world: a scene, how many pixels it has, what is said of it."""

    scene: Scene
    size: tuple[int, int]
    caption: str


def draw_photo(seed: int, index: int, shorter_sides: Sides = SHORTER_SIDES) -> Photo:
    """Draw photo `index` of the endless set `seed`: a pure function of what it is given.

    A quarter is square, the others have any aspect up to MAX_ASPECT either way, evenly in its logarithm, and the
    shorter side lies evenly in its logarithm between the two that are given, in pixels.
    """
    rng = keyed_numpy(seed, "world-photo", index)
    scene = draw_scene(rng, num_things=2 if rng.random() < PAIR_SHARE else 1)
    side = float(np.exp(rng.uniform(*np.log(shorter_sides))))
    aspect = 1.0 if rng.random() < SQUARE_SHARE else float(np.exp(rng.uniform(-1, 1) * np.log(MAX_ASPECT)))
    height, width = side * max(1.0, aspect), side * max(1.0, 1.0 / aspect)
    return Photo(scene, (round(height), round(width)), draw_caption(scene, rng))


def write_photos(
    folder: Path,
    num_photos: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    shorter_sides: Sides = SHORTER_SIDES,
) -> None:
    """Write the first `num_photos` photos of a set; what is there already whole is left as it is."""
    metadata = folder / "metadata.jsonl"
    if metadata.is_file() and _num_lines(metadata) == num_photos:
        return
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index in range(num_photos):
        photo = draw_photo(seed, index, shorter_sides)
        name = f"{index:06d}.png"
        Image.fromarray(render_scene(photo.scene, photo.size)).save(folder / name, compress_level=1)
        score = photo.scene.aesthetic_score
        lines.append(json.dumps({"file_name": name, "text": photo.caption, "aesthetic_score": score}))
        if progress is not None:
            progress(index + 1, num_photos)
    partial = metadata.with_suffix(".partial")
    partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    partial.replace(metadata)  # last: a folder with it is whole


def _num_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())
