"""Prior preservation: what the base says is the base's own, to the bit, and holds an adapter near it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from finetune.adapters.lora import lora_disabled, lora_layers
from finetune.model.miniature import Miniature
from finetune.model.text import TextEmbeddings, TextStack
from finetune.training.checkpoint import load_checkpoint, save_checkpoint
from finetune.training.data import plan_pictures, scan_pictures
from finetune.training.loop import accumulate_gradients, optimizer_step
from finetune.training.prior import prior_error
from finetune.training.randomness import BatchGenerator
from finetune.training.signals import StopRequest
from finetune.training.step import train_step
from finetune.training.trainer import assemble, restore_state, train

PRIOR = {"training.prior_preservation": {"weight": 1.0, "class_word": "cat"}}
DROPOUT = {"rank": 4, "alpha": 2.0, "learning_rate": 1e-3, "dropout": 0.5}
TEXT = {"rank": 2, "learning_rate": 1e-3}
ADAPTERS = {
    "plain": {},
    "DoRA": {"adapter.use_dora": True},
    "rsLoRA": {"adapter.use_rslora": True},
    "dropout": {"adapter.unet": DROPOUT},
    "DoRA with dropout": {"adapter.use_dora": True, "adapter.unet": DROPOUT},
    "text encoders": {"adapter.text_encoder": TEXT, "adapter.text_encoder_2": {**TEXT, "dropout": 0.5}},
    "checkpointing": {"training.gradient_checkpointing": True, "adapter.text_encoder": TEXT},
}


@pytest.fixture
def make_prior_state(make_state, pictures_folder):
    """Return a function that makes a state over two pictures a step, with the trigger zrk."""

    def make(**settings):
        source = {"kind": "folder", "path": str(pictures_folder), "trigger": "zrk"}
        sizes = {"training.micro_batch_size": 2, "training.global_batch_size": 2}
        return make_state({"data.sources": [source], **sizes, **settings})

    return make


def _teach(state, size=0.1):
    """Give every adapter something it has learned."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in state.parameters.items():
            drawn = torch.randn(parameter.shape, generator=generator)
            if "magnitude" in name:
                parameter.mul_(1 + size * drawn)
            else:
                parameter.copy_(drawn * size)


def _batch(state, step=1):
    planned = state.pictures.batches_of(step)[0]
    generator = BatchGenerator(state.seed, step, [item.key for item in planned])
    return planned, state.task.make_batch(planned, generator, 0.5)


@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        *((kind, "fp32") for kind in ADAPTERS),
        ("plain", "bf16"),
        ("DoRA with dropout", "bf16"),
        ("checkpointing", "bf16"),
    ],
)
def test_an_adapter_that_has_learned_nothing_is_at_the_base_and_gets_no_gradient(make_prior_state, kind, precision):
    own = {**ADAPTERS[kind], "training.precision": precision}
    gradients, losses = [], []
    for prior in ({}, {"training.prior_preservation": {"weight": 1000.0, "class_word": "cat"}}):
        state = make_prior_state(**own, **prior)
        found = accumulate_gradients(state, 1, state.pictures.batches_of(1))
        losses.append(found.weighted)
        gradients.append({name: parameter.grad for name, parameter in state.parameters.items()})
    assert found.prior == [0.0, 0.0]
    assert losses[0] == losses[1]
    assert any(gradient is not None and gradient.any() for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        other = gradients[1][name]
        assert (gradient is None and other is None) or torch.equal(gradient, other), name


@pytest.mark.parametrize("kind", ADAPTERS)
def test_the_teacher_is_the_unadapted_model_to_the_bit(make_prior_state, kind, pictures_folder):
    state = make_prior_state(**ADAPTERS[kind], **PRIOR)
    unet = state.task.unet
    _teach(state)
    seen = []
    unet.register_forward_hook(lambda _module, _inputs, output: seen.append(output[0].detach().clone()))
    planned, batch = _batch(state)
    timesteps = torch.tensor([7, 700])
    error = prior_error(unet, batch.latents, timesteps, batch.prior, batch.add_time_ids, torch.zeros(()))
    teacher, student = seen

    # The same from files, where no adapter ever was.
    plain, stack = Miniature().load_unet(torch.float32), TextStack.load(Miniature(), torch.float32, torch.device("cpu"))
    captions = [item.caption.replace("zrk", "cat") for item in planned]
    assert captions[0] != planned[0].caption
    assert state.task.prior.captions(planned) == captions
    with torch.no_grad():
        # One by one where a cache has them, together where an encoder is trained: as each run encodes its captions.
        trains_text = "text_encoder" in state.groups
        text = stack.encode(captions) if trains_text else TextEmbeddings.cat(stack.encode_frozen(captions))
        added = {"text_embeds": text.pooled_prompt_embeds, "time_ids": batch.add_time_ids}
        expected = plain(batch.latents, timesteps, text.prompt_embeds, added_cond_kwargs=added).sample
    assert torch.equal(teacher, expected)
    assert not torch.equal(student, expected)
    assert error.tolist() == pytest.approx((student - teacher).square().mean(dim=(1, 2, 3)).tolist())
    assert error.requires_grad
    assert all(not layer.disable_adapters for model in _models(state) for _, layer in lora_layers(model))


def _models(state):
    return [group.model for group in state.groups.values()]


def test_the_prior_adds_its_own_gradient_and_only_that(make_prior_state):
    """The whole gradient is that of the loss and weight times that of the distance, each computed apart."""
    weight, found, objective = 3.0, {}, {"training.objective": {"snr_gamma": 2.0}}
    for name, settings in (("without", {}), ("with", {"training.prior_preservation": {"weight": weight}})):
        state = make_prior_state(**settings, **objective)
        _teach(state)
        accumulate_gradients(state, 1, state.pictures.batches_of(1))
        found[name] = {key: parameter.grad.clone() for key, parameter in state.parameters.items()}
    state.task.unet.zero_grad()
    planned, batch = _batch(state)
    generator = BatchGenerator(state.seed, 1, [item.key for item in planned])
    objective, scheduler = state.task.objective, state.task.noise_scheduler
    noise, timesteps = objective.noise(generator, batch.latents), objective.timesteps(generator)
    noisy = scheduler.add_noise(batch.latents, noise, timesteps)
    error = prior_error(state.task.unet, noisy, timesteps, batch.prior, batch.add_time_ids, torch.zeros(()))
    (weight * (error * objective.weights(scheduler, timesteps)).mean()).backward()
    largest = max(float(gradient.abs().max()) for gradient in found["with"].values())
    for key, parameter in state.parameters.items():
        difference = found["with"][key] - found["without"][key] - parameter.grad
        assert float(difference.abs().max()) < 1e-5 * largest, key


def test_frozen_encoders_give_student_and_teacher_one_text_and_trained_ones_two(make_prior_state):
    _, batch = _batch(make_prior_state(**PRIOR))
    assert batch.prior.student is batch.prior.teacher
    state = make_prior_state(**PRIOR, **ADAPTERS["text encoders"])
    _, batch = _batch(state)
    assert torch.equal(batch.prior.student.prompt_embeds, batch.prior.teacher.prompt_embeds)
    _teach(state)
    _, batch = _batch(state)
    assert not torch.equal(batch.prior.student.prompt_embeds, batch.prior.teacher.prompt_embeds)
    assert batch.prior.student.prompt_embeds.requires_grad
    assert not batch.prior.teacher.prompt_embeds.requires_grad
    assert not batch.prior.teacher.pooled_prompt_embeds.requires_grad


@pytest.mark.parametrize("kind", ["plain", "dropout", "text encoders"])
def test_on_the_same_captions_the_model_is_asked_once(make_prior_state, kind):
    """Without a trigger to take out, the distance is that of the prediction that is there already, to the bit."""
    state = make_prior_state(**ADAPTERS[kind], **PRIOR)
    for sample in state.pictures.samples:
        object.__setattr__(sample, "trigger", "")
    _teach(state)
    planned, batch = _batch(state)
    assert batch.prior.student is None
    generator = BatchGenerator(state.seed, 1, [item.key for item in planned])
    calls = []
    state.task.unet.register_forward_hook(lambda *_: calls.append(1))
    once = train_step(state.task.unet, state.task.noise_scheduler, state.task.objective, batch, generator)
    assert len(calls) == 2
    asked_again = replace(batch, prior=replace(batch.prior, student=batch.text))
    twice = train_step(state.task.unet, state.task.noise_scheduler, state.task.objective, asked_again, generator)
    assert len(calls) == 5
    assert torch.equal(once.prior, twice.prior)
    assert once.prior.min() > 0


def test_a_dropped_caption_is_dropped_for_the_base_too(make_prior_state):
    state = make_prior_state(**PRIOR, **{"training.caption_dropout": 1.0})
    planned, batch = _batch(state)
    assert state.task.prior.captions(planned) == [None, None]
    assert not batch.prior.teacher.prompt_embeds.any()


def test_a_run_writes_how_far_it_is_from_its_base(make_recipe, pictures_folder):
    source = {"kind": "folder", "path": str(pictures_folder), "trigger": "zrk"}
    events = {}
    for name, prior in (("with", PRIOR), ("without", {})):
        recipe = make_recipe({"data.sources": [source], "training.steps": 3, "name": name, **prior})
        run = train(recipe, plan_pictures(recipe, scan_pictures(recipe))).run
        lines = [json.loads(line) for line in run.events.read_text(encoding="utf-8").splitlines()]
        events[name] = [line for line in lines if line["kind"] == "step"]
    distances = [event["prior_loss"] for event in events["with"]]
    assert distances[0] == 0.0
    assert all(distance > 0.0 for distance in distances[1:])
    assert not any("prior_loss" in event for event in events["without"])


def test_a_run_with_prior_masks_and_weights_goes_on_bit_for_bit(make_recipe, tmp_path, hash_tensors):
    folder, draws = tmp_path / "pictures", np.random.default_rng(0)
    folder.mkdir()
    for index in range(3):
        levels = draws.integers(1, 256, (40, 48, 4), dtype=np.uint8)
        Image.fromarray(levels).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"a photo of a cat number {index}", encoding="utf-8")
    source = {"kind": "folder", "path": str(folder), "trigger": "zrk", "mask": {"kind": "alpha"}, "loss_weight": 0.5}
    recipe = make_recipe({
        **PRIOR, "adapter.unet": DROPOUT, "adapter.text_encoder": TEXT, "data.sources": [source],
        "data.crop": "random", "data.flip_probability": 0.5,
    })  # fmt: skip

    def begin():
        pictures = plan_pictures(recipe, scan_pictures(recipe))
        return assemble(recipe, pictures, Accelerator(cpu=True), None, StopRequest()).state

    whole = begin()
    for step in range(4):
        if step == 2:
            extra = {"scaler": whole.scaler.state_dict(), "optimizer": whole.optimizer_kind, "skipped_in_a_row": 0}
            save_checkpoint(tmp_path / "step-000002", 2, whole.parameters, whole.optimizer, extra)
        last = optimizer_step(whole)
    broken = begin()
    restore_state(broken, load_checkpoint(tmp_path / "step-000002"))
    for _ in range(2):
        again = optimizer_step(broken)
    assert hash_tensors(broken.parameters) == hash_tensors(whole.parameters)
    assert (again.loss, again.per_sample, again.prior_loss) == (last.loss, last.per_sample, last.prior_loss)
    assert again.prior_loss > 0


@pytest.mark.parametrize("adapter", ["full", "vae"])
def test_without_an_adapter_there_is_no_base_to_ask(make_recipe, adapter):
    with pytest.raises(ValueError, match=r"training\.prior_preservation: needs adapter\.kind: lora"):
        make_recipe({"adapter": {"kind": adapter}, **PRIOR})


def test_vae_training_takes_no_masks(make_recipe, pictures_folder):
    source = {"kind": "folder", "path": str(pictures_folder), "mask": {"kind": "alpha"}}
    with pytest.raises(ValueError, match=r"data\.sources\.0\.mask: needs null with adapter\.kind: vae"):
        make_recipe({"adapter": {"kind": "vae"}, "data.sources": [source]})


@pytest.mark.slow
def test_the_class_stays_near_the_base_while_the_new_thing_is_learned(make_state):
    """The quickstart's star, 25 steps with the prior and without, asked at draws that no training has seen."""
    source = {"kind": "folder", "path": "sample:quickstart", "trigger": "<zig>"}
    settings = {
        "data.sources": [source],
        "data.buckets": {"kind": "generated", "resolution": 64, "step": 16},
        "adapter.unet": {"rank": 8, "learning_rate": 2.5e-3, "targets": "attention+feedforward+convolutions"},
        "training.objective": {"snr_gamma": 0.3},
        "training.micro_batch_size": 8,
        "training.global_batch_size": 8,
        "training.steps": 25,
    }
    found = {}
    for name, weight in (("without", 1e-12), ("with", 1.0)):  # asked about, but not held to it
        state = make_state({**settings, "training.prior_preservation": {"weight": weight, "class_word": "star"}})
        for _ in range(25):
            optimizer_step(state)
        found[name] = _asked(state)
    assert found["with"]["distance"] < 0.25 * found["without"]["distance"]
    assert found["with"]["error"] < 1.2 * found["without"]["error"]
    assert found["with"]["error"] < 0.6 * found["with"]["base"]


@torch.no_grad()
def _asked(state):
    """Return the mean distance from the base on class captions, and the error on own ones, adapted and not."""
    task, found = state.task, {"distance": 0.0, "error": 0.0, "base": 0.0}
    for draw in range(4):
        (planned,) = state.pictures.batches_of(1)
        generator = BatchGenerator(1000, draw, [item.key for item in planned])
        batch = task.make_batch(planned, generator, 1.0)
        output = train_step(task.unet, task.noise_scheduler, task.objective, batch, generator)
        with lora_disabled([task.unet]):
            base = train_step(task.unet, task.noise_scheduler, task.objective, batch, generator)
        found["distance"] += float(output.prior.mean())
        found["error"] += float(output.weighted.mean())
        found["base"] += float(base.weighted.mean())
    return found
