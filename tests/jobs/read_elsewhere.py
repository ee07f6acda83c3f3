"""Load exported files with whatever libraries the interpreter that runs this has, and compare the changes of weights.

`python read_elsewhere.py FOLDER` prints one JSON object: the versions, and for each format how many modules were loaded
and the largest relative difference. It imports nothing of this kit, so that any environment can run it.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import diffusers
import peft
import torch
import transformers
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

COMPONENTS = ("unet", "text_encoder", "text_encoder_2")
UNET = {
    "sample_size": 8,
    "block_out_channels": (32, 64, 96),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 1, 2),
    "attention_head_dim": (2, 4, 6),
    "cross_attention_dim": 48,
    "norm_num_groups": 16,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 32 + 6 * 8,
}
TEXT = {"num_attention_heads": 2, "intermediate_size": 40, "vocab_size": 64, "max_position_embeddings": 77}
FIRST = {**TEXT, "hidden_size": 16, "num_hidden_layers": 2}
SECOND = {**TEXT, "hidden_size": 32, "projection_dim": 32, "num_hidden_layers": 3}


def build_pipeline() -> StableDiffusionXLPipeline:
    """Return a tiny SDXL without VAE and tokenizers."""
    torch.manual_seed(0)
    return StableDiffusionXLPipeline(
        vae=None,
        text_encoder=CLIPTextModel(CLIPTextConfig(**FIRST)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**SECOND)).eval(),
        tokenizer=None,
        tokenizer_2=None,
        unet=UNet2DConditionModel(**UNET).eval(),
        scheduler=EulerDiscreteScheduler(),
    )


def loaded_changes(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the change of each adapted module, by its path without the fronts that differ between versions."""
    return {
        name.removeprefix("base_model.model.").removeprefix("text_model."): layer.get_delta_weight(
            layer.active_adapters[0]
        ).detach()
        for name, layer in model.named_modules()
        if isinstance(layer, LoraLayer)
    }


def compare(models: dict[str, nn.Module], expected: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Return what was loaded beside what should have been."""
    found = {
        f"{component}.{name}": change for component, model in models.items()
        for name, change in loaded_changes(model).items()
    }  # fmt: skip
    missing = sorted(expected.keys() - found.keys())
    differences = {
        name: ((found[name].double() - change.double()).norm() / change.double().norm()).item()
        for name, change in expected.items()
        if name in found
    }
    worst = max(differences, key=lambda name: differences[name], default=None)
    return {
        "loaded": len(found),
        "missing": missing[:3],
        "worst": worst,
        "difference": differences[worst] if worst else None,
    }


def main(folder: Path) -> dict[str, Any]:
    """Read every format in the folder."""
    warnings.simplefilter("ignore")
    expected = {name.replace(".text_model.", "."): change for name, change in
                load_file(folder / "expected.safetensors").items()}  # fmt: skip
    formats: dict[str, Any] = {}
    for name, path in {
        "kohya": folder / "cat.safetensors",
        "kohya-diffusers": folder / "other" / "cat.safetensors",
        "diffusers": folder / "cat-diffusers" / "pytorch_lora_weights.safetensors",
    }.items():
        pipeline = build_pipeline()
        pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
        formats[name] = compare({component: getattr(pipeline, component) for component in COMPONENTS}, expected)
    pipeline = build_pipeline()
    formats["peft"] = compare(
        {
            component: peft.PeftModel.from_pretrained(
                getattr(pipeline, component), str(folder / "cat-peft" / component)
            )
            for component in COMPONENTS
        },
        expected,
    )
    versions = {library.__name__: library.__version__ for library in (torch, transformers, diffusers, peft)}
    return {"versions": versions, "modules": len(expected), "formats": formats}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
