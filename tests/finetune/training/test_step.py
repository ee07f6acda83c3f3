"""The step against an oracle, its repeatability, and what it may change."""

from dataclasses import replace

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from finetune.recipe.schema import Objective as ObjectiveSettings
from finetune.training.loop import optimizer_step
from finetune.training.objective import build_objective
from finetune.training.randomness import BatchGenerator
from finetune.training.step import train_step

_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


class OracleUNet(nn.Module):
    """Knows the picture that was noised, and solves for what it is asked to predict, in float64."""

    def __init__(self, latents: Tensor, alphas_cumprod: Tensor, prediction_type: str) -> None:
        super().__init__()
        self.latents = latents.double()
        self.alphas_cumprod = alphas_cumprod.double()
        self.prediction_type = prediction_type

    def forward(self, noisy_latents: Tensor, timesteps: Tensor, **_conditioning: object) -> tuple[Tensor]:
        alphas_cumprod = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        alpha, sigma = alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt()
        noise = (noisy_latents.double() - alpha * self.latents) / sigma
        prediction = noise if self.prediction_type == "epsilon" else alpha * noise - sigma * self.latents
        return (prediction.float(),)


def _oracle_loss(prediction_type, batch, known, snr_gamma=None):
    scheduler = DDPMScheduler(**_BETAS, prediction_type=prediction_type)
    objective = build_objective(ObjectiveSettings(snr_gamma=snr_gamma), scheduler)
    unet = OracleUNet(known, scheduler.alphas_cumprod, prediction_type)
    generator = BatchGenerator(0, 1, [str(index) for index in range(len(batch.sample_names))])
    return train_step(unet, scheduler, objective, batch, generator)


def test_an_oracle_has_no_loss(make_batch):
    batch = make_batch(32)
    for prediction_type in ("epsilon", "v_prediction"):
        for snr_gamma in (None, 5.0):
            output = _oracle_loss(prediction_type, batch, batch.latents, snr_gamma)
            assert output.timesteps.unique().numel() > 20
            assert output.per_sample.max() < 1e-6
            assert output.loss < 1e-6


def test_an_oracle_that_knows_another_picture_has_one(make_batch):
    batch = make_batch(32)
    for prediction_type in ("epsilon", "v_prediction"):
        assert _oracle_loss(prediction_type, batch, -batch.latents).per_sample.min() > 1e-6


def test_loss_is_the_samples_weighted_sum(make_batch):
    batch = make_batch(4)
    batch = replace(batch, sample_weights=torch.tensor([0.4, 0.3, 0.2, 0.0]))  # a short step does not sum to 1
    output = _oracle_loss("epsilon", batch, -batch.latents, snr_gamma=0.5)
    expected = sum(w * e for w, e in zip([0.4, 0.3, 0.2, 0.0], output.weighted.tolist(), strict=True))
    assert float(output.loss) == pytest.approx(expected, rel=1e-6)
    assert not torch.allclose(output.weighted, output.per_sample)


def _step(state, batch, global_step):
    state.task.unet.zero_grad()
    generator = BatchGenerator(3, global_step, ["a", "b"])
    output = train_step(state.task.unet, state.task.noise_scheduler, state.task.objective, batch, generator)
    output.loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in state.parameters.items()}
    return output, gradients


def test_equal_generators_give_equal_bits_and_others_do_not(make_state, make_batch, hash_tensors):
    state, batch = make_state(), make_batch()
    first, first_gradients = _step(state, batch, 5)
    torch.randn(100)  # whatever else draws from the global generator has no part in it
    again, again_gradients = _step(state, batch, 5)
    assert torch.equal(first.loss, again.loss)
    assert torch.equal(first.timesteps, again.timesteps)
    assert hash_tensors(first_gradients) == hash_tensors(again_gradients)
    other, other_gradients = _step(state, batch, 6)
    assert not torch.equal(first.loss, other.loss)
    assert hash_tensors(first_gradients) != hash_tensors(other_gradients)


def test_training_changes_every_adapter_and_no_base_weight(make_state, base_hashes, hash_tensors):
    text = {"rank": 2, "learning_rate": 1e-3}
    state = make_state({"adapter.text_encoder": text, "adapter.text_encoder_2": text})
    models = {name: group.model for name, group in state.groups.items()}
    assert list(models) == ["unet", "text_encoder", "text_encoder_2"]
    base_before = {name: base_hashes(model) for name, model in models.items()}
    before = hash_tensors(state.parameters)
    for _ in range(3):
        optimizer_step(state)
    after = hash_tensors(state.parameters)
    unchanged = {name for name in before if before[name] == after[name]}
    # The U-Net sees the first encoder's penultimate state, so its last layer has no part in the loss.
    beyond = {name for name in before if name.startswith("text_encoder.") and ".layers.2." in name}
    assert unchanged == beyond
    assert len(beyond) == 12
    for name, model in models.items():
        assert base_hashes(model) == base_before[name], name
        assert not any(parameter.grad is not None for parameter in model.parameters() if not parameter.requires_grad)


def _seen_by_time_projection(state, run):
    seen = []
    projection = state.task.unet.add_time_proj
    handle = projection.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].clone()))
    run()
    handle.remove()
    return seen


def test_time_ids_reach_the_unet_unrounded_in_half_precision(make_state, make_batch):
    state = make_state({"training.precision": "bf16"})
    batch = make_batch(1, time_ids=(1366, 911, 257, 1023, 1027, 769))
    assert float(torch.tensor(1366.0).bfloat16()) != 1366.0  # or the test proves nothing

    def run():
        with state.autocast():
            task, generator = state.task, BatchGenerator(0, 1, ["a"])
            train_step(task.unet, task.noise_scheduler, task.objective, batch, generator)

    (seen,) = _seen_by_time_projection(state, run)
    assert seen.dtype == torch.float32
    assert seen.tolist() == [1366, 911, 257, 1023, 1027, 769]


def test_the_loop_hands_over_each_pictures_own_sizes(make_state):
    state = make_state({"training.micro_batch_size": 4, "training.global_batch_size": 4})
    (seen,) = _seen_by_time_projection(state, lambda: optimizer_step(state))
    rows = sorted(seen.view(4, 6).tolist())
    # 40 x 40 to 43 x 43, all resized to the 32 x 32 bucket, nothing cut off
    assert rows == [[side, side, 0, 0, 32, 32] for side in (40, 41, 42, 43)]
