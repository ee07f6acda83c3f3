"""Measure every family of rows, side by side, and put what was found together in one order."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from finetune.errors import RecipeError
from finetune.miniature.effects.brightness import measure_offset_noise
from finetune.miniature.effects.conditions import measure_buckets, measure_crop, measure_original_size
from finetune.miniature.effects.contents import (
    measure_guidance,
    measure_one_thing,
    measure_oracle,
    measure_two_things,
)
from finetune.miniature.effects.lora import measure_8bit_optimizer, measure_lora, measure_lora_parts
from finetune.miniature.effects.refining import measure_aesthetic_score, measure_refiner
from finetune.miniature.effects.rows import Findings, Grid, Plot, Row
from finetune.miniature.effects.studio import Studio
from finetune.miniature.effects.targets import measure_target_size

FAMILIES: dict[str, Callable[[Studio], Findings]] = {
    "oracle": measure_oracle,
    "one": measure_one_thing,
    "two": measure_two_things,
    "size": measure_original_size,
    "crop": measure_crop,
    "buckets": measure_buckets,
    "target": measure_target_size,
    "offset-noise": measure_offset_noise,
    "guidance": measure_guidance,
    "refiner": measure_refiner,
    "aesthetic": measure_aesthetic_score,
    "lora": measure_lora,
    "lora-parts": measure_lora_parts,
    "optimizer": measure_8bit_optimizer,
}
"""What `--rows` takes, in the order of the table."""

_FIRST = ("optimizer", "offset-noise", "lora", "lora-parts")
"""These train before they draw, so they begin first: the others draw meanwhile."""


@dataclass(frozen=True)
class Effects:
    """All that was measured.

    Attributes:
        rows: the table.
        plots: one an effect that has a scale.
        grids: pictures.
        seconds: how long it took.
    """

    rows: tuple[Row, ...]
    plots: tuple[Plot, ...]
    grids: tuple[Grid, ...]
    seconds: float

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
        pending = {threads.submit(FAMILIES[name], studio): name for name in ordered}
        for done in as_completed(pending):
            found[pending[done]] = done.result()
            say(f"{pending[done]}: done after {time.monotonic() - started:.0f} s, {len(found)} of {len(ordered)}")
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
    parts = [found[name] for name in FAMILIES if name in found]
    return Effects(
        tuple(row for part in parts for row in part.rows),
        tuple(plot for part in parts for plot in part.plots),
        tuple(grid for part in parts for grid in part.grids),
        time.monotonic() - started,
    )
