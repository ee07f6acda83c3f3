"""A whole trained model as a folder in diffusers' layout, which diffusers' own pipelines load.

    exports/<name>/
      model_index.json          which pipeline, and which class each part is of
      unet/  vae/               config.json and diffusion_pytorch_model.safetensors
      text_encoder/  text_encoder_2/     config.json and model.safetensors; a refiner has the second only
      tokenizer/  tokenizer_2/  tokenizer.json, and vocab.json and merges.txt for readers of SDXL's own layout
      scheduler/                the noise levels, as trained

Every part is written, the trained ones with their new weights, so that the folder is a model by itself.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import CLIPTokenizer

from finetune.errors import AtelierError
from finetune.export.check import PRECISIONS
from finetune.model.files import ModelFiles
from finetune.run.durable import os_error_in, whole_folder, write_json

_UNSHARDED = "1000GB"
"""One file a part, as SDXL itself was published."""


def export_folder(
    files: ModelFiles,
    parameters: Mapping[str, Tensor],
    target: Path,
    *,
    precision: str,
    prediction_type: str | None = None,
    zero_terminal_snr: bool = False,
) -> tuple[Path, ...]:
    """Write a model with trained weights as the folder `target`, whole or not at all; an older one is replaced.

    Args:
        files: the model that training began with, for everything that was not trained.
        parameters: the trained weights as a checkpoint names them: the part's name, a dot, the parameter's own.
        target: the folder.
        precision: 'fp16', 'bf16' or 'fp32', of all weights.
        prediction_type: what the U-Net was trained to predict, where it is not what the model's schedule says.
        zero_terminal_snr: whether it was trained with a last timestep of pure noise.

    Returns:
        The folder, alone.

    Raises:
        AtelierError: weights that are not finite, also because the precision is too narrow for them.
        DiskError: the disk refuses.
    """
    dtype = PRECISIONS[precision]
    loaders: dict[str, Callable[[torch.dtype], nn.Module | None]] = {
        "unet": files.load_unet,
        "vae": files.load_vae,
        "text_encoder": files.load_text_encoder,
        "text_encoder_2": files.load_text_encoder_2,
    }
    trained = {part: _of_part(parameters, part) for part in loaders}
    assert sum(map(len, trained.values())) == len(parameters), "a trained parameter belongs to no part"
    index = _pipeline(files)
    with whole_folder(target) as folder:
        for part, load in loaders.items():
            model = load(dtype)
            index[part] = _class_of(model)
            if model is not None:
                _put_in(model, part, trained[part], precision)
                _save(model, folder / part)
        for part, tokenizer in (("tokenizer", files.load_tokenizer()), ("tokenizer_2", files.load_tokenizer_2())):
            index[part] = _class_of(tokenizer)
            if tokenizer is not None:
                save_tokenizer(tokenizer, folder / part)
        scheduler = _scheduler(files, prediction_type, zero_terminal_snr=zero_terminal_snr)
        index["scheduler"] = ["diffusers", scheduler["_class_name"]]
        (folder / "scheduler").mkdir()
        write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
        write_json(folder / "model_index.json", index)
    return (target,)


def save_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write a tokenizer, with its vocabulary and merges in the two files that SDXL was published with.

    transformers 5 writes `tokenizer.json` only; programs that follow SDXL's layout look for the others.
    """
    tokenizer.save_pretrained(folder)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    vocabulary = dict(sorted(model["vocab"].items(), key=lambda entry: entry[1]))
    write_json(folder / "vocab.json", vocabulary, indent=None)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8", newline="\n")


def _of_part(parameters: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    prefix = part + "."
    return {name.removeprefix(prefix): value for name, value in parameters.items() if name.startswith(prefix)}


def _put_in(model: nn.Module, part: str, trained: Mapping[str, Tensor], precision: str) -> None:
    """Copy trained weights into a part, in the part's own precision."""
    own = dict(model.named_parameters())
    assert trained.keys() <= own.keys(), f"{part}: a trained parameter is not the model's"
    with torch.no_grad():
        for name, value in trained.items():
            if not torch.isfinite(value).all():
                raise AtelierError(f"{part}.{name}: holds numbers that are not finite.")
            own[name].copy_(value)
            if not torch.isfinite(own[name]).all():
                raise AtelierError(
                    f"{part}.{name}: too large for {precision}. Export with export.precision=bf16 or fp32."
                )


def _save(model: Any, folder: Path) -> None:
    try:
        model.save_pretrained(folder, safe_serialization=True, max_shard_size=_UNSHARDED)
    except SafetensorError as error:
        raise os_error_in(error) from error


def _pipeline(files: ModelFiles) -> dict[str, Any]:
    """Return the head of model_index.json: the pipeline and its own settings."""
    is_base = files.has_first_encoder()
    given = files.pipeline_config()
    return {
        "_class_name": "StableDiffusionXLPipeline" if is_base else "StableDiffusionXLImg2ImgPipeline",
        "_diffusers_version": diffusers.__version__,
        "force_zeros_for_empty_prompt": bool(given.get("force_zeros_for_empty_prompt", is_base)),
        **({} if is_base else {"requires_aesthetics_score": True}),
    }


def _class_of(part: object | None) -> list[str | None]:
    """Return a part's library and class as model_index.json names them; nulls where the model has no such part."""
    if part is None:
        return [None, None]
    return [type(part).__module__.partition(".")[0], type(part).__name__]


def _scheduler(files: ModelFiles, prediction_type: str | None, *, zero_terminal_snr: bool) -> dict[str, Any]:
    """Return the model's schedule, saying what the U-Net was trained to predict and from which last noise level."""
    config = {"_class_name": "EulerDiscreteScheduler", **files.scheduler_config()}
    if prediction_type is not None:
        config["prediction_type"] = prediction_type
    if zero_terminal_snr:  # sampling then has to begin at pure noise (Lin et al. 2023, arXiv 2305.08891, section 3.3)
        config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return config
