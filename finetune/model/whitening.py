"""Whiten a VAE's latents exactly, by folding a linear map into the 1 x 1 convolutions around them.

A U-Net learns best from latents of zero mean and unit variance whose channels do not repeat each other. Where a VAE's
are not so, a linear map of the channels can be put into `quant_conv`, the encoder's last step, and its inverse into
`post_quant_conv`, the decoder's first: latents change, reconstructions do not. A U-Net that was trained with the VAE
before no longer fits. Training a VAE is not done here.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from finetune.errors import AtelierError

MAX_PLACES_PER_PICTURE = 256
"""Of how many places of a picture the noise is looked at: enough for an average, and little memory for large ones."""


@dataclass(frozen=True)
class LatentStatistics:
    """What the latents of a set of pictures are like, before scaling, in float64.

    Attributes:
        mean: (C,), of the posteriors' means over all pictures and places.
        covariance: (C, C), of the same.
        log_variances: (N, C), the posteriors' log-variances at evenly chosen places.
    """

    mean: Tensor
    covariance: Tensor
    log_variances: Tensor


@torch.no_grad()
def latent_statistics(vae: AutoencoderKL, pixels: Iterable[Tensor]) -> LatentStatistics:
    """Encode pictures and return what their latents are like.

    Args:
        vae: the model; it runs in its own precision, on its own device.
        pixels: batches (B, 3, H, W) in [-1, 1], of any sizes.

    Raises:
        AtelierError: there are no more places than channels, or a latent is not finite.
    """
    num_places = 0
    total = square = torch.zeros(())
    log_variances: list[Tensor] = []
    for batch in pixels:
        posterior = vae.encode(batch.to(device=vae.device, dtype=vae.dtype)).latent_dist
        values = posterior.mean.double().cpu().transpose(0, 1).flatten(1)  # (C, B * h * w)
        total = total + values.sum(dim=1)
        square = square + values @ values.T
        num_places += values.shape[1]
        places = posterior.logvar.double().cpu().flatten(2)  # (B, C, h * w)
        stride = -(-places.shape[2] // MAX_PLACES_PER_PICTURE)
        log_variances.append(places[:, :, ::stride].transpose(1, 2).flatten(0, 1))  # (B * places, C)
    if not log_variances or num_places <= len(total):
        raise AtelierError("whitening needs the latents of some pictures; got none, or fewer places than channels.")
    mean = total / num_places
    covariance = square / num_places - torch.outer(mean, mean)
    if not covariance.isfinite().all():
        raise AtelierError("the VAE encodes a picture to numbers that are not finite; it cannot be whitened.")
    return LatentStatistics(mean, covariance, torch.cat(log_variances))


@torch.no_grad()
def whiten_latents(vae: AutoencoderKL, statistics: LatentStatistics) -> None:
    """Change the VAE so that latents times its `scaling_factor` have zero mean, unit variance and no correlation.

    The map is z' = A (z - mean) with A = covariance^(-1/2) / scaling_factor: ZCA (Bell & Sejnowski 1997, 'The
    independent components of natural scenes are edge filters'), the whitening that moves the latents least, so that
    each channel keeps its meaning. Both convolutions are 1 x 1 without padding, so the means and their decoding are
    exact up to rounding.

    The noise is not exact, because the posterior has no place for correlated noise: of A diag(v) A^T only the diagonal,
    sum_j A_ij^2 v_j, is kept. Its logarithm is linear in the old log-variances only to first order, and that is what
    `quant_conv` can hold; a constant is added so that the variance's mean over the statistics' places is the exact
    one. Where the map mixes no channels, or every place has the same noise, the variances are exact everywhere.

    Raises:
        AtelierError: the VAE has no such convolutions, or a channel is constant or repeats others.
    """
    _fold(vae, statistics, _whitening_map(statistics.covariance) / vae.config.scaling_factor)


@torch.no_grad()
def begin_latents(vae: AutoencoderKL, statistics: LatentStatistics, log_variance: float) -> None:
    """Give a VAE whose weights were just drawn latents it can learn with: white, with a small noise.

    As it is drawn, its channels nearly repeat each other, are a tenth as large as they should be, and the noise of
    variance 1 drowns them before anything is learnt. Here they get variance 1 before any scaling, as the losses of
    `finetune.training.autoencoder` want them.

    Args:
        vae: the model.
        statistics: of its latents over some pictures.
        log_variance: the natural logarithm of the noise's variance; -6 is a standard deviation of 0.05.

    Raises:
        AtelierError: as `whiten_latents`.
    """
    _fold(vae, statistics, _whitening_map(statistics.covariance))
    channels = vae.config.latent_channels
    vae.quant_conv.weight[channels:] = 0.0
    vae.quant_conv.bias[channels:] = log_variance


def _fold(vae: AutoencoderKL, statistics: LatentStatistics, forward: Tensor) -> None:
    """Put z' = forward (z - mean), with forward (C, C), into the convolutions around the latents."""
    before, after = vae.quant_conv, vae.post_quant_conv
    if before is None or after is None or max(*before.kernel_size, *after.kernel_size) > 1:
        raise AtelierError(
            "this VAE has no 1 x 1 quant_conv and post_quant_conv, which whitening would be folded into."
        )
    shares, shifts = _log_variance_map(forward, statistics.log_variances)

    channels = len(forward)
    weight = before.weight.double().cpu().flatten(1)  # (2 C, inputs): means first, then log-variances
    bias = before.bias.double().cpu()
    _set(before.weight, torch.cat([forward @ weight[:channels], shares @ weight[channels:]]))
    _set(before.bias, torch.cat([forward @ (bias[:channels] - statistics.mean), shares @ bias[channels:] + shifts]))

    weight = after.weight.double().cpu().flatten(1)  # (inputs, C)
    _set(after.bias, after.bias.double().cpu() + weight @ statistics.mean)
    _set(after.weight, weight @ torch.linalg.inv(forward))


def _whitening_map(covariance: Tensor) -> Tensor:
    """Return the symmetric square root of the inverse, (C, C)."""
    variances, axes = torch.linalg.eigh(covariance)
    if variances[0] <= 1e-8 * variances[-1]:
        raise AtelierError(
            "a channel of the VAE's latents is constant or repeats others, so they cannot be whitened. "
            "Train it with adapter.loss.decorrelation=0.02."
        )
    return axes @ torch.diag(variances.rsqrt()) @ axes.T


def _log_variance_map(forward: Tensor, log_variances: Tensor) -> tuple[Tensor, Tensor]:
    """Return the linear map of log-variances, (C, C) and (C,), that stands for variances going through `forward`.

    log sum_j A_ij^2 exp(l_j) is taken to first order around the logarithms of the mean variances; each row of the map
    holds the shares that the old channels have in the new one's variance, and sums to 1.
    """
    mean_variances = log_variances.exp().mean(dim=0)  # (C,)
    parts = forward.square() * mean_variances  # (C, C): new, old
    wanted = parts.sum(dim=1)  # (C,)
    shares = parts / wanted[:, None]
    return shares, wanted.log() - (log_variances @ shares.T).exp().mean(dim=0).log()


def _set(parameter: Tensor, values: Tensor) -> None:
    parameter.copy_(values.reshape(parameter.shape))
