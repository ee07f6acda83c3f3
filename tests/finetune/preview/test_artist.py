"""A run's previews on the disk: which pictures, the same each time, with their settings, and a wall of them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from finetune.adapters.dropout import DropoutKey
from finetune.adapters.lora import LoraSettings, inject_lora, lora_parameters
from finetune.model.miniature import Miniature
from finetune.model.vae import decode_latents
from finetune.preview.wall import save_picture, save_wall
from finetune.recipe.preview import EnsembleRefiner, ImageToImageRefiner


@pytest.fixture
def adapted():
    """Return a U-Net with an adapter that changes what it draws, in training mode."""
    unet = Miniature().load_unet(torch.float32)
    inject_lora(unet, "unet", LoraSettings(4, 4.0, "attention+feedforward", dropout=0.5), 0, DropoutKey())
    _move(unet)
    return unet.train()


def _move(unet):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in lora_parameters(unet).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


def _names(paths):
    return [path.name for path in paths]


def _contents(paths):
    return {path.name: path.read_bytes() for path in paths}


def _pixels(path):
    with Image.open(path) as picture:
        return np.array(picture)


def test_before_training_only_the_base_is_drawn(make_artist, make_request, adapted, tmp_path):
    paths = make_artist([make_request(), make_request(seed=1)]).draw(adapted, [adapted], tmp_path, step=0)
    assert _names(paths) == ["wall.png", "01-lora-off.png", "02-lora-off.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(_names(paths))


def test_later_the_adapter_is_drawn_beside_it(make_artist, make_request, adapted, tmp_path, studio):
    request = make_request()
    paths = make_artist([request]).draw(adapted, [adapted], tmp_path, step=7)
    assert _names(paths) == ["wall.png", "01-lora-off.png", "01-lora.png"]
    off, on = _pixels(paths[1]), _pixels(paths[2])
    assert off.shape == on.shape == (32, 48, 3)
    assert np.array_equal(off, decode_latents(studio.vae, studio.base(request))[0])  # the untouched base
    assert np.abs(on.astype(int) - off).max() > 8
    assert adapted.training  # as it was


def test_nothing_is_dropped_out_while_drawing(make_artist, make_request, adapted, tmp_path):
    artist = make_artist([make_request()])
    in_training = _contents(artist.draw(adapted, [adapted], tmp_path / "a", step=7))
    assert _contents(artist.draw(adapted.eval(), [adapted], tmp_path / "b", step=7)) == in_training
    assert not adapted.training


def test_the_same_step_is_drawn_bit_for_bit(make_artist, make_request, adapted, tmp_path):
    """By another artist too, as after a resume."""
    requests = [make_request(seed=1, negative_prompt="a dog")]
    artist, another = (make_artist(requests, EnsembleRefiner(switch_at=0.6)) for _ in range(2))
    first = _contents(artist.draw(adapted, [adapted], tmp_path / "a", step=7))
    torch.randn(10)
    assert _contents(another.draw(adapted, [adapted], tmp_path / "b", step=7)) == first
    assert len(set(first.values())) == 5


def test_the_base_is_drawn_once_and_the_adapter_anew(make_artist, make_request, adapted, tmp_path):
    artist = make_artist([make_request()])
    calls = []
    adapted.register_forward_pre_hook(lambda *_: calls.append(1))
    first = artist.draw(adapted, [adapted], tmp_path / "a", step=7)
    assert len(calls) == 10  # five steps without, five with
    _move(adapted)
    second = artist.draw(adapted, [adapted], tmp_path / "b", step=8)
    assert len(calls) == 15
    assert np.array_equal(_pixels(first[1]), _pixels(second[1]))
    assert not np.array_equal(_pixels(first[2]), _pixels(second[2]))


@pytest.mark.parametrize("refiner", [EnsembleRefiner(switch_at=0.6), ImageToImageRefiner(strength=0.5)])
def test_with_a_refiner_each_is_drawn_refined_too(make_artist, make_request, adapted, tmp_path, refiner):
    paths = make_artist([make_request()], refiner).draw(adapted, [adapted], tmp_path, step=7)
    assert _names(paths) == [
        "wall.png",
        "01-lora-off.png",
        "01-lora-off-refiner.png",
        "01-lora.png",
        "01-lora-refiner.png",
    ]
    plain, plain_refined, lora, lora_refined = (_pixels(path).astype(int) for path in paths[1:])
    for one, other in ((plain, lora), (plain_refined, lora_refined)):
        assert np.abs(one - other).max() > 8
    for one, other in ((plain, plain_refined), (lora, lora_refined)):
        assert np.abs(one - other).max() > 1  # the refiner has only the last of few steps, and agrees with the base


def test_an_encoder_in_training_is_asked_each_time(make_artist, make_request, adapted, tmp_path, studio):
    request = make_request()
    cached = _contents(make_artist([request]).draw(adapted, [adapted], tmp_path / "a", step=7))
    live = make_artist([request], live=True)
    assert _contents(live.draw(adapted, [adapted], tmp_path / "b", step=7)) == cached
    bias = studio.text.text_encoder_2.text_model.encoder.layers[0].mlp.fc2.bias
    before = bias.data.clone()
    bias.data += 1.0
    changed = _contents(live.draw(adapted, [adapted], tmp_path / "c", step=7))
    bias.data = before
    assert changed["01-lora.png"] != cached["01-lora.png"]
    assert changed["01-lora-off.png"] == cached["01-lora-off.png"]


def test_a_picture_carries_its_settings(make_artist, make_request, adapted, tmp_path):
    request = make_request(prompt="a café, 猫", seed=5, original_size=(100, 90), negative_prompt="blue")
    paths = make_artist([request], EnsembleRefiner(switch_at=0.6)).draw(adapted, [adapted], tmp_path, step=7)
    for path, title in zip(paths[1:], ["LoRA off", "LoRA off + refiner", "LoRA", "LoRA + refiner"], strict=True):
        with Image.open(path) as picture:
            picture.load()
            settings = json.loads(picture.text["atelier"])
            assert "seed: 5" in picture.text["parameters"]
        assert settings["drawn_with"] == title
        assert (settings["prompt"], settings["negative_prompt"]) == ("a café, 猫", "blue")
        assert (settings["seed"], settings["step"], settings["size"]) == (5, 7, [32, 48])
        assert (settings["original_size"], settings["target_size"]) == ([100, 90], [32, 48])
        assert (settings["num_inference_steps"], settings["guidance_scale"]) == (5, 4.0)
        expected = {"kind": "ensemble", "switch_at": 0.6} if "refiner" in title else {}
        assert {key: settings.get("refiner", {}).get(key) for key in expected} == expected
        assert ("refiner" in settings) == bool(expected)


def test_the_wall_shows_every_picture_in_its_place(tmp_path):
    colours = [[(200, 0, 0), (0, 200, 0), (0, 0, 200)], [(200, 200, 0), (0, 200, 200), (200, 0, 200)]]
    rows = [
        (f"prompt {index} " * 60, [np.full((32, 48, 3), colour, dtype=np.uint8) for colour in row])
        for index, row in enumerate(colours)
    ]
    save_wall(tmp_path / "wall.png", rows, ["one", "two", "three"])
    wall = _pixels(tmp_path / "wall.png")
    places = {}
    for row, column in ((row, column) for row in range(2) for column in range(3)):
        found = np.argwhere((wall == colours[row][column]).all(axis=-1))
        assert len(found) == 32 * 4 * 48 * 4  # enlarged four times, to be seen
        places[row, column] = found.mean(axis=0)
    assert places[0, 0][1] < places[0, 1][1] < places[0, 2][1]
    assert places[0, 0][0] == places[0, 1][0] < places[1, 0][0]


def test_large_pictures_are_not_enlarged(tmp_path):
    save_wall(tmp_path / "wall.png", [("x", [np.full((300, 200, 3), (1, 2, 3), dtype=np.uint8)])], ["one"])
    assert (_pixels(tmp_path / "wall.png") == (1, 2, 3)).all(axis=-1).sum() == 300 * 200


def test_a_picture_is_written_losslessly(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (17, 23, 3), dtype=np.uint8)
    save_picture(tmp_path / "new" / "picture.png", pixels, {"seed": 1})
    assert np.array_equal(_pixels(tmp_path / "new" / "picture.png"), pixels)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["picture.png"]  # no temporary file is left
