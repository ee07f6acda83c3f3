"""A model's parts are told apart by every bit of their weights, and each file is hashed once."""

import os
import shutil
import time

import pytest
import safetensors.torch
import torch

from finetune.cache import identity
from finetune.cache.identity import PartIdentities, hash_weights
from finetune.errors import RecipeError
from finetune.model.files import DiffusersFolder
from finetune.model.geometry import MINIATURE_FOLDER
from finetune.model.miniature import Miniature

WEIGHTS = {
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text": "text_encoder_2/model.safetensors",
}


@pytest.fixture
def model(tmp_path):
    """A copy of the miniature without its U-Net's weights, which have no part in this."""
    folder = tmp_path / "model"
    shutil.copytree(MINIATURE_FOLDER / "base", folder, ignore=lambda at, names: names if at.endswith("/unet") else [])
    (folder / "unet").mkdir(exist_ok=True)
    shutil.copy(MINIATURE_FOLDER / "base" / "unet" / "config.json", folder / "unet" / "config.json")
    return folder


def _identities(folder, memory=None):
    known = PartIdentities(memory)
    return {part: known.of(DiffusersFolder(folder), part) for part in ("vae", "text")}


def _flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def test_a_copy_is_the_same_model_and_another_is_not(model):
    assert _identities(model) == _identities(MINIATURE_FOLDER / "base")
    refiner = PartIdentities(None)
    assert refiner.of(Miniature(refiner=True), "text") != _identities(model)["text"]


@pytest.mark.parametrize("part", ["vae", "text"])
def test_one_bit_of_the_weights_counts_for_its_part_alone(model, part):
    before = _identities(model)
    path = model / WEIGHTS[part]
    _flip_a_bit(path)
    after = _identities(model)
    assert [name for name in before if before[name] != after[name]] == [part]


def test_settings_and_vocabularies_count_but_not_the_name_of_their_writer(model):
    before = _identities(model)
    config = model / "vae" / "config.json"
    text = config.read_text()
    config.write_text(text.replace('"_class_name"', '"_diffusers_version": "99", "_class_name"'))
    assert _identities(model) == before
    config.write_text(text.replace('"norm_num_groups": ', '"norm_num_groups": 1'))
    assert _identities(model)["vae"] != before["vae"]
    merges = model / "tokenizer" / "merges.txt"
    merges.write_text(merges.read_text() + "x y\n")
    assert _identities(model)["text"] != before["text"]


def test_metadata_and_the_order_in_a_file_do_not_count(tmp_path):
    tensors = {"a": torch.ones(3), "b": torch.zeros(2, 2), "other.c": torch.ones(1)}
    safetensors.torch.save_file(tensors, tmp_path / "one.safetensors")
    safetensors.torch.save_file(dict(reversed(tensors.items())), tmp_path / "two.safetensors", {"made": "by hand"})
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    assert hash_weights(one) == hash_weights(two)
    safetensors.torch.save_file({**tensors, "b": torch.zeros(4)}, two)
    assert hash_weights(one) != hash_weights(two)
    assert hash_weights(one, "other.") == hash_weights(two, "other.")
    safetensors.torch.save_file({**tensors, "b": torch.tensor([[0.0, -0.0], [0.0, 0.0]])}, two)
    assert hash_weights(one) != hash_weights(two)


def test_a_file_is_hashed_once_until_it_changes(model, tmp_path, monkeypatch):
    long_ago = time.time() - 60.0
    path = model / WEIGHTS["vae"]
    os.utime(path, (long_ago, long_ago))
    # A file's change time cannot be set back, so 'a moment ago' is made to mean nothing.
    monkeypatch.setattr(identity, "_FRESH_SECONDS", -1.0)
    hashed = []
    real = identity.hash_weights
    monkeypatch.setattr(identity, "hash_weights", lambda *arguments: hashed.append(arguments) or real(*arguments))
    memory = tmp_path / "cache" / "weights.json"
    first = _identities(model, memory)
    assert len(hashed) == 3
    assert _identities(model, memory) == first
    assert len(hashed) == 3
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, (long_ago, long_ago))  # the same size and time: the number of its change gives it away
    assert _identities(model, memory)["vae"] != first["vae"]
    assert len(hashed) == 4
    memory.write_text("{ not json")
    assert _identities(model, memory)["text"] == first["text"]
    assert len(hashed) == 7


def test_what_changed_a_moment_ago_is_not_remembered(model, tmp_path):
    memory = tmp_path / "weights.json"
    _identities(model, memory)
    assert not memory.exists(), "its files were copied just now"


def test_a_file_cut_short_is_named(model):
    path = model / WEIGHTS["vae"]
    os.truncate(path, path.stat().st_size - 10)
    with pytest.raises(RecipeError, match=r"vae.*is not a readable \.safetensors file"):
        _identities(model)
