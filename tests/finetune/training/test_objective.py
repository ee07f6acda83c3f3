"""The objective against its formulas in float64: schedules, targets, weights, noise and timesteps."""

import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from finetune.errors import RecipeError
from finetune.model.files import noise_scheduler
from finetune.model.miniature import Miniature
from finetune.recipe.schema import Objective as ObjectiveSettings
from finetune.recipe.training import LogitNormalTimesteps, UniformTimesteps
from finetune.training.objective import (
    PREDICTION_TARGETS,
    TIMESTEP_SAMPLERS,
    Objective,
    build_objective,
    min_snr_weights,
    signal_to_noise,
)
from finetune.training.randomness import BatchGenerator


class _VPrediction(Miniature):
    """The miniature, with a schedule that says it predicts v."""

    def scheduler_config(self):
        return {**super().scheduler_config(), "prediction_type": "v_prediction"}


def _betas():
    """SDXL's betas, 'scaled linear' from 0.00085 to 0.012, in float64."""
    return np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2


def _alphas_cumprod():
    return np.cumprod(1.0 - _betas())


def _scheduler(prediction_type="epsilon", zero_terminal_snr=False):
    files = Miniature() if prediction_type == "epsilon" else _VPrediction()
    return noise_scheduler(files, zero_terminal_snr=zero_terminal_snr)


def _generator(count, step=1):
    return BatchGenerator(0, step, [str(index) for index in range(count)])


def test_noise_levels_are_sdxls():
    np.testing.assert_allclose(_scheduler().alphas_cumprod.double().numpy(), _alphas_cumprod(), rtol=2e-4)


def test_min_snr_weights_by_hand():
    snr = torch.tensor([0.25, 1.0, 5.0, 20.0, 100.0], dtype=torch.float64)
    # min(snr, 5) / snr, and min(snr, 5) / (snr + 1)
    assert min_snr_weights(snr, 5.0, "epsilon").tolist() == [1.0, 1.0, 1.0, 0.25, 0.05]
    assert min_snr_weights(snr, 5.0, "v_prediction").tolist() == [0.2, 0.5, 5 / 6, 5 / 21, 5 / 101]


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_min_snr_weights_of_the_objective_over_all_timesteps(prediction_type):
    objective = build_objective(
        ObjectiveSettings(prediction_type=prediction_type, snr_gamma=5.0), _scheduler(prediction_type)
    )
    weights = objective.weights(_scheduler(prediction_type), torch.arange(1000)).double().numpy()
    snr = _alphas_cumprod() / (1.0 - _alphas_cumprod())
    expected = np.minimum(snr, 5.0) / (snr if prediction_type == "epsilon" else snr + 1.0)
    np.testing.assert_allclose(weights, expected, rtol=5e-4)
    assert weights.min() < 0.01
    assert weights.max() > 0.8


def test_both_predictions_weight_the_error_of_x0_alike():
    """Whatever is predicted, the weighted error is min(snr, gamma) times the error of the x0 it implies."""
    gamma = 5.0
    generator = torch.Generator().manual_seed(0)
    timesteps = torch.tensor([1, 50, 200, 500, 900, 999])
    alphas_cumprod = torch.from_numpy(_alphas_cumprod())[timesteps]
    snr = alphas_cumprod / (1 - alphas_cumprod)
    alpha, sigma = alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt()
    x0, noise, x0_pred = (torch.randn(6, generator=generator, dtype=torch.float64) for _ in range(3))
    noisy = alpha * x0 + sigma * noise
    noise_pred = (noisy - alpha * x0_pred) / sigma
    v, v_pred = alpha * noise - sigma * x0, alpha * noise_pred - sigma * x0_pred
    weighted_epsilon = min_snr_weights(snr, gamma, "epsilon") * (noise_pred - noise) ** 2
    weighted_v = min_snr_weights(snr, gamma, "v_prediction") * (v_pred - v) ** 2
    weighted_x0 = snr.clamp(max=gamma) * (x0_pred - x0) ** 2
    torch.testing.assert_close(weighted_epsilon, weighted_x0, rtol=1e-9, atol=0)
    torch.testing.assert_close(weighted_v, weighted_x0, rtol=1e-9, atol=0)


def test_without_gamma_every_timestep_weighs_one():
    objective = build_objective(ObjectiveSettings(), _scheduler())
    assert objective.weights(_scheduler(), torch.arange(1000)).eq(1).all()


def test_signal_to_noise_falls_from_over_a_thousand_to_almost_nothing():
    snr = signal_to_noise(_scheduler(), torch.arange(1000))
    assert snr[0] == pytest.approx((1 - 0.00085) / 0.00085, rel=1e-3)
    assert snr.diff().lt(0).all()
    assert 0.004 < float(snr[-1]) < 0.006  # SDXL's last timestep still holds a little of the picture


def test_epsilon_asks_for_the_noise():
    latents, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    objective = build_objective(ObjectiveSettings(), _scheduler())
    assert objective.target(_scheduler(), latents, noise, torch.tensor([1, 999])) is noise


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_v_is_alpha_noise_minus_sigma_x(zero_terminal_snr):
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(4, 4, 8, 8, generator=generator) for _ in range(2))
    timesteps = torch.tensor([0, 250, 700, 999])
    scheduler = _scheduler("v_prediction", zero_terminal_snr)
    objective = build_objective(ObjectiveSettings(), scheduler)
    assert objective.prediction_type == "v_prediction"  # `auto` follows the model
    levels = _rescaled(_alphas_cumprod()) if zero_terminal_snr else _alphas_cumprod()
    alphas_cumprod = torch.from_numpy(levels)[timesteps].view(-1, 1, 1, 1)
    expected = alphas_cumprod.sqrt() * noise.double() - (1 - alphas_cumprod).sqrt() * latents.double()
    target = objective.target(scheduler, latents, noise, timesteps)
    torch.testing.assert_close(target.double(), expected, rtol=0, atol=2e-4)


def _rescaled(alphas_cumprod):
    """Lin et al. 2023 (arXiv 2305.08891), algorithm 1, in float64."""
    root = np.sqrt(alphas_cumprod)
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return root**2


def test_zero_terminal_snr_ends_in_pure_noise():
    alphas_cumprod = _scheduler("v_prediction", zero_terminal_snr=True).alphas_cumprod.double().numpy()
    assert alphas_cumprod[-1] == 0.0
    np.testing.assert_allclose(alphas_cumprod, _rescaled(_alphas_cumprod()), atol=1e-4)
    assert _scheduler("v_prediction").alphas_cumprod[-1] > 0.004


def test_zero_terminal_snr_is_refused_with_epsilon():
    scheduler = _scheduler("epsilon", zero_terminal_snr=True)
    with pytest.raises(RecipeError, match=r"zero terminal SNR.*prediction_type: v_prediction"):
        build_objective(ObjectiveSettings(prediction_type="epsilon"), scheduler)
    assert build_objective(ObjectiveSettings(prediction_type="v_prediction"), scheduler)


def test_a_schedule_with_an_unknown_prediction_is_refused():
    scheduler = DDPMScheduler(prediction_type="sample")
    with pytest.raises(RecipeError, match="'sample'; known: epsilon, v_prediction"):
        build_objective(ObjectiveSettings(), scheduler)


def test_offset_noise_adds_one_value_a_channel_of_the_stated_size():
    latents = torch.zeros(400, 4, 8, 8)
    plain = Objective("epsilon", lambda _: latents).noise(_generator(400), latents)
    offset = Objective("epsilon", lambda _: latents, noise_offset=0.5).noise(_generator(400), latents)
    added = offset - plain
    assert (added - added[:, :, :1, :1]).abs().max() < 1e-6  # the same over the whole picture
    values = added[:, :, 0, 0]
    assert float(values.std()) == pytest.approx(0.5, rel=0.05)
    assert abs(float(values.mean())) < 0.05
    assert abs(float(torch.corrcoef(values.T)[0, 1])) < 0.15  # each channel its own
    # variance of a channel's mean: offset^2 + 1 / 64 pixels
    assert float(offset.mean(dim=(2, 3)).std()) == pytest.approx(math.sqrt(0.25 + 1 / 64), rel=0.05)
    assert float(plain.std()) == pytest.approx(1.0, rel=0.02)


def test_every_sampler_of_the_recipe_is_registered():
    assert set(TIMESTEP_SAMPLERS) == {"uniform", "logit_normal"}
    assert set(PREDICTION_TARGETS) == {"epsilon", "v_prediction"}


def test_uniform_timesteps_reach_both_ends_and_nothing_beyond():
    settings = ObjectiveSettings(timesteps=UniformTimesteps(min=3, max=7))
    drawn = build_objective(settings, _scheduler()).timesteps(_generator(500))
    assert drawn.dtype == torch.int64
    values, counts = drawn.unique(return_counts=True)
    assert values.tolist() == [3, 4, 5, 6, 7]
    assert counts.min() > 60  # 100 each on average


def test_uniform_timesteps_cover_the_whole_schedule():
    drawn = build_objective(ObjectiveSettings(), _scheduler()).timesteps(_generator(3000)).double()
    assert drawn.min() < 5
    assert drawn.max() > 994
    assert drawn.max() <= 999
    assert float(drawn.mean()) == pytest.approx(499.5, abs=20)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-1.0, 0.5), (2.0, 0.3)])
def test_logit_normal_timesteps_have_the_stated_quantiles(mean, std):
    settings = ObjectiveSettings(timesteps=LogitNormalTimesteps(mean=mean, std=std))
    drawn = build_objective(settings, _scheduler()).timesteps(_generator(3000)).double()
    for z, quantile in ((-1.0, 0.158655), (0.0, 0.5), (1.0, 0.841345)):
        expected = 1000 / (1 + math.exp(-(mean + z * std)))
        assert float(drawn.quantile(quantile)) == pytest.approx(expected, abs=25)


def test_logit_normal_timesteps_stay_in_the_schedule():
    for mean in (-50.0, 50.0):
        settings = ObjectiveSettings(timesteps=LogitNormalTimesteps(mean=mean, std=1.0))
        drawn = build_objective(settings, _scheduler()).timesteps(_generator(50))
        assert drawn.unique().tolist() == [0 if mean < 0 else 999]
