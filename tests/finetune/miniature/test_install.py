"""Weights as they ship: fp16, whole, and no larger than they may be."""

import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune.errors import AtelierError
from finetune.miniature import install as module
from finetune.miniature.install import install, weights_hash


@pytest.fixture
def trained(tmp_path):
    """A base and a refiner of one small tensor a part."""
    generator = torch.Generator().manual_seed(0)
    for model, parts in (("b", ("unet", "vae", "text_encoder", "text_encoder_2")), ("r", ("unet", "text_encoder_2"))):
        for part in parts:
            folder = tmp_path / model / part
            folder.mkdir(parents=True)
            file = module._WEIGHTS[part]
            save_file({"w": torch.randn(4, 3, generator=generator), "ids": torch.arange(3)}, folder / file)
        (tmp_path / model / "tokenizer_2").mkdir()
        for folder in (tmp_path / model, tmp_path / "out" / {"b": "base", "r": "refiner"}[model]):
            (folder / "tokenizer_2").mkdir(parents=True, exist_ok=True)
            (folder / "tokenizer_2" / "vocab.json").write_text('{"a</w>": 0}')
    return tmp_path


def test_what_ships_is_the_nearest_fp16_and_whole_numbers_stay(trained) -> None:
    install(trained / "b", trained / "r", trained / "out")
    for part, file in module._WEIGHTS.items():
        before, after = load_file(trained / "b" / part / file), load_file(trained / "out" / "base" / part / file)
        assert torch.equal(after["w"], before["w"].half())
        assert torch.equal(after["ids"], before["ids"])
        mode = (trained / "out" / "base" / part / file).stat().st_mode & 0o777
        assert mode == 0o666 & ~_umask()
    assert not (trained / "out" / "refiner" / "vae" / module._WEIGHTS["vae"]).exists()


def test_another_decoder_takes_the_place_of_the_models_own(trained) -> None:
    (trained / "d" / "vae").mkdir(parents=True)
    save_file({"w": torch.full((4, 3), 7.0)}, trained / "d" / "vae" / module._WEIGHTS["vae"])
    install(trained / "b", trained / "r", trained / "out", decoder=trained / "d")
    for name in ("base", "refiner"):
        assert load_file(trained / "out" / name / "vae" / module._WEIGHTS["vae"])["w"].unique().tolist() == [7.0]
    unet = load_file(trained / "out" / "base" / "unet" / module._WEIGHTS["unet"])
    assert torch.equal(unet["w"], load_file(trained / "b" / "unet" / module._WEIGHTS["unet"])["w"].half())


def test_another_vocabulary_is_refused(trained) -> None:
    (trained / "b" / "tokenizer_2" / "vocab.json").write_text('{"b</w>": 0}')
    with pytest.raises(AtelierError, match="another vocabulary"):
        install(trained / "b", trained / "r", trained / "out")


def test_a_model_too_large_to_ship_is_refused(trained, monkeypatch) -> None:
    monkeypatch.setitem(module.MAX_BYTES, "base", 300)
    with pytest.raises(AtelierError, match="may have 300"):
        install(trained / "b", trained / "r", trained / "out")


def test_numbers_that_fp16_cannot_hold_are_refused(trained) -> None:
    save_file({"w": torch.tensor([1e6])}, trained / "b" / "unet" / module._WEIGHTS["unet"])
    with pytest.raises(AtelierError, match="not finite in fp16"):
        install(trained / "b", trained / "r", trained / "out")


def test_the_hash_tells_weights_and_their_places_apart(trained) -> None:
    first = weights_hash(trained / "b")
    assert first == weights_hash(trained / "b")
    assert first != weights_hash(trained / "r")
    path = trained / "b" / "unet" / module._WEIGHTS["unet"]
    save_file({name: value + (value.dtype == torch.float32) for name, value in load_file(path).items()}, path)
    assert weights_hash(trained / "b") != first


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
