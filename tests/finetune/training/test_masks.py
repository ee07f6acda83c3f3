"""The masked loss against a plain reference, and masks on their way from the files to the step."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from PIL import Image

from finetune.cache.masks import picture_mask, with_floor
from finetune.recipe.schema import Objective as ObjectiveSettings
from finetune.training.loop import optimizer_step
from finetune.training.objective import build_objective
from finetune.training.randomness import BatchGenerator
from finetune.training.step import masked_mean, train_step


def test_the_masked_mean_is_the_mean_over_what_is_kept():
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(3, 4, 6, 5, generator=generator).requires_grad_()
    mask = torch.rand(3, 1, 6, 5, generator=generator) * (torch.rand(3, 1, 6, 5, generator=generator) > 0.5)
    assert 0.2 < mask.count_nonzero() / mask.numel() < 0.8
    found = masked_mean(values, mask)
    wide, weights = values.detach().double().numpy(), np.broadcast_to(mask.double().numpy(), values.shape)
    expected = [np.average(value, weights=weight) for value, weight in zip(wide, weights, strict=True)]
    assert found.tolist() == pytest.approx(expected, rel=1e-6)
    found.sum().backward()
    gradient = weights / weights.sum(axis=(1, 2, 3), keepdims=True)
    assert np.allclose(values.grad.numpy(), gradient, rtol=1e-6)


def test_a_cut_that_holds_nothing_of_what_is_kept_teaches_nothing():
    values = torch.rand(2, 4, 3, 3).requires_grad_()
    mask = torch.stack([torch.zeros(1, 3, 3), torch.ones(1, 3, 3)])
    found = masked_mean(values, mask)
    assert found[0].item() == 0.0
    found.sum().backward()
    assert not values.grad[0].any()
    assert values.grad[1].all()


def _step(state, batch):
    state.task.unet.zero_grad()
    output = train_step(
        state.task.unet, state.task.noise_scheduler, state.task.objective, batch, BatchGenerator(3, 1, ["a", "b"])
    )
    output.loss.backward()
    return output, {name: parameter.grad.clone() for name, parameter in state.parameters.items()}


def test_a_mask_of_ones_changes_no_bit_and_another_does(make_state, make_batch, hash_tensors):
    state, batch = make_state({"training.objective": {"snr_gamma": 5.0}}), make_batch()
    plain, plain_gradients = _step(state, batch)
    ones = torch.ones(2, 1, 8, 8)
    masked, masked_gradients = _step(state, replace(batch, loss_mask=ones))
    assert torch.equal(plain.loss, masked.loss)
    assert torch.equal(plain.per_sample, masked.per_sample)
    assert hash_tensors(plain_gradients) == hash_tensors(masked_gradients)
    ones[1, :, :4] = 0.0  # the first picture goes on as if there were no mask in its batch
    half, half_gradients = _step(state, replace(batch, loss_mask=ones))
    assert torch.equal(half.per_sample[0], plain.per_sample[0])
    assert not torch.equal(half.per_sample[1], plain.per_sample[1])
    assert hash_tensors(half_gradients) != hash_tensors(plain_gradients)


class _Elsewhere(torch.nn.Module):
    """Predicts the target but for what is outside a mask, which it gets wrong by one."""

    def __init__(self, target, mask):
        super().__init__()
        self.answer = target + (mask == 0)

    def forward(self, *_, **__):
        return (self.answer,)


@pytest.mark.parametrize("weight_outside", [0.0, 0.25])
def test_what_is_outside_counts_what_it_is_said_to(make_batch, weight_outside):
    scheduler = DDPMScheduler()
    objective = build_objective(ObjectiveSettings(), scheduler)
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, 2:4, 1:5] = 1.0  # an eighth
    batch = replace(make_batch(), loss_mask=with_floor(mask, weight_outside))
    noise = objective.noise(BatchGenerator(3, 1, ["a", "b"]), batch.latents)
    output = train_step(_Elsewhere(noise, mask), scheduler, objective, batch, BatchGenerator(3, 1, ["a", "b"]))
    outside = 7 / 8 * weight_outside
    assert output.per_sample.tolist() == pytest.approx([outside / (1 / 8 + outside)] * 2, rel=1e-6)


@pytest.fixture
def masked_folder(tmp_path):
    """Pictures with masks of a block, one with a white mask, one without."""
    folder = tmp_path / "masked"
    folder.mkdir()
    draws = np.random.default_rng(0)
    for index, mask in enumerate([((8, 24), (4, 20)), ((0, 16), (16, 32)), None, "white"]):
        levels = draws.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"zrk, a photo of a cat number {index}", encoding="utf-8")
        if mask is not None:
            white = np.full((32, 32), 255 if mask == "white" else 0, np.uint8)
            if mask != "white":
                white[slice(*mask[0]), slice(*mask[1])] = 255
            Image.fromarray(white).save(folder / f"{index}-masklabel.png")
    return folder


def _settings(folder, **mask):
    sources = [{"kind": "folder", "path": str(folder), "mask": {"kind": "files", **mask}}]
    return {
        "data.sources": sources,
        "data.flip_probability": 0.5,
        "data.buckets": {"kind": "listed", "sizes": [[32, 32]]},
        "training.micro_batch_size": 4,
        "training.global_batch_size": 4,
    }


def test_each_picture_is_trained_by_its_own_mask_flipped_with_it(make_state, masked_folder):
    state = make_state(_settings(masked_folder, weight_outside=0.25))
    seen = set()
    for step in range(1, 9):
        (planned,) = state.pictures.batches_of(step)
        mask = state.task.make_batch(planned, BatchGenerator(0, step, [item.key for item in planned]), 0.25).loss_mask
        assert mask.shape == (4, 1, mask.shape[2], mask.shape[2])
        factor = 32 // mask.shape[2]
        for item, found in zip(planned, mask, strict=True):
            seen.add((item.sample.name, item.frame.flipped))
            expected = np.ones((32, 32))
            if item.sample.name in ("0.png", "1.png"):
                with Image.open(masked_folder / item.sample.name.replace(".", "-masklabel.")) as picture:
                    expected = 0.25 + 0.75 * np.asarray(picture) / 255
            expected = expected[:, ::-1] if item.frame.flipped else expected
            grid = expected.reshape(32 // factor, factor, 32 // factor, factor).mean(axis=(1, 3))
            assert np.allclose(found[0].numpy(), grid, atol=1e-6), item.sample.name
    assert len(seen) == 8, "every picture came up mirrored and not"


def test_masks_change_what_is_learned_but_not_where_they_are_white(make_state, masked_folder, pictures_folder):
    losses = {}
    for name, mask in (("masks", {}), ("whole", {"weight_outside": 1.0})):
        losses[name] = optimizer_step(make_state(_settings(masked_folder, **mask))).per_sample
    settings = _settings(masked_folder)
    settings["data.sources"] = [{"kind": "folder", "path": str(masked_folder), "mask": None}]
    for path in masked_folder.glob("*-masklabel.png"):
        path.unlink()
    state = make_state(settings)
    names = [item.sample.name for item in state.pictures.batches_of(1)[0]]
    losses["none"] = optimizer_step(state).per_sample
    assert losses["whole"] == losses["none"], "to the bit"
    changed = {name for name, own, none in zip(names, losses["masks"], losses["none"], strict=True) if own != none}
    assert changed == {"0.png", "1.png"}


def test_a_run_with_masks_is_the_same_with_the_cache_on_and_off(make_state, masked_folder, hash_tensors):
    memory = {"cache": {"kind": "memory"}}
    results = []
    for way in (memory, {**memory, "training.cache_latents": "never"}, {}, {}):
        state = make_state({**_settings(masked_folder), **way})
        reports = [optimizer_step(state) for _ in range(2)]
        results.append(([(report.loss, report.grad_norm) for report in reports], hash_tensors(state.parameters)))
    assert all(result == results[0] for result in results[1:])


def test_a_masks_grid_is_its_mean_over_what_each_latent_covers(make_state, masked_folder):
    (planned,) = make_state(_settings(masked_folder)).pictures.batches_of(1)
    for item in planned:
        levels = item.sample.render_mask(item.frame)
        for factor in (2, 4, 8):
            grid = picture_mask(item.sample, item.frame, factor)
            assert (grid is None) == (levels is None)
            if grid is not None:
                side = 32 // factor
                expected = levels.reshape(side, factor, side, factor).astype(np.float64).mean(axis=(1, 3)) / 255
                assert np.array_equal(grid[0].numpy(), expected.astype(np.float32))
            if item.sample.name == "3.png":
                assert grid.min() == 1.0


@pytest.mark.parametrize("outside", [0.0, 0.1, 1 / 3, 0.7, 0.9, 1.0])
def test_the_floor_leaves_ones_and_lifts_zeros_to_itself(outside):
    mask = torch.tensor([0.0, 0.5, 1.0])
    found = with_floor(mask, outside)
    assert float(found[2]) == 1.0
    assert float(found[0]) == pytest.approx(outside, rel=1e-6)
    assert float(found[1]) == pytest.approx((1 + outside) / 2, rel=1e-6)
