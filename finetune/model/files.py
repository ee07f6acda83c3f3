"""Load the parts of an SDXL model, one at a time, from wherever they lie.

A `ModelFiles` gives each part on its own, so that the text encoders can be loaded, used and let go before the U-Net
is touched. Weights are memory-mapped in their own precision and converted only where another one is asked for.
Four kinds: a diffusers folder, a hub id (its snapshot is such a folder), a single `.safetensors` checkpoint in the
original layout, and the embedded miniature. Pickled checkpoints and code from model folders are refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from diffusers import AutoencoderKL, DDPMScheduler, EulerDiscreteScheduler, UNet2DConditionModel
from safetensors import SafetensorError
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from finetune.errors import RecipeError
from finetune.model.fingerprint import fingerprint_files
from finetune.model.geometry import Geometry, read_geometry, read_json, require_unet
from finetune.model.structure import read_structure
from finetune.naming.structure import ModelStructure

SDXL_VAE_SCALING = 0.13025

ModelPart = Literal["vae", "text"]
"""What is encoded with: the VAE, or both text encoders with their tokenizers."""

PART_FOLDERS: dict[ModelPart, tuple[str, ...]] = {
    "vae": ("vae",),
    "text": ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
}
"""The folders of each part in a diffusers model."""


@dataclass(frozen=True)
class PartFiles:
    """The files that a part of a model is loaded from.

    Attributes:
        weights: safetensors files, each with what the names of the part's tensors begin with in it.
        settings: configurations and vocabularies.
        note: what else decides how it is loaded.
    """

    weights: tuple[tuple[Path, str], ...]
    settings: tuple[Path, ...]
    note: str = ""


class ModelFiles(Protocol):
    """The parts of a base or refiner model, each loaded when it is asked for."""

    def identity(self) -> str:
        """Return a short text that differs where the weights differ."""
        ...

    def part_files(self, part: ModelPart) -> PartFiles:
        """Return everything that what a part computes depends on."""
        ...

    def has_first_encoder(self) -> bool:
        """Whether it is a base: a refiner has only the second encoder."""
        ...

    def load_unet(self, dtype: torch.dtype) -> UNet2DConditionModel:
        """Return the frozen U-Net in `dtype`, on the CPU."""
        ...

    def load_vae(self, dtype: torch.dtype) -> AutoencoderKL:
        """Return the frozen VAE in `dtype`, on the CPU."""
        ...

    def load_text_encoder(self, dtype: torch.dtype) -> CLIPTextModel | None:
        """Return the frozen first encoder (ViT-L), or None for a refiner."""
        ...

    def load_text_encoder_2(self, dtype: torch.dtype) -> CLIPTextModelWithProjection:
        """Return the frozen second encoder (bigG)."""
        ...

    def load_tokenizer(self) -> CLIPTokenizer | None:
        """Return the first encoder's tokenizer, or None for a refiner."""
        ...

    def load_tokenizer_2(self) -> CLIPTokenizer:
        """Return the second encoder's tokenizer."""
        ...

    def scheduler_config(self) -> dict[str, Any]:
        """Return the noise schedule's configuration as diffusers writes it."""
        ...

    def geometry(self) -> Geometry:
        """Return the sizes the model works in, without loading weights."""
        ...

    def structure(self) -> ModelStructure:
        """Return every Linear and convolution with its shape, without loading weights."""
        ...

    def pipeline_config(self) -> dict[str, Any]:
        """Return the pipeline's own settings (`force_zeros_for_empty_prompt`, `requires_aesthetics_score`)."""
        ...


def settings_in(folders: Sequence[Path]) -> list[Path]:
    """Return the configurations and vocabularies in parts' folders, in order."""
    return sorted(path for folder in folders for ending in ("json", "txt") for path in folder.glob(f"*.{ending}"))


class DiffusersFolder:
    """A model as diffusers saves it: a folder a part, each with its configuration and safetensors weights."""

    def __init__(self, root: Path, variant: str | None = None) -> None:
        self.root = require_unet(root)
        self.variant = variant

    def identity(self) -> str:
        """Hash every weight file's header and size: enough to tell models apart without reading gigabytes."""
        return fingerprint_files(self.root, sorted(self.root.glob("*/*.safetensors")))

    def part_files(self, part: ModelPart) -> PartFiles:
        """Return the files of a part's folders; of several variants, all of them."""
        folders = [self.root / name for name in PART_FOLDERS[part]]
        return PartFiles(
            weights=tuple((path, "") for folder in folders for path in sorted(folder.glob("*.safetensors"))),
            settings=tuple(settings_in(folders)),
            note=f"variant {self.variant}",
        )

    def load_unet(self, dtype: torch.dtype) -> UNet2DConditionModel:
        """Return the frozen U-Net in `dtype`, on the CPU, memory-mapped where the file has that precision."""
        return frozen(self._load(UNet2DConditionModel, "unet", dtype))

    def load_vae(self, dtype: torch.dtype) -> AutoencoderKL:
        """Return the frozen VAE in `dtype`, on the CPU."""
        return frozen(self._load(AutoencoderKL, "vae", dtype))

    def has_first_encoder(self) -> bool:
        """Whether the folder has the first encoder's configuration."""
        return (self.root / "text_encoder" / "config.json").is_file()

    def load_text_encoder(self, dtype: torch.dtype) -> CLIPTextModel | None:
        """Return the frozen first encoder, or None where the model has none."""
        if not self.has_first_encoder():
            return None
        return frozen(self._load(CLIPTextModel, "text_encoder", dtype))

    def load_text_encoder_2(self, dtype: torch.dtype) -> CLIPTextModelWithProjection:
        """Return the frozen second encoder in `dtype`."""
        return frozen(self._load(CLIPTextModelWithProjection, "text_encoder_2", dtype))

    def load_tokenizer(self) -> CLIPTokenizer | None:
        """Return the first tokenizer, or None where the model has none."""
        if not (self.root / "tokenizer").is_dir():
            return None
        return CLIPTokenizer.from_pretrained(self.root / "tokenizer", local_files_only=True)

    def load_tokenizer_2(self) -> CLIPTokenizer:
        """Return the second tokenizer."""
        return CLIPTokenizer.from_pretrained(self.root / "tokenizer_2", local_files_only=True)

    def scheduler_config(self) -> dict[str, Any]:
        """Read scheduler/scheduler_config.json."""
        return read_json(self.root / "scheduler" / "scheduler_config.json")

    def geometry(self) -> Geometry:
        """Read the sizes from the configurations of the U-Net and the VAE."""
        return read_geometry(self.root)

    def structure(self) -> ModelStructure:
        """Read the structure from the configurations."""
        return read_structure(self.root)

    def pipeline_config(self) -> dict[str, Any]:
        """Read model_index.json."""
        path = self.root / "model_index.json"
        return read_json(path) if path.is_file() else {"force_zeros_for_empty_prompt": True}

    def _load(self, model_class: Any, subfolder: str, dtype: torch.dtype) -> Any:
        try:
            model, loaded = model_class.from_pretrained(
                self.root,
                subfolder=subfolder,
                variant=self.variant,
                use_safetensors=True,
                local_files_only=True,
                low_cpu_mem_usage=True,
                output_loading_info=True,
                **{"torch_dtype" if issubclass(model_class, (UNet2DConditionModel, AutoencoderKL)) else "dtype": dtype},
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise RecipeError(
                f"{self.root / subfolder} cannot be loaded: {_first_line(error)} "
                "Safetensors weights are needed; a folder with only .bin or .ckpt files is refused, "
                "and `variant: fp16` is needed where every file name ends in .fp16.safetensors."
            ) from error
        missing = sorted(loaded["missing_keys"])
        if missing:  # the libraries would draw these at random and only log it
            raise RecipeError(
                f"{self.root / subfolder} cannot be loaded: {len(missing)} of its tensors are missing, "
                f"the first: {missing[0]}. Get the folder again, or convert it with a current diffusers."
            )
        return model


def noise_scheduler(files: ModelFiles, *, zero_terminal_snr: bool = False) -> DDPMScheduler:
    """Return the training schedule: the model's betas and prediction type, as discrete noise levels.

    With `zero_terminal_snr` the betas are rescaled so that the last timestep is pure noise
    (Lin et al. 2023, arXiv 2305.08891, algorithm 1), also where the model's own schedule does not say so.
    """
    kept = ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps", "prediction_type", "trained_betas",
            "rescale_betas_zero_snr")  # fmt: skip
    config = files.scheduler_config()
    settings = {key: config[key] for key in kept if key in config}
    if zero_terminal_snr:
        settings["rescale_betas_zero_snr"] = True
    return DDPMScheduler(**settings, clip_sample=False)


def sampling_scheduler(
    files: ModelFiles, *, prediction_type: str | None = None, zero_terminal_snr: bool = False
) -> EulerDiscreteScheduler:
    """Return the scheduler previews are drawn with: Euler on the model's own schedule.

    Args:
        files: the model.
        prediction_type: what the model was trained to predict, where a recipe says otherwise than its schedule.
        zero_terminal_snr: whether it was trained with a last timestep of pure noise; sampling then has to begin there
            (Lin et al. 2023, arXiv 2305.08891, section 3.3).
    """
    config = files.scheduler_config()
    if prediction_type is not None:
        config["prediction_type"] = prediction_type
    if zero_terminal_snr:
        config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return EulerDiscreteScheduler.from_config(config)


def frozen(model: nn.Module) -> Any:
    """Return the model in evaluation mode with no parameter that takes a gradient."""
    return model.requires_grad_(requires_grad=False).eval()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
