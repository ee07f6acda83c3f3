"""A slip of the keyboard is told, and fills no memory."""

import numpy as np
import pytest

from finetune.errors import DataError, RecipeError
from finetune.recipe import load_recipe
from finetune.training.pictures import MAX_SHOWINGS, TrainingPictures
from imagesets.buckets import generated_buckets
from imagesets.pictures import PictureFacts
from imagesets.samples import Sample

FACTS = PictureFacts((64, 64), "PNG", "RGB", 1, has_alpha=False, num_frames=1)


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("data.sources.0.repeats=1000000000", "data.sources.0.repeats=100000"),
        ("training.steps=10000000000", "training.steps=1000000000"),
        ("data.buckets={kind: generated, resolution: 102400}", "data.buckets={kind: generated, resolution: 16384}"),
        ("data.buckets={kind: generated, max_aspect: 1e9}", "data.buckets={kind: generated, max_aspect: 100}"),
        ("adapter.unet.rank=4097", "adapter.unet.rank=4096"),
        ("adapter.text_encoder.rank=16000", "adapter.text_encoder.rank=4096"),
        ('data.sources.0.trigger="zrk\\nx"', "data.sources.0.trigger=zrk x"),
        ('data.sources.0.trigger="zrk\\u2028x"', "data.sources.0.trigger=zrk é"),
        (
            'training.prior_preservation={class_word: "a\\ndog"}',
            "training.prior_preservation={class_word: a dog}",
        ),
    ],
)
def test_what_nobody_means_is_refused_and_the_largest_is_allowed(slip: str, meant: str) -> None:
    with pytest.raises(RecipeError, match="needs"):
        load_recipe("quickstart", [slip])
    load_recipe("quickstart", [meant])


def pictures(count: int, repeats: int) -> TrainingPictures:
    samples = [
        Sample(f"{index}.png", "set", "0" * 64, (64, 64), "", repeats, FACTS, lambda: b"") for index in range(count)
    ]
    return TrainingPictures(samples, [(64, 64)], "center", 0.0, 0.0, 1, 1, seed=0)


def test_an_epoch_without_measure_is_refused_before_it_is_planned() -> None:
    with pytest.raises(DataError, match=r"20,100,000 pictures \(201, repeated up to 100,000 times\)"):
        pictures(201, 100_000)
    assert MAX_SHOWINGS < 201 * 100_000
    assert pictures(3, 1000).steps_per_epoch == 3000


def test_generated_buckets_are_the_same_however_far_is_looked_and_the_finest_take_no_time() -> None:
    def looked_at_all(resolution: int, step: int, max_aspect: float) -> set[tuple[int, int]]:
        sides = range(step, resolution * resolution // step + 1, step)
        short = {(s, resolution**2 // s // step * step) for s in sides if s <= resolution}
        long = {(resolution**2 // s // step * step, s) for s in sides if s >= resolution // step * step}
        square = resolution // step * step
        pairs = {(a, b) for a, b in short | long | {(square, square)} if 0 < a <= b <= max_aspect * a}
        return pairs | {(b, a) for a, b in pairs}

    draws = np.random.default_rng(0)
    for _ in range(60):
        resolution = int(draws.integers(8, 80))
        step, max_aspect = (
            int(draws.integers(1, resolution + 1)),
            float(draws.choice([1.0, 1.3, 2.0, 4.0, 17.5, 100.0])),
        )
        assert set(generated_buckets(resolution, step, max_aspect)) == looked_at_all(resolution, step, max_aspect)
    finest = generated_buckets(16_384, 1, 100.0)  # without the bound a quarter of a thousand million are looked at
    assert max(max(height, width) for height, width in finest) == 100 * (16_384 // 10)
