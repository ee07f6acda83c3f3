"""The SDXL VAE: pixels to latents and back, in a precision that does not overflow.

SDXL's VAE overflows in fp16, so it runs in bf16 or fp32 only. What is cached is the posterior's mean and standard
deviation, not one sample of it: a sample is drawn afresh at every step.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL
from torch import Tensor

Pixels = npt.NDArray[np.uint8]
"""One upright RGB picture, (H, W, 3)."""


@dataclass(frozen=True)
class LatentMoments:
    """A picture's posterior under the VAE, before scaling.

    Attributes:
        mean: (4, h, w).
        std: (4, h, w).
    """

    mean: Tensor
    std: Tensor

    def sample(self, noise: Tensor, scaling_factor: float) -> Tensor:
        """Draw latents, (4, h, w) in float32, as the U-Net sees them: `(mean + std * noise) * scaling_factor`."""
        return (self.mean.float() + self.std.float() * noise) * scaling_factor

    @property
    def num_bytes(self) -> int:
        """Memory the two tensors take."""
        return self.mean.nbytes + self.std.nbytes


def vae_dtype(weight_dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return bf16 where the run is in bf16 on CUDA, else fp32; never fp16."""
    return torch.bfloat16 if weight_dtype == torch.bfloat16 and device.type == "cuda" else torch.float32


def to_model_range(pixels: Pixels) -> Tensor:
    """Turn bytes (H, W, 3) into floats (3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 127.5 - 1.0


def to_bytes(images: Tensor) -> list[Pixels]:
    """Turn decoded images (B, 3, H, W) in [-1, 1] into bytes (H, W, 3) each."""
    levels = ((images.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return [level.permute(1, 2, 0).cpu().numpy() for level in levels]


@torch.no_grad()
def encode_moments(vae: AutoencoderKL, pixels: Pixels) -> LatentMoments:
    """Encode one picture to its posterior. The moments come back in float32 on the CPU."""
    weight = next(vae.parameters())  # diffusers' own `device` walks all modules: a fifth of a small picture's time
    images = to_model_range(pixels).unsqueeze(0).to(weight)
    with _own_precision(weight.device):
        posterior = vae.encode(images).latent_dist
    # The mean is a part of a larger tensor, which it would keep in memory.
    return LatentMoments(mean=posterior.mean[0].float().cpu().clone(), std=posterior.std[0].float().cpu())


@torch.no_grad()
def decode_latents(vae: AutoencoderKL, latents: Tensor) -> list[Pixels]:
    """Decode scaled latents (B, 4, h, w) to pictures, one at a time to keep the peak low."""
    unscaled = latents.to(device=vae.device, dtype=vae.dtype) / vae.config.scaling_factor
    with _own_precision(vae.device):
        return [to_bytes(vae.decode(latent.unsqueeze(0), return_dict=False)[0])[0] for latent in unscaled]


def _own_precision(device: torch.device) -> torch.autocast:
    """Shut an autocast around the call out: it would run the VAE in fp16, where it overflows."""
    return torch.autocast(device.type, enabled=False)
