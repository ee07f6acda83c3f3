"""The embedded miniature: SDXL base and refiner in diffusers' own classes, small enough for any CPU.

The folder holds configurations and tokenizers in the layout of a diffusers model, but no weights: they are drawn from
a fixed seed, so what the untrained model draws is coloured noise. It exercises every mechanism of SDXL and shows none
of its art.
The VAE's factor is 4, so sizes are multiples of 16.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from finetune.model.files import DiffusersFolder

_ROOT = Path(__file__).parent / "miniature"
_SEEDS = {"unet": 1, "vae": 2, "text_encoder": 3, "text_encoder_2": 4}
_REFINER_OFFSET = 100


class Miniature(DiffusersFolder):
    """The miniature's base or refiner, with weights drawn from a fixed seed."""

    def __init__(self, *, refiner: bool = False) -> None:
        super().__init__(_ROOT / ("refiner" if refiner else "base"))
        self.is_refiner = refiner

    def identity(self) -> str:
        """Name the drawn weights; the number rises when they change."""
        return f"miniature-{self.root.name}-untrained-1"

    def _load(self, model_class: Any, subfolder: str, dtype: torch.dtype) -> Any:
        # The refiner shares the base's VAE, as in SDXL: its latents are the base's.
        offset = _REFINER_OFFSET if self.is_refiner and subfolder != "vae" else 0
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(_SEEDS[subfolder] + offset)
            model = self._build(model_class, self.root / subfolder)
        return nn.Module.to(model, dtype)  # diffusers' own `to` warns of parts that need float32; there are none

    def _build(self, model_class: Any, folder: Path) -> Any:
        if issubclass(model_class, (CLIPTextModel, CLIPTextModelWithProjection)):
            return model_class(CLIPTextConfig.from_pretrained(folder, local_files_only=True))
        config = model_class.load_config(folder, local_files_only=True)
        model: UNet2DConditionModel | AutoencoderKL = model_class.from_config(config)
        return model
