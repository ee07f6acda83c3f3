"""Teaching a VAE to give pictures back: a micro batch of pixels is encoded, sampled, decoded and judged.

Neither text nor a U-Net has a part in it. Which pictures are seen in which cut, and every draw of the posterior, follow
from seed and step, as for any other task.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image
from torch import Tensor

from finetune.errors import DataError
from finetune.model.vae import Pixels, to_model_range
from finetune.recipe.vae import VaeLoss
from finetune.training.encode_plan import MEMORY_SHARE
from finetune.training.pictures import PlannedSample
from finetune.training.randomness import BatchGenerator
from finetune.training.step import StepOutput
from imagesets import PictureError
from imagesets.framing import Frame
from imagesets.pictures import render
from imagesets.scan import Sample

CHROMA_PATCH = 4
"""Side, in pixels, of the patches over which colour is compared."""

_LUMA = (0.299, 0.587, 0.114)
"""How much red, green and blue count in brightness (ITU-R BT.601)."""


@dataclass
class Autoencoding:
    """The task of VAE training: pictures through the encoder, a draw of the posterior, and the decoder.

    Attributes:
        vae: the model, all of it or its decoder in training, in float32.
        loss: how reconstructions are judged.
        pixels: a picture's pixels in a frame.
    """

    vae: AutoencoderKL
    loss: VaeLoss
    pixels: Callable[[Sample, Frame], Pixels]

    @property
    def has_prior(self) -> bool:
        """Return False: no base is asked."""
        return False

    def forward(
        self, planned: Sequence[PlannedSample], generator: BatchGenerator, weight: float, device: torch.device
    ) -> StepOutput:
        """Read one micro batch and take it through the step, each sample counting `weight` times its own."""
        images = torch.stack([to_model_range(self.pixels(item.sample, item.frame)) for item in planned])
        sample_weights = torch.tensor([weight * item.sample.loss_weight for item in planned], device=device)
        return autoencoding_step(self.vae, self.loss, images.to(device), generator, sample_weights)

    def facts(self) -> dict[str, str]:
        """Return nothing: a VAE predicts no noise."""
        return {}


def autoencoding_step(
    vae: AutoencoderKL, loss: VaeLoss, images: Tensor, generator: BatchGenerator, sample_weights: Tensor
) -> StepOutput:
    """Encode pictures, draw their latents, decode them, and measure what was lost. Changes nothing.

    What concerns one picture is measured per sample. Decorrelation concerns a set, and is measured over one micro
    batch: all its samples and places together. It counts as much as the micro batch has samples, so that short batches
    and processes, which each take whole micro batches, change nothing; a smaller micro batch makes it noisier.

    Args:
        vae: the model.
        loss: the weights of the terms.
        images: (B, 3, H, W) in [-1, 1].
        generator: of the posterior's noise.
        sample_weights: (B,), what each sample counts.
    """
    posterior = vae.encode(images).latent_dist
    noise = generator.normal("posterior", posterior.mean.shape[1:]).to(images.device)  # (B, 4, h, w)
    decoded = vae.decode(posterior.mean + posterior.std * noise, return_dict=False)[0].float()  # (B, 3, H, W)

    per_sample = reconstruction_error(loss, decoded, images)  # (B,)
    weighted = per_sample + loss.kl * kl_divergence(posterior)
    if loss.decorrelation > 0:
        weighted = weighted + loss.decorrelation * correlation_error(posterior.mean.float())
    timesteps = torch.empty(0, dtype=torch.long)  # a VAE knows no noise levels
    return StepOutput(torch.dot(weighted, sample_weights), per_sample.detach(), weighted.detach(), timesteps)


def reconstruction_error(loss: VaeLoss, decoded: Tensor, images: Tensor) -> Tensor:
    """Return the weighted sum of the terms that compare pixels, (B,), from pictures (B, 3, H, W) in [-1, 1]."""
    difference = decoded - images
    error = difference.new_zeros(len(difference))
    for weight, measure in (
        (loss.l1, absolute_error),
        (loss.l2, squared_error),
        (loss.gradient, gradient_error),
        (loss.chroma, chroma_error),
    ):
        if weight > 0:
            error = error + weight * measure(difference)
    return error


def absolute_error(difference: Tensor) -> Tensor:
    """Return the mean absolute value, (B,), of differences (B, 3, H, W)."""
    return difference.abs().mean(dim=(1, 2, 3))


def squared_error(difference: Tensor) -> Tensor:
    """Return the mean square, (B,), of differences (B, 3, H, W)."""
    return difference.square().mean(dim=(1, 2, 3))


def gradient_error(difference: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbours, down plus across, (B,), of differences (B, 3, H, W)."""
    down, across = difference.diff(dim=2), difference.diff(dim=3)
    return down.abs().mean(dim=(1, 2, 3)) + across.abs().mean(dim=(1, 2, 3))


def chroma_error(difference: Tensor) -> Tensor:
    """Return the mean absolute error of colour, (B,), of differences (B, 3, H, W).

    Colour is red, green and blue less the brightness (BT.601), averaged over patches: a wrong tint of a surface
    counts whole, a wrong place of an edge hardly.
    """
    luma = torch.tensor(_LUMA, dtype=difference.dtype, device=difference.device)
    colour = difference - torch.einsum("bchw,c->bhw", difference, luma).unsqueeze(1)
    return F.avg_pool2d(colour, CHROMA_PATCH, ceil_mode=True).abs().mean(dim=(1, 2, 3))


def kl_divergence(posterior: DiagonalGaussianDistribution) -> Tensor:
    """Return the posterior's divergence from a standard normal, mean over the latents' values, (B,).

    Kingma & Welling 2014 (arXiv 1312.6114), appendix B. Latents are taken before any scaling.
    """
    mean, log_variance = posterior.mean.float(), posterior.logvar.float()
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean(dim=(1, 2, 3))


def correlation_error(latents: Tensor) -> Tensor:
    """Return the mean square of (covariance - identity), (), of the channels of latents (B, C, h, w), unscaled."""
    values = latents.transpose(0, 1).flatten(1)  # (C, B * h * w)
    centred = values - values.mean(dim=1, keepdim=True)
    covariance = centred @ centred.T / centred.shape[1]
    return (covariance - torch.eye(len(covariance), dtype=latents.dtype, device=latents.device)).square().mean()


class PixelCache:
    """Pixels by picture and frame, from pictures decoded once and kept while there is memory for them.

    A picture is kept as it is decoded, not as it is cut: any cut of it gives the same pixels as reading it anew.

    Args:
        budget_bytes: how much memory the pictures may take; those beyond it are read every time.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._left = budget_bytes
        self._pictures: dict[str, Pixels] = {}

    def __call__(self, sample: Sample, frame: Frame) -> Pixels:
        """Return a picture's pixels in a frame, (H, W, 3).

        Raises:
            DataError: the picture was changed or removed since it was scanned.
        """
        kept = self._pictures.get(sample.sha256)
        try:
            picture = sample.load() if kept is None else Image.fromarray(kept)
            pixels = render(picture, frame)
        except PictureError as error:
            raise DataError(f"{sample.name}: {error}") from error
        if kept is None:
            self._keep(sample, picture)
        return pixels

    def _keep(self, sample: Sample, picture: Image.Image) -> None:
        decoded = np.asarray(picture, dtype=np.uint8)
        if decoded.nbytes <= self._left:
            self._left -= decoded.nbytes
            self._pictures[sample.sha256] = decoded


def memory_for_pictures() -> int:
    """Return how many bytes decoded pictures may take: a share of the memory that is free now."""
    return int(MEMORY_SHARE * psutil.virtual_memory().available)
