"""Write a real-size SDXL model folder with random bf16 weights, as diffusers lays one out.

    python benchmarks/full_size_model.py FOLDER

It has every part of the real one in its real shape (7 GB) and draws noise: it is there to be timed and weighed. A part
is written under a temporary name and renamed when it is whole, so an interrupted build goes on where it was.
"""

import argparse
import gc
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

import finetune.model
from finetune.model.single_file import clip_tokenizer

CONFIGURATIONS = Path(finetune.model.__file__).parent / "sdxl" / "base"
WEIGHT_STD = 0.02

_INDEX = {
    "_class_name": "StableDiffusionXLPipeline",
    "force_zeros_for_empty_prompt": True,
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def build_model(folder: Path) -> None:
    """Write what of the model is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Callable[[Path], object]] = {
        "scheduler": _save_scheduler,
        "tokenizer": lambda path: clip_tokenizer("<|endoftext|>").save_pretrained(path),
        "tokenizer_2": lambda path: clip_tokenizer("!").save_pretrained(path),
        "text_encoder": lambda path: _save_text_encoder(CLIPTextModel, path),
        "text_encoder_2": lambda path: _save_text_encoder(CLIPTextModelWithProjection, path),
        "vae": lambda path: _save_diffusers_model(AutoencoderKL, path),
        "unet": lambda path: _save_diffusers_model(UNet2DConditionModel, path),
    }
    for seed, (name, save) in enumerate(parts.items()):
        if (folder / name).is_dir():
            continue
        print(f"writing {name} …", flush=True)
        torch.manual_seed(seed)
        unfinished = folder / f".{name}" / name  # the last name is the part's: its configuration is found by it
        shutil.rmtree(unfinished.parent, ignore_errors=True)
        save(unfinished)
        unfinished.rename(folder / name)
        unfinished.parent.rmdir()
        gc.collect()
    (folder / "model_index.json").write_text(json.dumps(_INDEX, indent=2) + "\n", encoding="utf-8")


def _save_scheduler(path: Path) -> None:
    EulerDiscreteScheduler.from_config(
        EulerDiscreteScheduler.load_config(CONFIGURATIONS / path.name, local_files_only=True)
    ).save_pretrained(path)


def _save_text_encoder(model_class: type[CLIPTextModel] | type[CLIPTextModelWithProjection], path: Path) -> None:
    config = CLIPTextConfig.from_pretrained(CONFIGURATIONS / path.name, local_files_only=True)
    with torch.device("meta"):
        model = model_class(config)
    _with_random_weights(model).save_pretrained(path)


def _save_diffusers_model(model_class: type[AutoencoderKL] | type[UNet2DConditionModel], path: Path) -> None:
    config = model_class.load_config(CONFIGURATIONS / path.name, local_files_only=True)
    with torch.device("meta"):
        model = model_class.from_config(config)
    _with_random_weights(model).save_pretrained(path)


@torch.no_grad()
def _with_random_weights(model: Any) -> Any:
    """Give a model built without memory bf16 weights from a normal distribution, its norms and biases as new.

    With random norms, too, what flows through would shrink towards numbers so small that they are slow to compute.
    """
    nn.Module.to(model, torch.bfloat16)  # diffusers' own `to` warns of parts that need float32; none is computed here
    model.to_empty(device="cpu")
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(0.0, WEIGHT_STD)
        else:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write a real-size SDXL model folder with random weights.")
    parser.add_argument("folder", type=Path)
    build_model(parser.parse_args().folder)
