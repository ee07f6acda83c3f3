"""What the U-Net is asked to predict, at which noise levels, and how each sample's error is weighted.

Every function takes its draws from the generator it is given. Prediction types and timestep samplers are registries;
to add one, write the function and put it in its dictionary.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from finetune.errors import RecipeError
from finetune.recipe.schema import Objective as ObjectiveSettings
from finetune.recipe.training import LogitNormalTimesteps, UniformTimesteps
from finetune.training.randomness import BatchGenerator

TargetFunction = Callable[[DDPMScheduler, Tensor, Tensor, Tensor], Tensor]
"""(noise_scheduler, latents, noise, timesteps) -> what the model should predict."""

PREDICTION_TARGETS: dict[str, TargetFunction] = {
    "epsilon": lambda _scheduler, _latents, noise, _timesteps: noise,
    # Salimans & Ho 2022 (arXiv 2202.00512), section 4: v = alpha * noise - sigma * x.
    "v_prediction": lambda scheduler, latents, noise, timesteps: scheduler.get_velocity(latents, noise, timesteps),
}


def uniform_timesteps(generator: BatchGenerator, minimum: int, maximum: int) -> Tensor:
    """Draw every timestep from minimum to maximum equally often, (B,)."""
    return generator.integers("timestep", minimum, maximum)


def logit_normal_timesteps(generator: BatchGenerator, mean: float, std: float, num_train_timesteps: int) -> Tensor:
    """Draw timesteps whose share of the schedule is logit-normal (Esser et al. 2024, arXiv 2403.03206), (B,)."""
    share = torch.sigmoid(mean + std * generator.normal("timestep", ())).double()
    return (share * num_train_timesteps).long().clamp(0, num_train_timesteps - 1)


TimestepSampler = Callable[[BatchGenerator], Tensor]

TIMESTEP_SAMPLERS: dict[str, Callable[..., TimestepSampler]] = {
    "uniform": lambda settings, _num: lambda generator: uniform_timesteps(generator, settings.min, settings.max),
    "logit_normal": lambda settings, num: (
        lambda generator: logit_normal_timesteps(generator, settings.mean, settings.std, num)
    ),
}


def signal_to_noise(noise_scheduler: DDPMScheduler, timesteps: Tensor) -> Tensor:
    """Return SNR(t) = alphas_cumprod / (1 - alphas_cumprod), (B,), float32."""
    alphas_cumprod = noise_scheduler.alphas_cumprod.to(timesteps.device)[timesteps].float()
    return alphas_cumprod / (1.0 - alphas_cumprod)


def min_snr_weights(snr: Tensor, snr_gamma: float, prediction_type: str) -> Tensor:
    """Return min-SNR-gamma loss weights, (B,) (Hang et al. 2023, arXiv 2303.09556, section 3.4).

    Both forms put the same weight min(snr, gamma) on the error of the predicted x0.
    """
    clipped = snr.clamp(max=snr_gamma)
    return clipped / snr if prediction_type == "epsilon" else clipped / (snr + 1.0)


@dataclass(frozen=True)
class Objective:
    """How one batch is noised and judged.

    Attributes:
        prediction_type: a name of PREDICTION_TARGETS.
        timesteps: draws the batch's timesteps.
        snr_gamma: min-SNR-gamma, or None to weight every timestep alike.
        noise_offset: size of the per-channel constant added to the noise
            (0.05 in Podell et al. 2023, section 2.3, after Guttenberg 2023).
    """

    prediction_type: str
    timesteps: TimestepSampler
    snr_gamma: float | None = None
    noise_offset: float = 0.0

    def noise(self, generator: BatchGenerator, latents: Tensor) -> Tensor:
        """Draw the noise, with its offset, in the shape of the latents (B, 4, h, w)."""
        noise = generator.normal("noise", latents.shape[1:])
        if self.noise_offset > 0.0:
            noise = noise + self.noise_offset * generator.normal("noise-offset", (latents.shape[1], 1, 1))
        return noise.to(latents.device)

    def target(self, noise_scheduler: DDPMScheduler, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return what the model should predict, (B, 4, h, w)."""
        return PREDICTION_TARGETS[self.prediction_type](noise_scheduler, latents, noise, timesteps)

    def weights(self, noise_scheduler: DDPMScheduler, timesteps: Tensor) -> Tensor:
        """Return the weight of each sample's error, (B,)."""
        if self.snr_gamma is None:
            return torch.ones(timesteps.shape, device=timesteps.device)
        return min_snr_weights(signal_to_noise(noise_scheduler, timesteps), self.snr_gamma, self.prediction_type)


def build_objective(settings: ObjectiveSettings, noise_scheduler: DDPMScheduler) -> Objective:
    """Make the objective a recipe asks for; `auto` follows the model's own schedule.

    Raises:
        RecipeError: the settings contradict the model's schedule.
    """
    prediction_type = settings.prediction_type
    if prediction_type == "auto":
        prediction_type = noise_scheduler.config.prediction_type
    if prediction_type not in PREDICTION_TARGETS:
        raise RecipeError(
            f"training.objective.prediction_type: the model's schedule says {prediction_type!r}; "
            f"known: {', '.join(PREDICTION_TARGETS)}"
        )
    if bool(noise_scheduler.alphas_cumprod[-1] == 0) and prediction_type == "epsilon":
        raise RecipeError(
            "training.objective: with zero terminal SNR the last timestep holds no picture, and its noise cannot "
            "teach anything about one. Set prediction_type: v_prediction, or zero_terminal_snr: false"
        )
    num = noise_scheduler.config.num_train_timesteps
    drawn: UniformTimesteps | LogitNormalTimesteps = settings.timesteps
    return Objective(
        prediction_type=prediction_type,
        timesteps=TIMESTEP_SAMPLERS[drawn.kind](drawn, num),
        snr_gamma=settings.snr_gamma,
        noise_offset=settings.noise_offset,
    )
