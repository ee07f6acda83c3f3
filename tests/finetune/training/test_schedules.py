"""Schedules by hand: all ten factors of ten-step schedules written out."""

import pytest

from finetune.recipe.training import ConstantSchedule, CosineSchedule, LinearSchedule
from finetune.training.loop import optimizer_step
from finetune.training.schedules import SCHEDULES, build_schedule

# cos(pi * k / 10) = 0.95105652, 0.80901699, 0.58778525, 0.30901699, 0 and back with the sign turned
_COSINE = [1, 0.97552826, 0.90450850, 0.79389263, 0.65450850, 0.5, 0.34549150, 0.20610737, 0.09549150, 0.02447174]

_TABLE = [
    (ConstantSchedule(), [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
    (ConstantSchedule(warmup_steps=4), [0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1, 1]),
    (LinearSchedule(), [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
    (LinearSchedule(warmup_steps=2), [1 / 3, 2 / 3, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
    (CosineSchedule(), _COSINE),
    (CosineSchedule(final_factor=0.2), [0.2 + 0.8 * factor for factor in _COSINE]),
    # after five steps of warm-up, half a cosine in five: cos(0), cos(36 deg), cos(72), cos(108), cos(144)
    (
        CosineSchedule(warmup_steps=5),
        [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 0.90450850, 0.65450850, 0.34549150, 0.09549150],
    ),
]


@pytest.mark.parametrize(("settings", "factors"), _TABLE, ids=lambda value: getattr(value, "kind", ""))
def test_ten_steps_by_hand(settings, factors):
    schedule = build_schedule(settings, 10)
    assert [schedule(step) for step in range(10)] == pytest.approx(factors, abs=1e-8)


def test_every_schedule_is_in_the_table():
    assert {settings.kind for settings, _ in _TABLE} == set(SCHEDULES)


def test_a_warmup_as_long_as_the_run_only_rises():
    schedule = build_schedule(CosineSchedule(warmup_steps=10), 10)
    factors = [schedule(step) for step in range(10)]
    assert factors == sorted(factors)
    assert 0 < factors[0] < factors[-1] < 1


def test_the_loop_takes_the_factor_of_its_optimizer_step(make_state):
    """Counted in optimizer steps also under accumulation, each group from its own peak."""
    state = make_state({
        "training.micro_batch_size": 1,
        "training.global_batch_size": 2,
        "training.lr_schedule": {"kind": "linear", "warmup_steps": 2},
        "adapter.text_encoder": {"rank": 2, "learning_rate": 3e-5},
    })  # fmt: skip
    reports = [optimizer_step(state) for _ in range(4)]
    factors = [1 / 3, 2 / 3, 1, 0.875]
    assert [report.learning_rates["unet"] for report in reports] == pytest.approx([1e-3 * f for f in factors])
    assert [report.learning_rates["text_encoder"] for report in reports] == pytest.approx([3e-5 * f for f in factors])
