"""VAE training: its terms against plain arithmetic, what it lowers, what it leaves to resume from and to load."""

import itertools
import math
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image

from finetune.cli.progress import PlainLines
from finetune.errors import DataError
from finetune.model.miniature import Miniature
from finetune.recipe.vae import VaeLoss
from finetune.training.autoencoder import (
    PixelCache,
    absolute_error,
    autoencoding_step,
    chroma_error,
    correlation_error,
    gradient_error,
    kl_divergence,
    reconstruction_error,
    squared_error,
)
from finetune.training.checkpoint import load_checkpoint, save_checkpoint
from finetune.training.data import plan_pictures, scan_pictures
from finetune.training.loop import optimizer_step
from finetune.training.randomness import BatchGenerator
from finetune.training.trainer import assemble, restore_state, train
from imagesets.framing import make_frame

VAE = {"adapter": {"kind": "vae", "learning_rate": 1e-3, "loss": {"decorrelation": 0.02}}}


@pytest.fixture
def difference() -> torch.Tensor:
    """Two pictures' worth of errors, float64, (2, 3, 6, 7)."""
    return torch.randn(2, 3, 6, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_the_pixel_terms_are_means_over_all_values(difference) -> None:
    values = difference.numpy()
    for index, picture in enumerate(values):
        assert absolute_error(difference)[index] == pytest.approx(np.mean([abs(v) for v in picture.flat]), rel=1e-12)
        assert squared_error(difference)[index] == pytest.approx(np.mean([v * v for v in picture.flat]), rel=1e-12)


def test_the_gradient_term_compares_neighbours_down_and_across(difference) -> None:
    for index, picture in enumerate(difference.numpy()):
        down = [abs(picture[c, y + 1, x] - picture[c, y, x]) for c, y, x in np.ndindex(3, 5, 7)]
        across = [abs(picture[c, y, x + 1] - picture[c, y, x]) for c, y, x in np.ndindex(3, 6, 6)]
        assert gradient_error(difference)[index] == pytest.approx(np.mean(down) + np.mean(across), rel=1e-12)


def test_the_chroma_term_is_the_colour_of_patches_without_their_brightness(difference) -> None:
    for index, picture in enumerate(difference.numpy()):
        luma = 0.299 * picture[0] + 0.587 * picture[1] + 0.114 * picture[2]
        patches = [
            abs((picture[channel] - luma)[top : top + 4, left : left + 4].mean())
            for channel, top, left in itertools.product(range(3), (0, 4), (0, 4))  # the last ones are smaller
        ]
        assert chroma_error(difference)[index] == pytest.approx(np.mean(patches), rel=1e-12)


def test_a_wrong_brightness_is_no_wrong_colour_and_a_tint_counts_whole() -> None:
    grey = torch.full((1, 3, 8, 8), 0.3, dtype=torch.float64)
    assert chroma_error(grey).item() == pytest.approx(0.0, abs=1e-15)
    tint = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    tint[:, 2] = 0.1
    assert chroma_error(tint).item() == pytest.approx(0.1 * (0.114 + 0.114 + 0.886) / 3, rel=1e-12)
    checks = tint * torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(4)  # as strong, but it cancels in a patch
    assert chroma_error(checks).item() == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("name", ["l1", "l2", "gradient", "chroma"])
def test_each_weight_belongs_to_its_term(difference, name) -> None:
    weights = dict.fromkeys(("l1", "l2", "gradient", "chroma"), 0.0)
    terms = {"l1": absolute_error, "l2": squared_error, "gradient": gradient_error, "chroma": chroma_error}
    # Not validated: alone, a gradient or chroma term is refused in a recipe.
    loss = VaeLoss.model_construct(**{**weights, name: 0.7, "kl": 0.0, "decorrelation": 0.0})
    zero = torch.zeros_like(difference)
    assert torch.allclose(reconstruction_error(loss, difference, zero), 0.7 * terms[name](difference), rtol=1e-12)
    assert torch.equal(reconstruction_error(loss, difference, zero), reconstruction_error(loss, zero, difference))


def test_the_divergence_is_torchs_own() -> None:
    draws = torch.randn(2, 8, 3, 5, generator=torch.Generator().manual_seed(2))
    posterior = DiagonalGaussianDistribution(draws)
    latents = torch.distributions.Normal(posterior.mean.double(), posterior.std.double())
    standard = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    expected = torch.distributions.kl_divergence(latents, standard).mean(dim=(1, 2, 3))
    assert torch.allclose(kl_divergence(posterior).double(), expected, rtol=1e-5)


def test_decorrelation_is_the_distance_of_the_channels_covariance_from_the_identity() -> None:
    latents = torch.randn(3, 4, 5, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 1.7 + 0.4
    values = latents.permute(1, 0, 2, 3).reshape(4, -1).numpy()
    expected = np.mean((np.cov(values, bias=True) - np.eye(4)) ** 2)
    assert correlation_error(latents).item() == pytest.approx(expected, rel=1e-12)


def _batch(count: int) -> torch.Tensor:
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(4))
    return torch.nn.functional.interpolate(coarse, (16, 16), mode="bilinear") * 2 - 1


def test_the_loss_is_the_sum_of_its_terms() -> None:
    vae = Miniature().load_vae(torch.float32)
    images, keys = _batch(3), ["a", "b", "c"]
    loss = VaeLoss(l1=1.0, l2=0.5, gradient=0.25, chroma=0.125, kl=1e-3, decorrelation=0.02)
    output = autoencoding_step(vae, loss, images, BatchGenerator(0, 1, keys), torch.tensor([0.2, 0.1, 0.0]))
    posterior = vae.encode(images).latent_dist
    noise = BatchGenerator(0, 1, keys).normal("posterior", (4, 4, 4))
    decoded = vae.decode(posterior.mean + posterior.std * noise)[0]
    pixels = reconstruction_error(loss, decoded, images)
    whole = pixels + 1e-3 * kl_divergence(posterior) + 0.02 * correlation_error(posterior.mean)
    assert torch.allclose(output.per_sample, pixels, rtol=1e-5)
    assert torch.allclose(output.weighted, whole, rtol=1e-5)
    assert output.loss.item() == pytest.approx((0.2 * whole[0] + 0.1 * whole[1]).item(), rel=1e-5)
    assert len(output.timesteps) == 0


def test_without_batch_terms_a_steps_gradient_is_the_same_however_it_is_cut(make_state) -> None:
    settings = {"adapter": {"kind": "vae"}, "training.global_batch_size": 4}
    gradients = []
    for micro_batch_size in (1, 4):
        state = make_state({**settings, "training.micro_batch_size": micro_batch_size})
        state.max_grad_norm = None
        state.optimizer.step = lambda *_: None  # keep the gradients
        state.optimizer.zero_grad = lambda **_: None
        optimizer_step(state)
        gradients.append({name: parameter.grad for name, parameter in state.parameters.items()})
    assert len(gradients[0]) == len(list(Miniature().load_vae(torch.float32).parameters()))
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], rtol=1e-3, atol=1e-6), name


def test_checkpointing_saves_memory_and_changes_no_gradient(make_state) -> None:
    losses, gradients = [], []
    for checkpointing in (False, True):
        state = make_state({**VAE, "training.gradient_checkpointing": checkpointing})
        assert any(getattr(part, "gradient_checkpointing", False) for part in state.task.vae.modules()) == checkpointing
        state.optimizer.step = lambda *_: None
        state.optimizer.zero_grad = lambda **_: None
        losses.append(optimizer_step(state).loss)
        gradients.append([parameter.grad for parameter in state.parameters.values()])
    assert losses[0] == losses[1]
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("precision", "expected"), [("bf16", torch.bfloat16), ("fp16", None), ("fp32", None)])
def test_arithmetic_is_the_recipes_but_never_fp16_and_weights_are_float32(make_state, precision, expected) -> None:
    state = make_state({**VAE, "training.precision": precision})
    with state.autocast():
        found = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
    assert found == expected
    assert not state.scaler.is_enabled()
    assert {parameter.dtype for parameter in state.parameters.values()} == {torch.float32}
    assert math.isfinite(optimizer_step(state).loss)


def test_training_lowers_the_error(make_state, tmp_path) -> None:
    for index, colour in enumerate(["red", "white", "navy", "olive"]):
        Image.new("RGB", (32, 32), colour).save(tmp_path / f"{index}.png")
    state = make_state({
        **VAE,
        "data.sources": [{"kind": "folder", "path": str(tmp_path)}],
        "training.global_batch_size": 4,
        "training.micro_batch_size": 4,
        "training.steps": 40,
    })  # fmt: skip
    with torch.random.fork_rng(devices=[]):  # from scratch: the miniature's own has learned
        torch.manual_seed(2)
        for module in state.task.vae.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    reports = [optimizer_step(state) for _ in range(40)]
    assert all(math.isfinite(error) for report in reports for error in report.per_sample)
    assert np.mean(reports[-1].per_sample) < 0.4 * np.mean(reports[0].per_sample)
    assert set(state.parameters) == {f"vae.{name}" for name, _ in state.task.vae.named_parameters()}


@pytest.mark.parametrize("crop", ["center", "random"])
def test_a_run_goes_on_bit_for_bit(make_recipe, tmp_path, hash_tensors, crop) -> None:
    settings = {**VAE, "data.crop": crop, "training.ema": {"decay": 0.9}, "training.global_batch_size": 2}
    recipe = make_recipe(settings)

    def begin():
        pictures = plan_pictures(recipe, scan_pictures(recipe))
        from finetune.training.signals import StopRequest

        return assemble(recipe, pictures, Accelerator(cpu=True), None, StopRequest()).state

    whole = begin()
    for step in range(5):
        if step == 2:
            extra = {
                "scaler": whole.scaler.state_dict(),
                "optimizer": whole.optimizer_kind,
                "skipped_in_a_row": 0,
            }
            save_checkpoint(tmp_path / "step-000002", 2, whole.parameters, whole.optimizer, extra, whole.ema.averages)
        last = optimizer_step(whole)
    broken = begin()
    restore_state(broken, load_checkpoint(tmp_path / "step-000002"))
    for _ in range(3):
        again = optimizer_step(broken)
    assert hash_tensors(broken.parameters) == hash_tensors(whole.parameters)
    assert hash_tensors(broken.ema.averages) == hash_tensors(whole.ema.averages)
    assert (again.loss, again.per_sample) == (last.loss, last.per_sample)
    assert hash_tensors(broken.parameters) != hash_tensors(load_checkpoint(tmp_path / "step-000002").parameters)


def test_a_whole_run_draws_reconstructions_and_exports_a_model_that_diffusers_loads(make_recipe, tmp_path) -> None:
    settings = {
        **VAE,
        "output_dir": str(tmp_path),
        "training.steps": 3,
        "training.ema": {"decay": 0.9},
        "preview.every_steps": 2,
        "export.precision": "fp32",
    }
    recipe = make_recipe(settings)
    terminal = StringIO()
    result = train(recipe, plan_pictures(recipe, scan_pictures(recipe)), listeners=[PlainLines(terminal)])
    assert result.finished
    assert "lr vae 1.00e-03" in terminal.getvalue()
    checkpoint = load_checkpoint(result.run.checkpoint(3))
    [folder] = result.exports
    loaded = AutoencoderKL.from_pretrained(folder / "vae")
    untrained = Miniature().load_vae(torch.float32).state_dict()
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, checkpoint.averages[f"vae.{name}"])
    assert any(not torch.equal(value, untrained[name]) for name, value in loaded.state_dict().items())
    for step in (0, 2, 3):
        walls = result.run.preview(step)
        assert (walls / "wall.png").is_file()
        assert len(list(walls.glob("*-reconstruction.png"))) == 4
    with Image.open(result.run.preview(3) / "01-reconstruction.png") as picture:
        assert picture.size == (32, 32)
        assert "psnr_db" in picture.text["atelier"]


def test_training_the_decoder_alone_leaves_every_latent_as_it_was(make_recipe, tmp_path) -> None:
    adapter = {"kind": "vae", "parts": "decoder", "learning_rate": 1e-3}
    settings = {"adapter": adapter, "output_dir": str(tmp_path), "training.steps": 2, "export.precision": "fp32"}
    recipe = make_recipe(settings)
    [folder] = train(recipe, plan_pictures(recipe, scan_pictures(recipe))).exports
    after, before = AutoencoderKL.from_pretrained(folder / "vae"), Miniature().load_vae(torch.float32)
    changed = {
        name.partition(".")[0]
        for name, value in after.state_dict().items()
        if not torch.equal(value, before.state_dict()[name])
    }
    assert changed == {"decoder", "post_quant_conv"}
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        assert torch.equal(after.encode(pixels).latent_dist.parameters, before.encode(pixels).latent_dist.parameters)


def test_a_kept_picture_gives_the_pixels_of_one_that_is_read_anew(make_recipe) -> None:
    sample = scan_pictures(make_recipe()).samples[0]
    cache, none = PixelCache(10**6), PixelCache(0)
    for number in range(4):
        frame = make_frame(sample.original_size, (16, 32), "random", flipped=number % 2 == 1, key=("crop", number))
        assert np.array_equal(cache(sample, frame), sample.render(frame))
        assert np.array_equal(none(sample, frame), sample.render(frame))


def test_a_picture_that_fits_is_read_once_and_one_that_does_not_every_time(make_recipe, monkeypatch) -> None:
    samples = scan_pictures(make_recipe()).samples
    reads = []
    original = type(samples[0]).load
    monkeypatch.setattr(type(samples[0]), "load", lambda sample: reads.append(sample.name) or original(sample))
    cache = PixelCache(40 * 40 * 3)  # the first picture's size exactly
    for _ in range(3):
        for sample in samples[:2]:
            cache(sample, make_frame(sample.original_size, (16, 16), "center"))
    assert [reads.count(sample.name) for sample in samples[:2]] == [1, 3]


def test_a_picture_that_went_away_is_named(make_recipe, tmp_path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (40, 40)).save(folder / "gone.png")
    recipe = make_recipe({"data.sources": [{"kind": "folder", "path": str(folder)}]})
    [sample] = scan_pictures(recipe).samples
    Path(folder / "gone.png").unlink()
    with pytest.raises(DataError, match=r"gone\.png"):
        PixelCache(10**6)(sample, make_frame(sample.original_size, (16, 16), "center"))
