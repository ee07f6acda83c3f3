"""Offset noise (Guttenberg 2023; Podell et al. 2023, section 2.3): it lets pictures be darker and brighter.

The shipped base is trained on for a moment twice, once with the offset and once without, everything else alike, and
both draw the same things on black and on white grounds.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from finetune.miniature.effects.asking import Ask, with_ground
from finetune.miniature.effects.intervals import Interval, mean_interval
from finetune.miniature.effects.measures import brightness
from finetune.miniature.effects.rows import SHOWN, Findings, Grid, Pixels, Row
from finetune.miniature.effects.studio import Studio
from finetune.miniature.stages import BASE
from finetune.recipe import load_recipe
from imagesets.world.photos import write_photos

NUM_STEPS = 150
BATCH_SIZE = 16
LEARNING_RATE = 3e-4
_NUM_PHOTOS = 1200
_PHOTOS_SEED = 978


def measure_offset_noise(studio: Studio) -> Findings:
    """Measure how far apart black and white grounds are drawn, with offset noise and without."""
    photos = studio.scratch / "photos"
    write_photos(photos, _NUM_PHOTOS, _PHOTOS_SEED)
    offset = load_recipe(BASE.recipe).training.objective.noise_offset
    runs = [
        studio.train(BASE.recipe, overrides(studio.base, photos, name, value))
        for name, value in (("with-offset", offset), ("without-offset", 0.0))
    ]
    with_offset, without = (run.result().export for run in runs)
    asks = studio.asks(num=max(2, studio.num_prompts // 2))
    findings = Findings()
    row, grid = _compared(studio, asks, with_offset, without)
    effect = f"offset noise {offset:g} against 0, {NUM_STEPS} steps each: spread of mean brightness, black to white"
    findings.rows.append(_row(effect, row, len(asks)))
    findings.grids.append(Grid("offset-noise", f"After {NUM_STEPS} steps with offset noise, and without", grid))
    if studio.previous is not None:
        row, _ = _compared(studio, asks, studio.base, studio.previous)
        effect = "the base against its stage before, which had no offset noise: spread of mean brightness"
        findings.rows.append(_row(effect, row, len(asks)))
    return findings


def overrides(base: Path, photos: Path, name: str, offset: float) -> list[str]:
    """Return what makes the last stage's recipe a short continuation from a base."""
    return [
        f"name={name}",
        f"model.path={json.dumps(str(base))}",
        f"data.sources=[{{kind: folder, path: {json.dumps(str(photos))}}}]",
        f"training.steps={NUM_STEPS}",
        f"training.micro_batch_size={BATCH_SIZE}",
        f"training.global_batch_size={BATCH_SIZE}",
        f"training.objective.noise_offset={offset}",
        f"adapter.unet.learning_rate={LEARNING_RATE}",
        "training.ema.decay=0.98",
        "training.lr_schedule.kind=constant",
        "training.lr_schedule.warmup_steps=10",
        "checkpoint.every_steps=null",
    ]


Compared = tuple[float, Interval]


def _compared(
    studio: Studio, asks: Sequence[Ask], base: Path, other: Path
) -> tuple[Compared, list[tuple[str, Sequence[Pixels]]]]:
    """Return how much wider the first base's spread is, of 0 to 255, paired, and pictures of both."""
    batches = [
        studio.batch(asks, [with_ground(ask, ground) for ask in asks], base=folder)
        for folder in (base, other)
        for ground in ("black", "white")
    ]
    drawn = studio.draw(batches)
    black, white, other_black, other_white = ([brightness(picture) for picture in pictures] for pictures in drawn)
    wider = [(b - a) - (d - c) for a, b, c, d in zip(black, white, other_black, other_white, strict=True)]
    labels = ("with, black", "with, white", "without, black", "without, white")
    shown: list[tuple[str, Sequence[Pixels]]] = [
        (label, pictures[:SHOWN]) for label, pictures in zip(labels, drawn, strict=True)
    ]
    return mean_interval(wider), shown


def _row(effect: str, compared: Compared, count: int) -> Row:
    mean, interval = compared
    return Row("offset-noise", effect, mean, interval, "of 255", "above 0", mean > 0, count)
