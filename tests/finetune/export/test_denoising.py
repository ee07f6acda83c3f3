"""One denoising step through a file: equal where the file is right, and an error for each way to be wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from finetune.adapters.dropout import DropoutKey
from finetune.adapters.lora import inject_lora
from finetune.adapters.trained import lora_settings, section_of, trained_modules
from finetune.errors import AtelierError
from finetune.export.denoising import BOUNDS, StepProof
from finetune.export.registry import EXPORTERS, export_adapter
from finetune.model.miniature import Miniature
from finetune.naming.components import COMPONENTS
from finetune.recipe import Recipe
from finetune.recipe.schema import SmallAdapter
from finetune.tensors.header import read_metadata

PART = {"rank": 3, "alpha": 1.5, "learning_rate": 1e-3}
KINDS = {
    "lora": {"kind": "lora"},
    "rslora": {"kind": "lora", "use_rslora": True},
    "dora": {"kind": "lora", "use_dora": True},
    "pissa": {"kind": "lora", "init": "pissa"},
    "loha": {"kind": "loha"},
    "lokr": {"kind": "lokr"},
}
Write = Callable[..., Path]


def adapter_of(kind: str) -> SmallAdapter:
    content: dict[str, Any] = {
        "schema_version": 1,
        "model": {"kind": "miniature"},
        "data": {"sources": [{"kind": "folder", "path": "/nowhere"}]},
        "adapter": {**KINDS[kind], "unet": PART, "text_encoder": PART, "text_encoder_2": PART},
    }
    adapter = Recipe.model_validate(content).adapter
    assert isinstance(adapter, SmallAdapter)
    return adapter


def learned(adapter: SmallAdapter) -> dict[str, Tensor]:
    """Parameters as a checkpoint names them, moved away from where they begin."""
    parameters: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(3)
    for component in COMPONENTS:
        section = section_of(adapter, component)
        assert section is not None
        model = getattr(Miniature(), f"load_{component}")(torch.float32)
        inject_lora(model, component, lora_settings(adapter, section), 0, DropoutKey())
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if ".lora_" in name:
                moved = tensor.detach().clone()
                if not name.endswith(".initial"):
                    moved += torch.randn(moved.shape, generator=generator) * 0.1
                parameters[f"{component}.{name}"] = moved
    return parameters


@pytest.mark.parametrize("kind", KINDS)
def test_a_right_file_differs_by_rounding(kind: str, tmp_path: Path) -> None:
    adapter = adapter_of(kind)
    parameters = learned(adapter)
    modules = trained_modules(parameters, adapter)
    step = StepProof(Miniature(), adapter, parameters, "a red circle")
    layout = Miniature().structure().unet.layout
    formats = [name for name in EXPORTERS if name != "diffusers" or kind not in ("loha", "lokr")]
    for precision in ("fp32", "fp16"):
        export_adapter(modules, tmp_path, precision, formats=formats, precision=precision, layout=layout, metadata={})
        for name in formats:
            compared = step.compare(EXPORTERS[name].place(tmp_path, precision), precision)
            assert compared.change > 0.01, "an adapter that changes nothing would prove nothing"
            assert compared.difference < (1e-5 if precision == "fp32" else BOUNDS["fp16"])
            by_diffusers = name != "peft" and kind not in ("loha", "lokr") and (kind != "dora" or name == "diffusers")
            assert compared.loaded_by == ("diffusers" if by_diffusers else "Atelier")


def _without_alpha(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.endswith("alpha")}


def _weaker(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor * 0.98 if name.endswith("alpha") else tensor for name, tensor in tensors.items()}


def _without_an_encoder(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("lora_te1_")}


def _exchanged(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keys have the weights of values: the shapes still fit."""
    swapped = {name: name.replace("2_to_k", "?").replace("2_to_v", "2_to_k").replace("?", "2_to_v") for name in tensors}
    assert swapped.keys() == set(swapped.values())
    return {swapped[name]: tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("spoil", [_without_alpha, _weaker, _without_an_encoder, _exchanged])
def test_a_file_that_does_other_than_was_trained_is_an_error(
    spoil: Callable[[dict[str, Tensor]], dict[str, Tensor]], tmp_path: Path
) -> None:
    adapter = adapter_of("lora")
    parameters = learned(adapter)
    step = StepProof(Miniature(), adapter, parameters, "a red circle")
    layout = Miniature().structure().unet.layout
    modules = trained_modules(parameters, adapter)
    export_adapter(modules, tmp_path, "cat", formats=["kohya"], precision="fp16", layout=layout, metadata={})
    path = tmp_path / "cat.safetensors"
    save_file(spoil(load_file(path)), tmp_path / "spoilt.safetensors", read_metadata(path))
    with pytest.raises(AtelierError, match=r"spoilt\.safetensors: .* does not do what was trained"):
        step.compare(tmp_path / "spoilt.safetensors", "fp16")
    step.compare(path, "fp16")  # and the models are as before
