"""A finite number of random crops: what is cached is what training asks for."""

from dataclasses import replace

import pytest

from finetune.recipe import recipe_warnings
from finetune.training.data import plan_pictures, scan_pictures
from finetune.training.loop import optimizer_step

RANDOM = {
    "data.crop": "random",
    "data.crops_per_picture": 3,
    "data.flip_probability": 0.5,
    "data.buckets": {"kind": "listed", "sizes": [[16, 32]]},
}


def shown(pictures, num_epochs):
    """Return the frames each picture was seen in, epoch by epoch."""
    frames = {sample.name: [] for sample in pictures.samples}
    for step in range(1, num_epochs * pictures.steps_per_epoch + 1):
        for batch in pictures.batches_of(step):
            for item in batch:
                frames[item.sample.name].append(item.frame)
    return frames


@pytest.mark.parametrize("repeats", [1, 2])
def test_training_asks_for_the_frames_that_are_encoded_and_for_no_other(make_recipe, repeats):
    recipe = make_recipe(RANDOM)
    report = scan_pictures(recipe)
    report = replace(report, samples=tuple(replace(sample, repeats=repeats) for sample in report.samples))
    pictures = plan_pictures(recipe, report)
    encoded = {}
    for sample, frame in pictures.frames():
        encoded.setdefault(sample.name, set()).add(frame)
    for name, frames in shown(pictures, 30).items():
        assert set(frames) == encoded[name]
        crops = {replace(frame, flipped=False, crop_top_left=frame.crop_box[1::-1]) for frame in frames}
        assert 1 < len(crops) <= 3
        if repeats > 1:
            continue  # an epoch's showings come in any order
        unflipped = [replace(frame, flipped=False, crop_top_left=frame.crop_box[1::-1]) for frame in frames]
        assert unflipped[:-3] == unflipped[3:], "the crops come round in turn"


def test_without_a_number_crops_are_new_each_time(make_recipe):
    recipe = make_recipe({**RANDOM, "data.crops_per_picture": None, "data.flip_probability": 0.0})
    pictures = plan_pictures(recipe, scan_pictures(recipe))
    assert not pictures.has_finite_frames
    assert all(len(set(frames)) > 5 for frames in shown(pictures, 30).values())


def test_latents_of_finite_crops_are_cached_and_equal_those_encoded_at_each_step(make_state, hash_tensors):
    cached = make_state({**RANDOM, "training.cache_latents": "always"})
    live = make_state({**RANDOM, "training.cache_latents": "never"})
    assert type(cached.task.latents).__name__ == "LatentCache"
    for _ in range(6):
        optimizer_step(cached)
        optimizer_step(live)
    assert hash_tensors(cached.parameters) == hash_tensors(live.parameters)


def test_a_number_without_random_crops_is_warned_of(make_recipe):
    recipe = make_recipe({"data.crops_per_picture": 3})
    assert any(line.startswith("data.crops_per_picture: has no effect") for line in recipe_warnings(recipe))
    assert not any("crops_per_picture" in line for line in recipe_warnings(make_recipe(RANDOM)))


def test_a_source_may_have_its_own_buckets(make_recipe, pictures_folder):
    source = {"kind": "folder", "path": str(pictures_folder)}
    own = {"kind": "listed", "sizes": [[32, 32]]}
    recipe = make_recipe({**RANDOM, "data.sources": [source, {**source, "buckets": own}]})
    pictures = plan_pictures(recipe, scan_pictures(recipe))
    half = len(pictures.samples) // 2
    assert [pictures.bucket_of(index) for index in range(2 * half)] == [(16, 32)] * half + [(32, 32)] * half
    targets = {frame.target_size for _, frame in pictures.frames()}
    assert targets == {(16, 32), (32, 32)}
