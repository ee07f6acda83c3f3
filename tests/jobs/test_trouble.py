"""What goes wrong in a run: its message, its exit code, and what is still whole after it."""

import json

import pytest

from finetune.training.checkpoint import newest_whole_checkpoint


def test_a_loss_that_is_no_number_stops_before_the_optimizer_and_names_the_pictures(job) -> None:
    output = job.train(driver=["nan-at", "3"], code=5)
    assert "step 3: the loss is nan" in output
    assert "picture-" in output
    assert "--resume" in output
    checkpoint, damaged = newest_whole_checkpoint(job.runs / "job" / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.step == 2
    assert not damaged
    assert job.events()[-1]["status"] == "failed"
    job.train("name=whole")
    job.train("--resume")
    assert job.state_of() == job.state_of("whole"), "nothing of the bad step is left"


@pytest.mark.slow
def test_a_full_disk_in_a_checkpoint_leaves_the_older_one_whole(job) -> None:
    job.train("training.steps=3", "name=small")
    size = (job.runs / "small" / "checkpoints" / "step-000003" / "optimizer.safetensors").stat().st_size
    output = job.train(driver=["fsize", str(size - 1000)], code=6)
    assert "optimizer.safetensors" in output or "step-000001" in output
    assert newest_whole_checkpoint(job.runs / "job" / "checkpoints") == (None, [])
    job.train("--resume")
    assert max(job.losses()) == 9


@pytest.mark.slow
def test_a_full_disk_in_a_preview_is_said_and_loses_no_checkpoint(job) -> None:
    wall = ["preview.every_steps=2", "preview.prompts=[a star]", "preview.num_inference_steps=4", "refiner=null",
            "checkpoint.every_steps=1", "adapter.text_encoder=null", "adapter.text_encoder_2=null",
            "adapter.unet.rank=1", "adapter.unet.targets=[mid_block.attentions.0.proj_in]",
            "cache.kind=memory"]  # fmt: skip
    output = job.train(*wall, driver=["fsize", "9000"], code=6)
    assert "previews" in output
    checkpoint, _ = newest_whole_checkpoint(job.runs / "job" / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.step == 2, "a step is saved before its pictures are drawn"


def test_a_second_run_in_the_same_folder_is_refused_and_other_settings_do_not_resume(job) -> None:
    job.train("training.steps=1")
    assert "already holds a run" in job.train("training.steps=1", code=2)
    assert "adapter.unet.rank" in job.train("training.steps=1", "adapter.unet.rank=2", "--resume", code=2)
    assert "there is no such folder" in job.train("name=other", "--resume", code=2)


def test_more_steps_are_a_compatible_resume_and_said_so(job) -> None:
    job.train("training.steps=2")
    output = job.train("training.steps=3", "--resume")
    assert "training.steps was changed" in output
    assert max(job.losses()) == 3


def test_a_caption_that_is_cut_off_is_said(job) -> None:
    (job.recipe.parent / "pictures" / "picture-05.txt").write_text("a very long story " * 30, encoding="utf-8")
    output = job.train("training.steps=1")
    assert "1 caption is longer than the 225 tokens that are read, the first: picture-05.png" in output


def test_after_a_divergence_a_lower_learning_rate_goes_on(job) -> None:
    job.train(driver=["nan-at", "3"], code=5)
    output = job.train("--resume", "adapter.unet.learning_rate=1e-4", "training.steps=4")
    assert "adapter.unet.learning_rate was changed" in output
    assert max(job.losses()) == 4


def test_other_pictures_are_noticed_on_resume(job) -> None:
    job.train("training.steps=1")
    (job.recipe.parent / "pictures" / "picture-03.txt").write_text("another caption", encoding="utf-8")
    assert "the pictures or captions changed" in job.train("training.steps=2", "--resume")


def test_a_start_that_failed_before_the_first_step_can_be_mended_and_started_again(job) -> None:
    assert "adapter.unet" in job.train("adapter.unet.targets=[no_such_module]", code=2)
    assert (job.runs / "job").exists(), "it had begun"
    job.train("training.steps=1")
    assert max(job.losses()) == 1


def test_bad_pictures_stop_the_run_before_the_model_loads_unless_they_are_skipped(job) -> None:
    folder = job.recipe.parent / "pictures"
    (folder / "broken.png").write_bytes((folder / "picture-00.png").read_bytes()[:100])
    (folder / "empty.jpg").write_bytes(b"")
    output = job.train("model={kind: folder, path: nowhere}", code=3)
    assert "broken.png" in output
    assert "empty.jpg: the file is empty" in output
    assert "nowhere" not in output
    assert not (job.runs / "job").exists()
    job.train("data.on_bad_image=skip", "training.steps=1")
    assert max(job.losses()) == 1


def test_json_is_one_object_on_stdout(job) -> None:
    process = job.start("--json", "training.steps=1")
    output, _ = process.communicate(timeout=120)
    result = json.loads(output)
    assert result["finished"] is True
    assert all(path.endswith(".safetensors") for path in result["exports"])


def test_dry_run_trains_nothing(job) -> None:
    output = job.train("--dry-run")
    assert "11 usable" in output
    assert not job.runs.exists()
