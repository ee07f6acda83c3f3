"""Learning rate schedules: a factor as a pure function of the optimizer step. There is no state to save."""

import math
from collections.abc import Callable

from finetune.recipe.training import ConstantSchedule, CosineSchedule, LinearSchedule

Schedule = Callable[[int], float]
"""step (0 for the first optimizer step) -> what the learning rate is multiplied by."""


def constant(_settings: ConstantSchedule, _progress: float) -> float:
    """Stay at 1."""
    return 1.0


def linear(_settings: LinearSchedule, progress: float) -> float:
    """Fall in a straight line to 0 at the end."""
    return 1.0 - progress


def cosine(settings: CosineSchedule, progress: float) -> float:
    """Fall along half a cosine to `final_factor` (Loshchilov & Hutter 2017, arXiv 1608.03983, equation 5)."""
    return settings.final_factor + (1.0 - settings.final_factor) * 0.5 * (1.0 + math.cos(math.pi * progress))


SCHEDULES: dict[str, Callable[..., float]] = {"constant": constant, "linear": linear, "cosine": cosine}


def build_schedule(settings: ConstantSchedule | LinearSchedule | CosineSchedule, total_steps: int) -> Schedule:
    """Return the factor by step: a rise in a line over the warm-up, then the named fall over the rest.

    The first step already moves: with a warm-up of w steps, step k has factor (k + 1) / (w + 1). Counted in optimizer
    steps, whatever the accumulation or the number of processes.
    """
    fall = SCHEDULES[settings.kind]
    warmup = settings.warmup_steps

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return fall(settings, min(1.0, (step - warmup) / max(1, total_steps - warmup)))

    return factor
