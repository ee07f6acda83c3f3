"""k steps, a new process, the rest: tensors, optimizer and log equal the uninterrupted run's, bit for bit."""

import pytest

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


def check_parity(job, step: int) -> None:
    job.train("name=whole", "checkpoint.keep=20")
    output = job.train("name=broken", "checkpoint.keep=20", driver=["stop-at", str(step)], code=143)
    assert "--resume" in output
    assert max(job.losses("broken")) == step
    job.train("name=broken", "checkpoint.keep=20", "--resume")

    assert job.state_of("broken") == job.state_of("whole")
    assert job.losses("broken") == job.losses("whole")
    assert job.state_of("whole", step) != job.state_of("whole"), "if training changed nothing, this would prove nothing"
    assert job.state_of("whole", 8) != job.state_of("whole", 9)


def test_an_epoch_has_the_three_steps_that_the_resume_tests_stop_around(job) -> None:
    job.train("training.steps=1")
    [started] = [event for event in job.events() if event["kind"] == "run_started"]
    assert started["steps_per_epoch"] == 3
    assert load_checkpoint(job.runs / "job" / "checkpoints" / "step-000001").step == 1
