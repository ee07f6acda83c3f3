"""LoRA files of the miniature, invented, in kohya's format."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import safetensors.torch
import torch

from finetune.adapters.weights import LoraModule
from finetune.loras.writing import write_made
from finetune.model.structure import named_structure
from finetune.model.weight_files import open_weights, original_places
from finetune.naming.components import Component
from finetune.naming.structure import ModelStructure

MakeModule = Callable[..., LoraModule]
WriteLora = Callable[..., Path]


@pytest.fixture(scope="session")
def structure() -> ModelStructure:
    return named_structure("miniature")


@pytest.fixture
def make_module(structure: ModelStructure) -> MakeModule:
    """Return a function that invents what was learned in one module."""

    def make(
        component: Component, path: str, rank: int = 4, alpha: float = 2.0, seed: int = 0, use_dora: bool = False
    ) -> LoraModule:
        shape = structure.weights[component, path]
        generator = torch.Generator().manual_seed(seed)
        kernel = shape[2:]
        down = torch.randn(rank, *shape[1:], generator=generator) * 0.1
        up = torch.randn(shape[0], rank, *[1] * len(kernel), generator=generator) * 0.1
        magnitude = 0.5 + torch.rand(shape[0], generator=generator) if use_dora else None
        return LoraModule(component, path, down, up, alpha / rank, magnitude)

    return make


@pytest.fixture
def write_lora(tmp_path: Path, structure: ModelStructure) -> WriteLora:
    """Return a function that writes modules as a file."""

    def write(name: str, modules: Sequence[LoraModule], precision: str = "fp32", **metadata: str) -> Path:
        path = tmp_path / f"{name}.safetensors"
        write_made(modules, path, precision=precision, structure=structure, metadata=metadata, made_by={"verb": "test"})
        return path

    return write


@pytest.fixture
def checkpoint(tmp_path: Path, structure: ModelStructure) -> Path:
    """The miniature as one file in the original layout, with tensors of its VAE and of nobody's beside it."""
    tensors: dict[str, torch.Tensor] = {
        "first_stage_model.decoder.conv_in.weight": torch.randn(3, 4),
        "v_pred": torch.ones(1),
    }
    path = tmp_path / "miniature.safetensors"
    with open_weights("miniature") as weights:
        for name, place in original_places(path, structure):
            if name not in weights.places:
                continue
            value = weights.parameter(*name).half()
            value = value.T.contiguous() if place.transposed else value
            if place.rows is None:
                tensors[place.tensor] = value
            else:  # q, k and v, as OpenCLIP joins them
                joined = tensors.setdefault(place.tensor, torch.zeros(3 * len(value), *value.shape[1:]).half())
                joined[slice(*place.rows)] = value
    safetensors.torch.save_file(tensors, path, metadata={"modelspec.title": "mini", "modelspec.hash_sha256": "0x0"})
    return path
