"""What a VAE makes of pictures: each beside its reconstruction, for a run that trains the VAE."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from diffusers import AutoencoderKL

from finetune.model.vae import Pixels, decode_latents, encode_moments
from finetune.preview.wall import save_picture, save_wall

_MOST_DECIBELS = 99.0
"""What stands for a reconstruction without any error, whose ratio is infinite."""


def draw_reconstructions(
    vae: AutoencoderKL, pictures: Sequence[tuple[str, Pixels]], folder: Path, step: int
) -> list[Path]:
    """Encode and decode pictures, and write each reconstruction and a wall: pictures above, reconstructions below.

    Latents are the posterior's mean, so the same weights give the same pictures.

    Args:
        vae: the model; left in the mode it is in.
        pictures: name and pixels, whose sides the VAE's factor divides.
        folder: where the files go.
        step: optimizer steps done.

    Returns:
        The files, the wall first.
    """
    drawn = [reconstruct(vae, pixels) for _, pixels in pictures]
    paths = [folder / "wall.png"]
    decibels = []
    for index, ((name, pixels), reconstruction) in enumerate(zip(pictures, drawn, strict=True)):
        decibels.append(peak_signal_to_noise(pixels, reconstruction))
        path = folder / f"{index + 1:02d}-reconstruction.png"
        save_picture(path, reconstruction, {"picture": name, "step": step, "psnr_db": round(decibels[-1], 2)})
        paths.append(path)
    mean = sum(decibels) / len(decibels)
    rows = [
        ("pictures", [pixels for _, pixels in pictures]),
        (f"reconstructions: {mean:.1f} dB on average", drawn),
    ]
    save_wall(paths[0], rows, [f"{value:.1f} dB" for value in decibels])
    return paths


def reconstruct(vae: AutoencoderKL, pixels: Pixels) -> Pixels:
    """Return one picture encoded to its posterior's mean and decoded again, (H, W, 3)."""
    mean = encode_moments(vae, pixels).mean
    return decode_latents(vae, mean.unsqueeze(0) * vae.config.scaling_factor)[0]


def peak_signal_to_noise(pixels: Pixels, other: Pixels) -> float:
    """Return the peak signal-to-noise ratio of two pictures of bytes, in decibels; 99 for equal ones."""
    error = float(np.square(pixels.astype(np.float64) - other).mean())
    return _MOST_DECIBELS if error == 0 else 10.0 * math.log10(255.0**2 / error)
