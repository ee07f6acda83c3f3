"""Every weight of a model is found where its file keeps it, by one name whatever the file calls it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from finetune.errors import AtelierError, RecipeError
from finetune.model.geometry import MINIATURE_FOLDER, SHIPPED_SETTINGS
from finetune.model.structure import MODEL_WORDS, named_structure, read_structure
from finetune.model.weight_files import ModelWeights, open_weights
from finetune.naming.components import COMPONENTS
from finetune.naming.structure import SDXL_BASE, SDXL_REFINER

KINDS = ("folder", "single_file", "shards", "variant")


def opened(tiny_sdxl: Any, kind: str, tmp_path: Path) -> ModelWeights:
    if kind == "single_file":
        return open_weights(tiny_sdxl.single_file, config=tiny_sdxl.folder)
    if kind == "folder":
        return open_weights(tiny_sdxl.folder)
    copy = tmp_path / "model"
    shutil.copytree(tiny_sdxl.folder, copy)
    if kind == "variant":
        for path in copy.glob("*/*.safetensors"):
            path.rename(path.with_name(f"{path.stem}.fp16.safetensors"))
        return open_weights(copy, variant="fp16")
    whole = copy / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = safetensors.torch.load_file(whole)
    names = sorted(tensors)
    shards = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for shard, own in shards.items():
        safetensors.torch.save_file({name: tensors[name] for name in own}, whole.with_name(shard))
    index = {"weight_map": {name: shard for shard, own in shards.items() for name in own}}
    whole.with_name(f"{whole.name}.index.json").write_text(json.dumps(index))
    whole.unlink()
    return open_weights(copy)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_is_found(kind: str, tiny_sdxl: Any, tmp_path: Path) -> None:
    with opened(tiny_sdxl, kind, tmp_path) as weights:
        expected = {
            (component, name if component == "unet" or name.startswith("text_") else f"text_model.{name}"): value
            for component in COMPONENTS
            for name, value in getattr(tiny_sdxl.pipeline, component).state_dict().items()
        }
        assert weights.places.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(weights.parameter(*name), value), name
        for component, module in weights.structure.weights:
            assert torch.equal(weights.get(component, module), expected[component, f"{module}.weight"])
        assert weights.structure == read_structure(tiny_sdxl.folder)


@pytest.mark.parametrize("kind", ["folder", "single_file"])
def test_a_place_is_where_to_write(kind: str, tiny_sdxl: Any, tmp_path: Path) -> None:
    """The parts that OpenCLIP joins and turns are written to without touching their neighbours."""
    layer = "text_model.encoder.layers.3.self_attn"
    with opened(tiny_sdxl, kind, tmp_path) as weights:
        for name in (f"{layer}.k_proj.weight", "text_projection.weight"):
            place = weights.places["text_encoder_2", name]
            stored = weights.opened(place.file).raw(place.tensor)
            before = stored.clone()
            value = torch.full(place.shape(stored.shape), 7.0)
            place.view(stored).copy_(value)
            assert (stored == 7).sum() == value.numel()
            place.view(stored).copy_(weights.parameter("text_encoder_2", name))
            assert torch.equal(stored, before)


def test_real_checkpoints_are_known_by_their_names(tmp_path: Path) -> None:
    """Which names the real ones have is told by SDXL's own configurations; here one weight too few is told."""
    for second, structure in (("1", "base"), ("0", "refiner")):
        key = f"conditioner.embedders.{second}.model.transformer.resblocks.9.mlp.c_proj.bias"
        path = tmp_path / f"{structure}.safetensors"
        safetensors.torch.save_file({key: torch.zeros(1)}, path)
        with pytest.raises(AtelierError, match=r"the unet's conv_in\.weight is not in it"):
            open_weights(path)


def test_structures_by_a_word() -> None:
    assert named_structure("base") == SDXL_BASE == read_structure(SHIPPED_SETTINGS / "base")
    assert named_structure("refiner") == SDXL_REFINER == read_structure(SHIPPED_SETTINGS / "refiner")
    for word in MODEL_WORDS:
        assert named_structure(word).weights
    assert named_structure(str(MINIATURE_FOLDER / "base")) == named_structure("miniature")
    with pytest.raises(RecipeError, match="base, refiner"):
        named_structure("sdxl")


def test_what_is_no_model(tiny_sdxl: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for model, message in (
        (str(tmp_path / "none"), "does not exist"),
        (str(tmp_path), r"unet/config\.json is missing"),
        ("nobody/nothing-of-that-name", "nothing is fetched"),
    ):
        with pytest.raises(RecipeError, match=message):
            open_weights(model)
    with pytest.raises(RecipeError, match="--variant"):
        open_weights(tiny_sdxl.folder, variant="fp16")
    with pytest.raises(RecipeError, match="one file"):
        open_weights(tiny_sdxl.single_file, variant="fp16")


def test_an_index_that_leaves_its_folder(tiny_sdxl: Any, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(tiny_sdxl.folder, copy)
    whole = copy / "unet" / "diffusion_pytorch_model.safetensors"
    whole.rename(copy / "elsewhere.safetensors")
    index = whole.with_name(f"{whole.name}.index.json")
    index.write_text(json.dumps({"weight_map": {"conv_in.weight": "../elsewhere.safetensors"}}))
    with pytest.raises(AtelierError, match="beside it"):
        open_weights(copy)


def test_weights_of_another_shape(tiny_sdxl: Any, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(tiny_sdxl.folder, copy)
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors["conv_in.weight"] = torch.zeros(16, 9, 3, 3)  # as in a model for filling in
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(AtelierError, match=r"conv_in\.weight is \(16, 9, 3, 3\), its model's is \(16, 4, 3, 3\)"):
        open_weights(copy)
