"""A VAE's reconstructions: the right picture beside the right number."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from finetune.model.miniature import Miniature
from finetune.model.vae import to_model_range
from finetune.preview.reconstructions import draw_reconstructions, peak_signal_to_noise, reconstruct


def test_the_ratio_is_that_of_the_textbook() -> None:
    pixels = np.random.default_rng(0).integers(0, 250, (5, 7, 3), dtype=np.uint8)
    assert peak_signal_to_noise(pixels, pixels + np.uint8(2)) == pytest.approx(10 * math.log10(255**2 / 4), rel=1e-12)
    darker = (pixels.astype(int) - 3).clip(0).astype(np.uint8)
    assert peak_signal_to_noise(darker, pixels) == peak_signal_to_noise(pixels, darker)  # bytes do not wrap round
    assert peak_signal_to_noise(pixels, pixels) == 99.0


def test_a_reconstruction_is_the_decoded_mean() -> None:
    vae = Miniature().load_vae(torch.float32)
    pixels = np.random.default_rng(1).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    with torch.no_grad():
        decoded = vae.decode(vae.encode(to_model_range(pixels)[None]).latent_dist.mean)[0][0]
    expected = ((decoded + 1) * 127.5).clamp(0, 255).permute(1, 2, 0).numpy()
    found = reconstruct(vae, pixels)
    assert found.shape == (32, 48, 3)
    assert np.abs(found - expected).max() <= 0.51


def test_pictures_of_several_sizes_are_written_with_their_numbers(tmp_path) -> None:
    vae = Miniature().load_vae(torch.float32).train()
    draws = np.random.default_rng(2)
    pictures = [
        ("wide.png", draws.integers(0, 256, (16, 32, 3), dtype=np.uint8)),
        ("tall.png", draws.integers(0, 256, (48, 16, 3), dtype=np.uint8)),
    ]
    paths = draw_reconstructions(vae, pictures, tmp_path, 7)
    assert [path.name for path in paths] == ["wall.png", "01-reconstruction.png", "02-reconstruction.png"]
    for (name, pixels), path in zip(pictures, paths[1:], strict=True):
        with Image.open(path) as image:
            settings, drawn = json.loads(image.text["atelier"]), np.asarray(image)
        assert np.array_equal(drawn, reconstruct(vae, pixels))
        expected = {"picture": name, "step": 7, "psnr_db": round(peak_signal_to_noise(pixels, drawn), 2)}
        assert settings == expected
    assert vae.training
    assert all(parameter.grad is None for parameter in vae.parameters())
