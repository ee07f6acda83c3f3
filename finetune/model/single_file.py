"""A single `.safetensors` checkpoint in the original SDXL layout, read without the network.

Its names (`model.diffusion_model.*`, `conditioner.embedders.*`, `first_stage_model.*`) are converted by diffusers. What
such a file does not hold, the parts' configurations and the tokenizers, comes from the copies that ship with the kit
or from a diffusers folder the recipe names.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm
from safetensors import safe_open
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from finetune.errors import RecipeError
from finetune.model.clip_vocabulary import clip_vocabulary
from finetune.model.files import (
    PART_FOLDERS,
    ModelPart,
    PartFiles,
    frozen,
    settings_in,
)
from finetune.model.fingerprint import fingerprint_files
from finetune.model.geometry import SHIPPED_SETTINGS, Geometry, read_geometry, read_json
from finetune.model.single_file_header import kind_of, tensor_names
from finetune.model.structure import read_structure
from finetune.naming.structure import ModelStructure

_MERGES = SHIPPED_SETTINGS / "clip_merges.txt.gz"
_PREFIXES: dict[ModelPart, str] = {"vae": "first_stage_model.", "text": "conditioner."}


class SingleFile:
    """The parts of one `.safetensors` checkpoint, memory-mapped."""

    def __init__(self, path: Path, config: Path | None = None) -> None:
        self.path = path
        names = tensor_names(path)
        kind = kind_of(path, names)
        self._is_base = kind == "base"
        self.v_prediction = "v_pred" in names
        self.zero_terminal_snr = "ztsnr" in names
        self.config = config or SHIPPED_SETTINGS / kind
        self._has_own_config = config is not None

    def identity(self) -> str:
        """Hash the file's header, size and a sample of its weights."""
        return fingerprint_files(self.path.parent, [self.path])

    def part_files(self, part: ModelPart) -> PartFiles:
        """Return the checkpoint, with the configurations and tokenizers that stand in for what it does not hold."""
        folders = [self.config / name for name in PART_FOLDERS[part]]
        settings = settings_in(folders)
        if part == "text" and not self._has_own_config:
            settings.append(_MERGES)
        return PartFiles(((self.path, _PREFIXES[part]),), tuple(settings))

    def has_first_encoder(self) -> bool:
        """Whether the file is a base's."""
        return self._is_base

    def load_unet(self, dtype: torch.dtype) -> UNet2DConditionModel:
        """Return the frozen U-Net in `dtype`."""
        return self._load(UNet2DConditionModel, "unet", "model.diffusion_model.", dtype)

    def load_vae(self, dtype: torch.dtype) -> AutoencoderKL:
        """Return the frozen VAE in `dtype`."""
        return self._load(AutoencoderKL, "vae", "first_stage_model.", dtype)

    def load_text_encoder(self, dtype: torch.dtype) -> CLIPTextModel | None:
        """Return the frozen first encoder, or None for a refiner's file."""
        return self._load_clip(CLIPTextModel, "text_encoder", dtype) if self._is_base else None

    def load_text_encoder_2(self, dtype: torch.dtype) -> CLIPTextModelWithProjection:
        """Return the frozen second encoder in `dtype`."""
        return self._load_clip(CLIPTextModelWithProjection, "text_encoder_2", dtype)

    def load_tokenizer(self) -> CLIPTokenizer | None:
        """Return CLIP's tokenizer, padding with the end token, or None for a refiner's file."""
        return self._tokenizer("tokenizer", "<|endoftext|>") if self._is_base else None

    def load_tokenizer_2(self) -> CLIPTokenizer:
        """Return CLIP's tokenizer, padding with '!' (id 0) as OpenCLIP does."""
        return self._tokenizer("tokenizer_2", "!")

    def scheduler_config(self) -> dict[str, Any]:
        """Return SDXL's schedule, with v-prediction and zero terminal SNR where the file's own markers say so."""
        config = read_json(self.config / "scheduler" / "scheduler_config.json")
        if self.v_prediction:
            config["prediction_type"] = "v_prediction"
        if self.zero_terminal_snr:
            config["rescale_betas_zero_snr"] = True
        return config

    def geometry(self) -> Geometry:
        """Read the sizes from the configurations."""
        return read_geometry(self.config)

    def structure(self) -> ModelStructure:
        """Read the structure from the configurations."""
        return read_structure(self.config)

    def pipeline_config(self) -> dict[str, Any]:
        """Return what the base or refiner pipeline of the original release is set to."""
        return {
            "force_zeros_for_empty_prompt": self._is_base,
            "requires_aesthetics_score": not self._is_base,
        }

    def _load(self, model_class: Any, part: str, prefix: str, dtype: torch.dtype) -> Any:
        with self._loading(part):
            model = model_class.from_single_file(
                self._tensors(prefix),
                config=str(self.config),
                subfolder=part,
                torch_dtype=dtype,
                local_files_only=True,
            )
            return frozen(_complete(model))

    def _load_clip(self, model_class: Any, part: str, dtype: torch.dtype) -> Any:
        with self._loading(part):
            model = create_diffusers_clip_model_from_ldm(
                model_class,
                checkpoint=self._tensors("conditioner."),
                subfolder=part,
                config=str(self.config),
                torch_dtype=dtype,
                local_files_only=True,
            )
            return frozen(_complete(model))

    @contextmanager
    def _loading(self, part: str) -> Iterator[None]:
        """Turn what diffusers says of a file that does not fit into a message about the file."""
        try:
            yield
        except NotImplementedError as error:  # torch's word for moving a tensor that has no values
            raise RecipeError(self._unfit(part, "some of its tensors are missing.")) from error
        except KeyError as error:
            raise RecipeError(self._unfit(part, f"{error} is missing.")) from error
        except (OSError, ValueError) as error:
            raise RecipeError(self._unfit(part, str(error).partition("\n")[0])) from error

    def _unfit(self, part: str, reason: str) -> str:
        return (
            f"{self.path}: its {part} cannot be loaded: {reason} The file does not fit the configuration in "
            f"{self.config}. Get it again, or give the folder of its own configuration: model.config=…"
        )

    def _tensors(self, prefix: str) -> dict[str, Tensor]:
        with safe_open(self.path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118

    def _tokenizer(self, part: str, pad_token: str) -> CLIPTokenizer:
        if self._has_own_config:
            return CLIPTokenizer.from_pretrained(self.config / part, local_files_only=True)
        return clip_tokenizer(pad_token)


def _complete(model: nn.Module) -> nn.Module:
    """Return the model if every tensor of it has values."""
    missing = [name for name, tensor in model.state_dict().items() if tensor.is_meta]
    if missing:
        raise ValueError(f"{len(missing)} of its tensors are missing, the first: {missing[0]}.")
    return model


def clip_tokenizer(pad_token: str) -> CLIPTokenizer:
    """Return CLIP's tokenizer with its vocabulary of 49,408 tokens."""
    vocabulary, merges = clip_vocabulary()
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad_token, model_max_length=77)
