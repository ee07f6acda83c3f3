"""Latents against diffusers' VAE, and a precision that does not overflow."""

import numpy as np
import pytest
import torch

from finetune.errors import RecipeError
from finetune.model.miniature import Miniature
from finetune.model.precision import DTYPES, autocast_for, choose_device, choose_dtype
from finetune.model.vae import LatentMoments, decode_latents, encode_moments, to_bytes, to_model_range, vae_dtype


@pytest.fixture(scope="module")
def vae():
    return Miniature().load_vae(torch.float32)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)


def test_moments_equal_the_vaes_posterior(vae, pixels):
    moments = encode_moments(vae, pixels)
    images = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        posterior = vae.encode(images).latent_dist
    assert moments.mean.shape == moments.std.shape == (4, 8, 12)  # height first
    assert torch.equal(moments.mean, posterior.mean[0])
    assert torch.equal(moments.std, posterior.std[0])
    assert moments.std.min() > 0
    noise = torch.randn(4, 8, 12, generator=torch.Generator().manual_seed(0))
    sample = posterior.sample(generator=torch.Generator().manual_seed(0))[0] * vae.config.scaling_factor
    torch.testing.assert_close(moments.sample(noise, vae.config.scaling_factor), sample, rtol=1e-6, atol=1e-7)
    assert vae.config.scaling_factor == 0.13025


def test_a_sample_by_hand():
    moments = LatentMoments(torch.full((4, 1, 1), 2.0), torch.full((4, 1, 1), 0.5))
    assert moments.sample(torch.full((4, 1, 1), -3.0), 0.1).flatten().tolist() == pytest.approx([0.05] * 4)
    assert moments.num_bytes == 2 * 4 * 4


def test_decoding_equals_the_vaes(vae):
    latents = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    pictures = decode_latents(vae, latents)
    with torch.no_grad():
        images = vae.decode(latents / vae.config.scaling_factor).sample
    assert [picture.shape for picture in pictures] == [(32, 48, 3)] * 2
    for picture, image in zip(pictures, images, strict=True):
        expected = ((image.permute(1, 2, 0).numpy() + 1) * 127.5).clip(0, 255)
        assert np.abs(picture - expected).max() <= 0.51


def test_bytes_survive_the_way_to_the_model_and_back():
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    images = to_model_range(levels)
    assert images.shape == (3, 16, 16)
    assert (float(images.min()), float(images.max())) == (-1.0, 1.0)
    assert np.array_equal(to_bytes(images[None])[0], levels)


def test_the_vae_never_runs_in_fp16():
    for dtype in DTYPES.values():
        for device in ("cpu", "cuda", "mps"):
            chosen = vae_dtype(dtype, torch.device(device))
            assert chosen in {torch.float32, torch.bfloat16}
            if chosen == torch.bfloat16:
                assert (dtype, device) == (torch.bfloat16, "cuda")


def test_a_run_in_fp16_has_its_vae_in_fp32(make_state):
    state = make_state({"training.precision": "fp16", "training.cache_latents": "never"})  # so that it is kept
    assert next(state.task.unet.parameters()).dtype == torch.float16
    assert {parameter.dtype for parameter in state.task.latents.vae.parameters()} == {torch.float32}


def test_precisions_and_devices_by_name():
    cpu = torch.device("cpu")
    assert [choose_dtype(name, cpu) for name in ("bf16", "fp16", "fp32")] == [
        torch.bfloat16, torch.float16, torch.float32,
    ]  # fmt: skip
    assert choose_device("cpu") == cpu
    with autocast_for(torch.float32, cpu)():
        assert not torch.is_autocast_enabled("cpu")
    with autocast_for(torch.bfloat16, cpu)():
        assert torch.is_autocast_enabled("cpu")
        assert torch.ones(2, 2).matmul(torch.ones(2, 2)).dtype == torch.bfloat16


def test_a_device_that_is_not_here_is_named_with_what_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RecipeError, match=r"training\.device: 'cuda' is not available here; there is: .*cpu"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"
