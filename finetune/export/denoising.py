"""One step of denoising through an exported file, beside the adapter as it was trained.

The names of a file can all be right and its numbers wrong: a scale forgotten, two factors exchanged, a precision too
narrow. So the model predicts once with the adapter as training has it and once with the file, loaded by another
program where one can: diffusers for plain LoRA, and for DoRA in its own format. All in float32, on noise and text that
are the same each time. How far the two are apart is measured against what the adapter changes at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import psutil
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from torch import Tensor, nn

from finetune.adapters.dropout import DropoutKey
from finetune.adapters.lora import apply_lora, inject_lora, remove_loras
from finetune.adapters.trained import lora_settings, section_of
from finetune.dialects.lora_file import read_lora
from finetune.errors import AtelierError
from finetune.model.files import ModelFiles
from finetune.model.prediction import predict
from finetune.model.text import TextStack
from finetune.naming.components import COMPONENTS, Component
from finetune.naming.structure import ModelStructure
from finetune.recipe.schema import LoraAdapter, SmallAdapter
from finetune.tensors.header import read_metadata
from imagesets.randomness import key_to_seed

BOUNDS = {"fp32": 1e-3, "fp16": 1e-2, "bf16": 5e-2}
"""How far a file may be from the adapter, as a share of what the adapter changes: some ten roundings of a factor."""

_ROUNDING = 1e-5
"""How far two float32 predictions of one model may be apart, as a share of the prediction."""

_TIMESTEP = 500
_SIDE = 16
"""Of the latents: the smallest that every U-Net of SDXL's kind can halve twice, and still has room for a kernel."""


@dataclass(frozen=True)
class StepComparison:
    """What one denoising step through a file differs by.

    Attributes:
        file: the file, or a folder of peft's.
        loaded_by: the program that loaded it.
        change: how much the adapter changes the prediction, as a share of the base's.
        difference: how far the prediction through the file is from the adapter's, as a share of that change.
        bound: how far it may be.
    """

    file: Path
    loaded_by: str
    change: float
    difference: float
    bound: float

    @property
    def is_equal(self) -> bool:
        """Whether the file does what was trained, to the rounding of its numbers."""
        return self.difference <= self.bound

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data, for JSON."""
        numbers = {name: getattr(self, name) for name in ("change", "difference", "bound")}
        return {"file": str(self.file), "loaded_by": self.loaded_by, **numbers, "words": self.describe()}

    def describe(self) -> str:
        """Return it in a sentence."""
        if self.change == 0.0:
            return f"{self.file.name}: the adapter changes nothing yet, and neither does the file."
        return (
            f"{self.file.name}: one denoising step through the file, loaded by {self.loaded_by}, is off by "
            f"{self.difference:.2%} of what the adapter changes (up to {self.bound:.1%} is rounding)"
        )


def memory_needed(structure: ModelStructure) -> int:
    """Return about how many bytes `compare_step` takes: the U-Net and the encoders in float32, and some."""
    return int(4 * 1.25 * sum(prod(shape) for shape in structure.weights.values()))


def has_room(structure: ModelStructure) -> bool:
    """Whether this machine has the memory for it now."""
    return memory_needed(structure) < psutil.virtual_memory().available


class StepProof:
    """A model with an adapter as it was trained, that files are compared with, one after the other."""

    def __init__(self, files: ModelFiles, adapter: SmallAdapter, parameters: Mapping[str, Tensor], prompt: str) -> None:
        """Load the model, and predict with it as it is and with the adapter.

        Args:
            files: the model that the adapter was trained on.
            adapter: the recipe's section.
            parameters: what was learned, as a checkpoint names it.
            prompt: the text of the step.
        """
        self._adapter = adapter
        self._structure = files.structure()
        self._stack = TextStack.load(files, torch.float32, torch.device("cpu"))
        self._models: dict[Component, nn.Module | None] = {
            "unet": files.load_unet(torch.float32),
            "text_encoder": self._stack.text_encoder,
            "text_encoder_2": self._stack.text_encoder_2,
        }
        self._prompt = prompt
        self._base = self._predict()
        _put_in(self._models, adapter, parameters)
        self._trained = self._predict()
        self._restore()

    def compare(self, path: Path, precision: str) -> StepComparison:
        """Return how far a file is from the adapter.

        Args:
            path: the exported file, or a folder of peft's.
            precision: of its numbers.

        Raises:
            AtelierError: the file does other than was trained.
        """
        loaded_by = self._load(path)
        through_file = self._predict()
        self._restore()
        changed = (self._trained - self._base).norm().item()
        off = (through_file - self._trained).norm().item()
        difference = off / changed if changed else (float("inf") if off else 0.0)
        change = changed / self._base.norm().item()
        bound = BOUNDS[precision] + (_ROUNDING / change if change else 0.0)
        result = StepComparison(path, loaded_by, change, difference, bound)
        if not result.is_equal:
            raise AtelierError(f"{result.describe()}. The file does not do what was trained. Export it in fp32")
        return result

    @torch.no_grad()
    def _predict(self) -> Tensor:
        unet: Any = self._models["unet"]
        text = self._stack.encode([self._prompt])
        generator = torch.Generator().manual_seed(key_to_seed(0, "export-proof"))
        latents = torch.randn(1, unet.config.in_channels, _SIDE, _SIDE, generator=generator)
        side = 8.0 * _SIDE
        sizes = [side, side, 0.0, 0.0, *([side, side] if self._stack.text_encoder is not None else [6.0])]
        return predict(unet, latents, torch.tensor([_TIMESTEP]), text, torch.tensor([sizes]))

    def _load(self, path: Path) -> str:
        """Put a file's adapter into the models; return who has read it."""
        is_lora = isinstance(self._adapter, LoraAdapter)
        uses_dora = isinstance(self._adapter, LoraAdapter) and self._adapter.use_dora
        if path.is_file() and is_lora and (not uses_dora or "lora_adapter_metadata" in read_metadata(path)):
            self._pipeline().load_lora_weights(path.parent, weight_name=path.name)
            return "diffusers"
        modules = read_lora(path, self._structure)
        for component, model in self._models.items():
            own = [module for module in modules if module.component == component]
            if own:
                assert model is not None, "the file was written for this model"
                apply_lora(model, component, own)
        return "Atelier"

    def _pipeline(self) -> Any:
        is_base = self._stack.text_encoder is not None
        pipeline_class = StableDiffusionXLPipeline if is_base else StableDiffusionXLImg2ImgPipeline
        return pipeline_class(
            vae=None,
            text_encoder=self._models["text_encoder"],
            text_encoder_2=self._models["text_encoder_2"],
            tokenizer=None,
            tokenizer_2=None,
            unet=self._models["unet"],
            scheduler=EulerDiscreteScheduler(),
        )

    def _restore(self) -> None:
        for model in self._models.values():
            if model is not None:
                remove_loras(model)
                vars(model).pop("_hf_peft_config_loaded", None)  # diffusers' own mark that there is one


def _put_in(
    models: Mapping[Component, nn.Module | None], adapter: SmallAdapter, parameters: Mapping[str, Tensor]
) -> None:
    """Attach the adapter as training does, with what was learned."""
    for component in COMPONENTS:
        section, model = section_of(adapter, component), models[component]
        if section is None or model is None:
            continue
        inject_lora(model, component, lora_settings(adapter, section), 0, DropoutKey())
        model.eval()
        own = {name: tensor for name, tensor in (*model.named_parameters(), *model.named_buffers()) if ".lora_" in name}
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(parameters[f"{component}.{name}"])
