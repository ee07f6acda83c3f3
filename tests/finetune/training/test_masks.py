"""The masked loss against a plain reference, and masks on their way from the files to the step."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from PIL import Image

from finetune.cache.masks import picture_mask, with_floor
from finetune.recipe.schema import Objective as ObjectiveSettings
from finetune.training.data import plan_pictures, scan_pictures
from finetune.training.loop import optimizer_step
from finetune.training.objective import build_objective
from finetune.training.preparing import prepare
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


class Bench:
    """Pictures with masks of both kinds, and what preparing a recipe over them encodes."""

    def __init__(self, folder, make_recipe):
        self.folder, self.make_recipe = folder, make_recipe
        self.mask = {"kind": "files"}
        self.settings = {}
        draws = np.random.default_rng(1)
        for index in range(2):
            channels = np.concatenate(
                [draws.integers(0, 256, (32, 32, 3)), draws.integers(1, 256, (32, 32, 1))], axis=2
            )
            Image.fromarray(channels.astype(np.uint8)).save(folder / f"{index}.png")
            self.draw_mask(index, 0)

    def draw_mask(self, index, seed):
        levels = np.random.default_rng(seed).integers(1, 256, (32, 32), dtype=np.uint8)
        Image.fromarray(levels).save(self.folder / f"{index}-masklabel.png")

    def prepare(self):
        """Return how many latents and masks were encoded."""
        source = {"kind": "folder", "path": str(self.folder), "mask": self.mask}
        recipe = self.make_recipe({"data.sources": [source], **self.settings})
        encoded = prepare(recipe, plan_pictures(recipe, scan_pictures(recipe)), None, None).encoded
        return encoded["latents"], encoded.get("masks")


@pytest.fixture
def bench(tmp_path, make_recipe):
    folder = tmp_path / "bench"
    folder.mkdir()
    made = Bench(folder, make_recipe)
    assert made.prepare() == (2, 1), "two pictures, whose masks are one"
    assert made.prepare() == (0, 0)
    return made


def draw_another_mask(bench):
    bench.draw_mask(0, 1)


def paint(bench):
    with Image.open(bench.folder / "0.png") as picture:
        picture.putpixel((0, 0), (1, 2, 3, 4))
        picture.save(bench.folder / "0.png")


def lift_the_floor(bench):
    bench.mask = {"kind": "files", "weight_outside": 0.5}


def change_the_bucket(bench):
    bench.settings = {"data.buckets": {"kind": "listed", "sizes": [[32, 48]]}}


def move_masks(bench):
    (bench.folder.parent / "masks").mkdir()
    for index in range(2):
        (bench.folder / f"{index}-masklabel.png").rename(bench.folder.parent / "masks" / f"{index}.png")
    bench.mask = {"kind": "files", "folder": str(bench.folder.parent / "masks")}


def turn_to_alpha(bench):
    for path in bench.folder.glob("*-masklabel.png"):
        path.unlink()
    bench.mask = {"kind": "alpha"}


EDITS = {
    "a mask": (draw_another_mask, (0, 1)),
    "a picture": (paint, (1, 0)),
    "what counts outside": (lift_the_floor, (0, 0)),
    "where masks lie": (move_masks, (0, 0)),
    "the bucket": (change_the_bucket, (2, 1)),
    "the VAE": (lambda bench: None, (2, 0)),
    "the kind of mask": (turn_to_alpha, (0, 2)),
    "no masks": (lambda bench: setattr(bench, "mask", None), (1, None)),  # a mask's file is a picture then
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_encodes_again_the_mask_or_the_latents_that_depend_on_it(bench, monkeypatch, name):
    edit, expected = EDITS[name]
    edit(bench)
    if name == "the VAE":
        monkeypatch.setattr("finetune.cache.opened.OpenCache.identity", lambda *_: "another")
    assert bench.prepare() == expected
    assert bench.prepare() == (0, expected[1] and 0), "once"


def test_a_transparent_picture_that_changes_is_encoded_with_its_mask(bench):
    turn_to_alpha(bench)
    bench.prepare()
    paint(bench)
    assert bench.prepare() == (1, 1)


@pytest.mark.parametrize("name", ["MASK_CODE_VERSION", "pillow"])
def test_another_version_of_what_computes_masks_encodes_them_again(bench, monkeypatch, name):
    from finetune.cache import keys

    real = keys.version
    if name == "pillow":
        monkeypatch.setattr(keys, "version", lambda package: "99.0" if package == name else real(package))
        assert bench.prepare() == (2, 1)
    else:
        monkeypatch.setattr(keys, name, 99)
        assert bench.prepare() == (0, 1)
