"""Measure every family of rows, side by side, and put what was found together in one order."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from finetune.errors import RecipeError
from finetune.miniature.effects.brightness import measure_offset_noise
from finetune.miniature.effects.conditions import measure_buckets, measure_crop, measure_original_size
from finetune.miniature.effects.contents import measure_guidance, measure_one_thing, measure_oracle, measure_two_things
from finetune.miniature.effects.lora import measure_8bit_optimizer, measure_lora, measure_lora_parts
from finetune.miniature.effects.refining import measure_aesthetic_score, measure_refiner
from finetune.miniature.effects.rows import Findings, Row
from finetune.miniature.effects.studio import Studio
from finetune.miniature.effects.targets import measure_target_size


@dataclass(frozen=True)
class Family:
    """Rows that are measured together.

    Attributes:
        measure: measures them.
        title: a heading.
        method: how it is measured, in a sentence or two.
    """

    measure: Callable[[Studio], Findings]
    title: str
    method: str


FAMILIES: dict[str, Family] = {
    "oracle": Family(
        measure_oracle,
        "How well can a picture be read?",
        "The oracle reads ground, colours, shapes and places without having been trained. Nothing that is drawn can be "
        "read better than true pictures and what the VAE makes of them.",
    ),
    "one": Family(
        measure_one_thing,
        "One thing",
        "Prompts such as 'a red star on a grey background'. A colour is right where the largest thing has it, a shape "
        "where the thing fills its template to 0.6 (intersection over union).",
    ),
    "two": Family(
        measure_two_things,
        "Two things",
        "Prompts such as 'a red star above a blue ring on a grey background'. A relation is right where both colours "
        "are there and their centres differ most in the direction that was asked for.",
    ),
    "size": Family(
        measure_original_size,
        "Original size",
        "The same prompts and noise, told five original sizes. Sharpness is the variance of the Laplacian of the "
        "thing's coverage, so that neither colour nor contrast matters; ratios are paired by prompt.",
    ),
    "crop": Family(
        measure_crop,
        "Crop",
        "The base is told that the square was cut from a tall or wide photo, at five places. Geometry says where the "
        "photo's middle then lies; the slope is that of the drawn thing's centre over it (1 is geometry, 0 no effect).",
    ),
    "buckets": Family(
        measure_buckets,
        "Buckets",
        "The same prompts in every size of the last stage's recipe, told rightly. Noise of another size is other "
        "noise, so only the prompts are paired.",
    ),
    "target": Family(
        measure_target_size,
        "Target size",
        "Wrong target sizes against right ones: the error of the predicted noise on photos that no training has seen, "
        "and how well things fill their shapes in a long bucket. No bar: the sign is what is asked.",
    ),
    "offset-noise": Family(
        measure_offset_noise,
        "Offset noise",
        "The shipped base is trained on for a moment twice with the last stage's recipe, with the offset and without, "
        "the same photos and draws. The spread is the mean brightness on white less that on black, paired.",
    ),
    "guidance": Family(
        measure_guidance,
        "Guidance",
        "The same noise at five guidance scales; 1 is without. Prompts in a caption's form are followed without "
        "guidance, too, so these are in forms that no caption had: 'red star', 'star, red', 'photo of a red star', "
        "'a very nice red thing, like a star'.",
    ),
    "refiner": Family(
        measure_refiner,
        "Refiner",
        "Errors are on photos that no training has seen, each model rightly told, with the same noise. On hand-over "
        "the refiner takes the base's latents after 80 % of the way, as an ensemble of experts.",
    ),
    "aesthetic": Family(
        measure_aesthetic_score,
        "Aesthetic score",
        "The world's judge likes dark outlines. The refiner finishes the same latents with five scores; the outline's "
        "darkness is read off the rim, on white and grey grounds.",
    ),
    "lora": Family(
        measure_lora,
        "A LoRA",
        "The quickstart's recipe: ten pictures of a star in orange and blue stripes, 'a <zig>', which the base has "
        "never seen. It counts as shown where each colour covers a fifth of the thing and the outline is a star's. "
        "Drawn at the guidance scale of the recipe's own previews.",
    ),
    "lora-parts": Family(
        measure_lora_parts,
        "Which parts carry a LoRA",
        "The same recipe with the adapter on fewer parts.",
    ),
    "optimizer": Family(
        measure_8bit_optimizer,
        "8-bit optimizer",
        "The same recipe with wider adapters (bitsandbytes keeps small tensors in 32 bits), the same draws.",
    ),
}
"""What `--rows` takes, in the order of the table."""

_FIRST = ("optimizer", "offset-noise", "lora", "lora-parts")
"""These train before they draw, so they begin first: the others draw meanwhile."""


@dataclass(frozen=True)
class Effects:
    """All that was measured.

    Attributes:
        found: by family, in the order of FAMILIES.
        seconds: how long it took.
    """

    found: Mapping[str, Findings]
    seconds: float

    @property
    def rows(self) -> list[Row]:
        """The table."""
        return [row for findings in self.found.values() for row in findings.rows]

    @property
    def all_hold(self) -> bool:
        """Whether every row that has a bar reaches it."""
        return all(row.holds is not False for row in self.rows)


def measure_effects(studio: Studio, families: Sequence[str], say: Callable[[str], None]) -> Effects:
    """Measure families of rows with a studio that is open.

    Args:
        studio: draws, trains and remembers.
        families: names of FAMILIES.
        say: told as each is done.

    Raises:
        RecipeError: a family is unknown.
        AtelierError: a run of the trainer failed.
    """
    unknown = [name for name in families if name not in FAMILIES]
    if unknown or not families:
        raise RecipeError(f"--rows: got {', '.join(unknown) or 'nothing'}. Known: {', '.join(FAMILIES)}")
    started = time.monotonic()
    ordered = sorted(set(families), key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    found: dict[str, Findings] = {}
    threads = ThreadPoolExecutor(len(ordered))  # they wait; the work is done in the studio's processes
    try:
        pending = {threads.submit(FAMILIES[name].measure, studio): name for name in ordered}
        for done in as_completed(pending):
            found[pending[done]] = done.result()
            say(f"{pending[done]}: done after {time.monotonic() - started:.0f} s, {len(found)} of {len(ordered)}")
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
    return Effects({name: found[name] for name in FAMILIES if name in found}, time.monotonic() - started)
