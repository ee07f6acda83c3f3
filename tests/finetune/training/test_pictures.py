"""The steps of a run are slices of its epochs' plans, and nothing of an epoch is left out or seen twice."""

import pytest

from finetune.training.pictures import TrainingPictures
from imagesets.buckets import assign_bucket
from imagesets.pictures import PictureFacts
from imagesets.plan import epoch_plan
from imagesets.samples import Sample

BUCKETS = ((64, 64), (64, 96), (96, 64))


def sample(index: int) -> Sample:
    size = [(640, 640), (640, 960), (960, 600)][index % 3]
    facts = PictureFacts(size, "PNG", "RGB", 1, has_alpha=False, num_frames=1)
    return Sample(f"{index}.png", "set", f"{index:064x}", size, f"number {index}", 1 + index % 2, facts, bytes)


@pytest.mark.parametrize(("batch_size", "batches_per_step"), [(1, 1), (2, 3), (4, 2), (3, 50)])
def test_an_epochs_steps_are_its_plan_cut_up_and_the_last_takes_what_is_left(
    batch_size: int, batches_per_step: int
) -> None:
    samples = [sample(index) for index in range(23)]
    pictures = TrainingPictures(samples, BUCKETS, "center", 0.0, 0.0, batch_size, batches_per_step, seed=5)
    step = 0
    for epoch in range(3):
        buckets = [assign_bucket(each.original_size, BUCKETS) for each in samples]
        plan = epoch_plan(buckets, [each.repeats for each in samples], batch_size, 5, epoch)
        seen = []
        while len(seen) < len(plan):
            step += 1
            batches = pictures.batches_of(step)
            assert pictures.epoch_of(step) == epoch
            assert len(batches) == min(batches_per_step, len(plan) - len(seen))
            seen += batches
        assert [[item.key for item in batch] for batch in seen] == [
            [f"{item.sample}.{item.repeat}" for item in batch.items] for batch in plan
        ]
