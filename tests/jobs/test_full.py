"""A whole model trained, averaged, previewed and exported, as one run and from its checkpoint."""

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file

from finetune.cli.main import main
from finetune.errors import RecipeError
from finetune.recipe import load_recipe
from finetune.training.data import plan_pictures, scan_pictures
from finetune.training.recorder import Recorder
from finetune.training.resume import require_same_training
from finetune.training.trainer import train

SETTINGS = (
    "name=whole",
    "adapter={kind: full, unet: {learning_rate: 1e-3}, text_encoder_2: {learning_rate: 1e-3}}",
    "training.steps=2",
    "training.ema.decay=0.5",
    "checkpoint.every_steps=1",
    "preview={prompts: [{prompt: a star, size: [32, 32]}], num_inference_steps: 2, every_steps: 1, at_start: true}",
    "refiner=null",
    "export.precision=fp32",
)


def run(job, *more):
    recipe = load_recipe(str(job.recipe), [*SETTINGS, *more])
    return train(recipe, plan_pictures(recipe, scan_pictures(recipe)))


def test_previews_and_exports_are_made_with_the_average(job, monkeypatch, capsys) -> None:
    drawn = []
    original = Recorder.draw_previews

    def draw_previews(self, state):
        make = self.draw

        def spying(folder, step):
            drawn.append((step, {name: value.detach().clone() for name, value in state.parameters.items()}))
            return make(folder, step)

        self.draw = spying
        original(self, state)
        self.draw = make

    monkeypatch.setattr(Recorder, "draw_previews", draw_previews)
    result = run(job)
    folder = result.run.checkpoint(2)
    averages, last = load_file(folder / "average.safetensors"), load_file(folder / "adapter.safetensors")
    assert [step for step, _ in drawn] == [0, 1, 2]
    assert all(torch.equal(value, averages[name]) for name, value in drawn[-1][1].items())
    assert not all(torch.equal(value, last[name]) for name, value in drawn[-1][1].items())
    assert {path.name for path in result.run.preview(2).iterdir()} == {
        "wall.png", "01-untrained.png", "01-trained.png"
    }  # fmt: skip

    assert result.exports == (result.run.exports / "whole",)
    pipeline = StableDiffusionXLPipeline.from_pretrained(result.exports[0], local_files_only=True)
    for part in ("unet", "text_encoder_2"):
        for name, value in getattr(pipeline, part).named_parameters():
            assert torch.equal(value, averages[f"{part}.{name}"]), name

    before = {path: path.read_bytes() for path in result.exports[0].rglob("*.safetensors")}
    assert main(["export", str(result.run.path)]) == 0
    assert {path: path.read_bytes() for path in result.exports[0].rglob("*.safetensors")} == before
    assert main(["export", str(result.run.path), "--step", "1"]) == 0
    first = load_file(result.run.exports / "whole-step-000001" / "unet" / "diffusion_pytorch_model.safetensors")
    assert not torch.equal(first["conv_in.weight"], averages["unet.conv_in.weight"])
    assert main(["export", str(result.run.path), "--format", "kohya"]) == 2
    assert "Leave --format out" in capsys.readouterr().err
    assert main(["export", str(result.run.path), "--card"]) == 2
    assert "Leave --card out" in capsys.readouterr().err
    assert main(["generate", str(result.run.path), "--steps", "1"]) == 0
    assert (result.run.path / "generated" / "001" / "01-trained.png").is_file()


def test_what_a_resume_may_change(job) -> None:
    result = run(job, "training.steps=1", "preview.prompts=[]")

    def resumed(*more):
        settings = [*SETTINGS, "training.steps=1", "preview.prompts=[]", *more]
        return require_same_training(result.run, load_recipe(str(job.recipe), settings))

    assert resumed() == []
    assert len(resumed("adapter.unet.learning_rate=1e-4", "training.ema.decay=0.9")) == 2
    for refused in ("adapter={kind: lora}", "adapter.text_encoder_2=null", "training.ema=null"):
        with pytest.raises(RecipeError, match="was trained with other settings"):
            resumed(refused)
