"""k steps, a new process, the rest: tensors, optimizer and log equal the uninterrupted run's, bit for bit."""

import pytest
from PIL import Image

from finetune.training.checkpoint import load_checkpoint


@pytest.mark.parametrize("step", [1])
def test_a_resumed_run_equals_an_uninterrupted_one(job, step: int) -> None:
    check_parity(job, step)


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 3, 4])  # 4 + 4 + 3 pictures in three buckets, in batches of 2: 6, so 3 steps
def test_a_resumed_run_equals_an_uninterrupted_one_around_an_epochs_end(job, step: int) -> None:
    check_parity(job, step)


@pytest.mark.slow
def test_a_run_killed_between_two_micro_batches_resumes_to_the_same_bits(job) -> None:
    job.train("name=whole")
    job.train("name=broken", driver=["kill-in", "5", "1"], code=-9)
    assert max(job.losses("broken")) == 4
    job.train("name=broken", "--resume")
    assert job.state_of("broken") == job.state_of("whole")
    assert job.losses("broken") == job.losses("whole")


@pytest.mark.slow
def test_a_run_with_all_that_a_dataset_can_ask_for_resumes_to_the_same_bits(job) -> None:
    """Shuffled captions of several lengths with weights, masks, a source that counts less, and the base as teacher."""
    pictures = job.recipe.parent / "pictures"
    for path in pictures.glob("*.png"):
        picture = Image.open(path)
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
        picture.save(path)
    wording = "{shuffle: true, keep_first: 1, tag_dropout: 0.3, variants: 3}"
    settings = [
        f"data.sources.0.wording={wording}",
        "data.sources.0.mask={kind: alpha, weight_outside: 0.2}",
        "data.sources.0.loss_weight=0.5",
        "data.sources.0.trigger=zrkx",
        "data.crop=random",
        "data.crops_per_picture=2",
        "training.weighted_captions=true",
        "training.prior_preservation={weight: 0.5, class_word: thing}",
    ]
    check_parity(job, 4, *settings)


def check_parity(job, step: int, *settings: str) -> None:
    settings = ("checkpoint.keep=20", *settings)
    job.train("name=whole", *settings)
    output = job.train("name=broken", *settings, driver=["stop-at", str(step)], code=143)
    assert "--resume" in output
    assert max(job.losses("broken")) == step
    job.train("name=broken", *settings, "--resume")

    assert job.state_of("broken") == job.state_of("whole")
    assert job.losses("broken") == job.losses("whole")
    assert job.state_of("whole", step) != job.state_of("whole"), "if training changed nothing, this would prove nothing"
    assert job.state_of("whole", 8) != job.state_of("whole", 9)


def test_an_epoch_has_the_three_steps_that_the_resume_tests_stop_around(job) -> None:
    job.train("training.steps=1")
    [started] = [event for event in job.events() if event["kind"] == "run_started"]
    assert started["steps_per_epoch"] == 3
    assert load_checkpoint(job.runs / "job" / "checkpoints" / "step-000001").step == 1
