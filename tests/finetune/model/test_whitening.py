"""Whitening changes the latents as promised and the reconstructions not at all."""

import pytest
import torch
from diffusers import AutoencoderKL

from finetune.errors import AtelierError
from finetune.model.miniature import Miniature
from finetune.model.whitening import LatentStatistics, begin_latents, latent_statistics, whiten_latents


@pytest.fixture
def vae() -> AutoencoderKL:
    """The miniature's VAE in float64, its noise made large and different from place to place."""
    model = Miniature().load_vae(torch.float32).double()
    with torch.no_grad():
        model.quant_conv.weight[4:] *= 4.0
    return model


@pytest.fixture
def pixels() -> list[torch.Tensor]:
    """Two batches of pictures of different sizes, smooth enough to have something in common."""
    generator = torch.Generator().manual_seed(5)

    def draw(count: int, height: int, width: int) -> torch.Tensor:
        coarse = torch.rand(count, 3, height // 8, width // 8, generator=generator, dtype=torch.float64)
        return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1) * 2 - 1

    return [draw(6, 32, 48), draw(5, 64, 32)]


def posteriors(vae: AutoencoderKL, pixels: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return means and variances, (C, N), over all pictures and places."""
    with torch.no_grad():
        found = [vae.encode(batch).latent_dist for batch in pixels]
    return (
        torch.cat([posterior.mean.transpose(0, 1).flatten(1) for posterior in found], dim=1),
        torch.cat([posterior.var.transpose(0, 1).flatten(1) for posterior in found], dim=1),
    )


def test_statistics_are_those_of_all_places_at_once(vae, pixels) -> None:
    means, variances = posteriors(vae, pixels)
    statistics = latent_statistics(vae, pixels)
    assert torch.allclose(statistics.mean, means.mean(dim=1), rtol=1e-9)
    assert torch.allclose(statistics.covariance, torch.cov(means, correction=0), rtol=1e-7)
    # 8 x 12 and 16 x 8 places: few enough for all of them to be looked at
    assert torch.allclose(statistics.log_variances.exp().mean(dim=0), variances.mean(dim=1))


def test_scaled_latents_are_white_and_pictures_come_back_the_same(vae, pixels) -> None:
    with torch.no_grad():
        before = [vae.decode(vae.encode(batch).latent_dist.mean)[0] for batch in pixels]
    old = posteriors(vae, pixels)[0] * vae.config.scaling_factor
    assert not torch.allclose(torch.cov(old), torch.eye(4, dtype=torch.float64), atol=0.1), "nothing would be shown"

    whiten_latents(vae, latent_statistics(vae, pixels))

    scaled = posteriors(vae, pixels)[0] * vae.config.scaling_factor
    assert scaled.mean(dim=1).abs().max() < 1e-9
    assert torch.allclose(torch.cov(scaled, correction=0), torch.eye(4, dtype=torch.float64), atol=1e-9)
    with torch.no_grad():
        after = [vae.decode(vae.encode(batch).latent_dist.mean)[0] for batch in pixels]
    for one, other in zip(before, after, strict=True):
        assert torch.allclose(one, other, atol=1e-10)


def test_the_map_is_symmetric_so_channels_keep_their_meaning(vae, pixels) -> None:
    old = posteriors(vae, pixels)[0]
    statistics = latent_statistics(vae, pixels)
    whiten_latents(vae, statistics)
    new = posteriors(vae, pixels)[0] * vae.config.scaling_factor
    # ZCA's cross-covariance with the old latents is the symmetric square root of the covariance.
    cross = (old - statistics.mean[:, None]) @ new.T / old.shape[1]
    assert torch.allclose(cross, cross.T, atol=1e-9)
    assert torch.linalg.eigvalsh(cross)[0] > 0
    assert torch.allclose(cross @ cross, statistics.covariance, rtol=1e-7)


def test_the_noise_is_as_large_as_the_map_makes_it_on_average(vae, pixels) -> None:
    old_means, old = posteriors(vae, pixels)
    assert (old.std(dim=1) / old.mean(dim=1)).min() > 0.05, "noise that is the same everywhere would show less"
    statistics = latent_statistics(vae, pixels)
    whiten_latents(vae, statistics)
    new_means, new = posteriors(vae, pixels)
    centred = old_means - statistics.mean[:, None]
    forward = new_means @ centred.T @ torch.linalg.inv(centred @ centred.T)  # read off, not taken from the module
    exact = forward.square() @ old  # (C, N): the diagonal of A diag(v) A^T at every place
    assert torch.allclose(new.mean(dim=1), exact.mean(dim=1), rtol=1e-8)
    assert ((new - exact).abs() / exact).mean() < 0.1  # and place by place nearly so


def test_the_noise_is_exact_everywhere_where_no_channels_are_mixed(vae, pixels) -> None:
    measured = latent_statistics(vae, pixels)
    apart = LatentStatistics(measured.mean, torch.diag(measured.covariance.diag()), measured.log_variances)
    old = posteriors(vae, pixels)[1]
    whiten_latents(vae, apart)
    factors = (measured.covariance.diag().rsqrt() / vae.config.scaling_factor).square()
    assert torch.allclose(posteriors(vae, pixels)[1], old * factors[:, None], rtol=1e-9)


def test_a_new_vaes_latents_begin_white_with_the_asked_noise(pixels) -> None:
    vae = Miniature().load_vae(torch.float32).double()
    begin_latents(vae, latent_statistics(vae, pixels), -6.0)
    means, variances = posteriors(vae, pixels)
    assert means.mean(dim=1).abs().max() < 1e-9
    assert torch.allclose(torch.cov(means, correction=0), torch.eye(4, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(variances, torch.full_like(variances, -6.0).exp(), rtol=1e-6)


def test_a_channel_that_says_nothing_is_refused(vae, pixels) -> None:
    with torch.no_grad():
        vae.quant_conv.weight[2] = vae.quant_conv.weight[1]
    before = vae.quant_conv.weight.clone()
    with pytest.raises(AtelierError, match="repeats others"):
        whiten_latents(vae, latent_statistics(vae, pixels))
    assert torch.equal(vae.quant_conv.weight, before)


def test_no_pictures_are_refused(vae) -> None:
    with pytest.raises(AtelierError, match="some pictures"):
        latent_statistics(vae, [])
