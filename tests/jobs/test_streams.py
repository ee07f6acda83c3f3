"""Runs on tar shards that are read as they come: resumed to the same bits, and the same with two processes."""

import json
import tarfile

import pytest

from tests.jobs.test_processes import train_once_and_on_two

FROZEN = ["adapter.text_encoder=null", "adapter.text_encoder_2=null"]


@pytest.fixture
def streaming(job) -> list[str]:
    """Pack the job's pictures into two shards, and return the settings that stream them."""
    folder = job.recipe.parent / "pictures"
    shards = job.recipe.parent / "shards"
    shards.mkdir()
    names = sorted(path.stem for path in folder.glob("*.png"))
    for index in range(2):
        with tarfile.open(shards / f"s-{index}.tar", "w") as tar:
            for name in names[index::2]:
                for ending in ("png", "txt"):
                    tar.add(folder / f"{name}.{ending}", f"{name}.{ending}")
    source = {"kind": "webdataset", "path": str(shards / "s-{0..1}.tar"), "streaming": True}
    return [f"data.sources={json.dumps([source])}", "data.stream_buffer.pictures=5", "checkpoint.keep=20"]


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 5])
def test_a_resumed_stream_equals_an_uninterrupted_one_bit_for_bit(job, streaming: list[str], step: int) -> None:
    settings = [*streaming, *(FROZEN if step == 5 else [])]
    job.train("name=whole", *settings)
    job.train("name=broken", *settings, driver=["stop-at", str(step)], code=143)
    job.train("name=broken", *settings, "--resume")
    assert job.state_of("broken") == job.state_of("whole")
    assert job.losses("broken") == job.losses("whole")
    epochs = [event["epoch"] for event in job.events("whole") if event["kind"] == "step"]
    assert epochs[0] == 0
    assert epochs[-1] >= 1, "nine steps see eleven pictures more than once"
    assert job.state_of("whole", 8) != job.state_of("whole", 9)


@pytest.mark.slow
def test_a_stream_killed_between_two_micro_batches_resumes_to_the_same_bits(job, streaming: list[str]) -> None:
    job.train("name=whole", *streaming)
    job.train("name=broken", *streaming, driver=["kill-in", "5", "1"], code=-9)
    assert max(job.losses("broken")) == 4
    job.train("name=broken", *streaming, "--resume")
    assert job.state_of("broken") == job.state_of("whole")


@pytest.mark.slow
def test_two_processes_share_each_step_of_a_stream(job, streaming: list[str]) -> None:
    train_once_and_on_two(job, *streaming)
