"""The training step. Readable beside Podell et al. 2023 (arXiv 2307.01952)."""

from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor

from finetune.model.prediction import predict
from finetune.training.batch import TrainBatch
from finetune.training.objective import Objective
from finetune.training.prior import prior_error
from finetune.training.randomness import BatchGenerator


@dataclass(frozen=True)
class StepOutput:
    """What one forward pass says.

    Attributes:
        loss: (), with its graph: the weighted errors times the samples' weights, summed.
        per_sample: (B,), detached: each sample's mean squared error, over what its mask keeps, before any weighting.
        weighted: (B,), detached: the same after the objective's weighting.
        timesteps: (B,), the noise levels drawn.
        prior: (B,), detached: each sample's mean squared distance from the base on its class caption, after the
            objective's weighting; None where the base is not asked.
    """

    loss: Tensor
    per_sample: Tensor
    weighted: Tensor
    timesteps: Tensor
    prior: Tensor | None = None


def train_step(
    unet: UNet2DConditionModel,
    noise_scheduler: DDPMScheduler,
    objective: Objective,
    batch: TrainBatch,
    generator: BatchGenerator,
) -> StepOutput:
    """Noise a batch of latents, let the U-Net predict, and measure its error. Changes nothing.

    Everything random comes from `generator`, so equal arguments give equal bits. Inputs are float32; a lower precision
    is the caller's autocast.
    """
    latents = batch.latents  # (B, 4, h, w)
    noise = objective.noise(generator, latents)  # (B, 4, h, w)
    timesteps = objective.timesteps(generator).to(latents.device)  # (B,)
    noisy_latents = noise_scheduler.add_noise(latents, noise, timesteps)

    model_pred = predict(unet, noisy_latents, timesteps, batch.text, batch.add_time_ids)  # (B, 4, h, w)

    target = objective.target(noise_scheduler, latents, noise, timesteps)
    per_sample = masked_mean((model_pred.float() - target.float()).square(), batch.loss_mask)  # (B,)
    weights = objective.weights(noise_scheduler, timesteps)  # (B,)
    weighted = per_sample * weights
    loss = torch.dot(weighted, batch.sample_weights)
    if batch.prior is None:
        return StepOutput(loss, per_sample.detach(), weighted.detach(), timesteps)

    prior = weights * prior_error(unet, noisy_latents, timesteps, batch.prior, batch.add_time_ids, model_pred)  # (B,)
    loss = loss + batch.prior.weight * torch.dot(prior, batch.sample_weights)
    return StepOutput(loss, per_sample.detach(), weighted.detach(), timesteps, prior.detach())


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean of values (B, 4, h, w) weighted by a mask (B, 1, h, w) or None, (B,).

    It is divided by the mask's own mean, so that a picture counts as much whatever share of it is kept, and a mask of
    ones changes nothing, to the bit. Where a cut leaves nothing of what is kept, the mean is 0.
    """
    if mask is None:
        return values.mean(dim=(1, 2, 3))
    kept = mask.mean(dim=(1, 2, 3))  # (B,)
    return (values * mask).mean(dim=(1, 2, 3)) / kept.where(kept > 0, 1.0)
