"""A tiny SDXL of its own, saved as diffusers saves it and as one file in the original layout.

The names of the original layout are written here from the layout itself, not from anybody's converter.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import safetensors.torch
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from finetune.model.miniature import Miniature


@dataclass(frozen=True)
class TinySdxl:
    """The models as they were saved, and where."""

    pipeline: StableDiffusionXLPipeline
    folder: Path
    single_file: Path


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> TinySdxl:
    """Return an SDXL with two resnets a block and ten layers in the second encoder, as small as that goes."""
    pipeline = _build()
    root = tmp_path_factory.mktemp("models")
    pipeline.save_pretrained(root / "folder")
    tensors = original_layout(pipeline)
    safetensors.torch.save_file(tensors, root / "tiny.safetensors")
    return TinySdxl(pipeline, root / "folder", root / "tiny.safetensors")


def _build() -> StableDiffusionXLPipeline:
    miniature = Miniature()
    common = {"num_attention_heads": 2, "vocab_size": 606, "max_position_embeddings": 77, "bos_token_id": 604}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(16, 32, 48),
            layers_per_block=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 1, 2),
            attention_head_dim=(2, 4, 6),
            cross_attention_dim=40,
            norm_num_groups=8,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=24 + 6 * 8,
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 16, 24),
            layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            norm_num_groups=4,
            sample_size=32,
            scaling_factor=0.13025,
        )
        first = CLIPTextModel(
            CLIPTextConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=3, eos_token_id=605, **common)
        )
        second = CLIPTextModelWithProjection(
            CLIPTextConfig(
                hidden_size=24, intermediate_size=48, num_hidden_layers=11, projection_dim=24, hidden_act="gelu",
                eos_token_id=605, **common,
            )
        )  # fmt: skip
        for model in (unet, vae, first, second):
            for parameter in model.parameters():  # no two tensors alike, zeros and ones included
                parameter.data += torch.randn_like(parameter) * 0.02
    return StableDiffusionXLPipeline(
        vae=vae.eval(),
        text_encoder=first.eval(),
        text_encoder_2=second.eval(),
        tokenizer=miniature.load_tokenizer(),
        tokenizer_2=miniature.load_tokenizer_2(),
        unet=unet.eval(),
        scheduler=EulerDiscreteScheduler.from_config(miniature.scheduler_config()),
    )


def original_layout(pipeline: StableDiffusionXLPipeline) -> dict[str, Tensor]:
    """Return every tensor of a pipeline under its name in the original SDXL layout."""
    tensors = {}
    for name, value in pipeline.unet.state_dict().items():
        tensors["model.diffusion_model." + _unet_name(name)] = value
    for name, value in pipeline.vae.state_dict().items():
        path = _vae_name(name)
        is_attention = ".attn_1." in path and ".norm." not in path and path.endswith("weight")
        tensors["first_stage_model." + path] = value[:, :, None, None] if is_attention else value
    for name, value in pipeline.text_encoder.state_dict().items():
        tensors["conditioner.embedders.0.transformer.text_model." + name.removeprefix("text_model.")] = value
    tensors["conditioner.embedders.0.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    tensors.update(_open_clip(pipeline.text_encoder_2.state_dict(), "conditioner.embedders.1.model."))
    return {name: value.detach().clone().contiguous() for name, value in tensors.items()}


_UNET_OUTSIDE = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_IN_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def _unet_name(name: str) -> str:
    for outside, original in _UNET_OUTSIDE.items():
        if name.startswith(outside + "."):
            return original + name.removeprefix(outside)
    parts = name.split(".")
    if parts[0] == "mid_block":
        kind, index, rest = parts[1], int(parts[2]), parts[3:]
        block = "middle_block.1" if kind == "attentions" else f"middle_block.{2 * index}"
    else:
        side, i, kind, j, rest = parts[0], int(parts[1]), parts[2], int(parts[3]), parts[4:]
        block = {
            ("down_blocks", "resnets"): f"input_blocks.{3 * i + j + 1}.0",
            ("down_blocks", "attentions"): f"input_blocks.{3 * i + j + 1}.1",
            ("down_blocks", "downsamplers"): f"input_blocks.{3 * (i + 1)}.0",
            ("up_blocks", "resnets"): f"output_blocks.{3 * i + j}.0",
            ("up_blocks", "attentions"): f"output_blocks.{3 * i + j}.1",
            ("up_blocks", "upsamplers"): f"output_blocks.{3 * i + 2}.2",
        }[side, kind]
    if kind == "resnets":
        rest = [_IN_RESNET[rest[0]], *rest[1:]]
    elif kind == "downsamplers":
        rest = ["op", *rest[1:]]
    return ".".join([block, *rest])


def _vae_name(name: str) -> str:
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{2 - int(m[1])}.block.{m[2]}", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{2 - int(m[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = name.replace("mid_block.attentions.0", "mid.attn_1").replace("conv_shortcut", "nin_shortcut")
    name = name.replace("conv_norm_out", "norm_out").replace("group_norm", "norm").replace("to_out.0", "proj_out")
    return re.sub(r"attn_1\.to_([qkv])", r"attn_1.\1", name)


_OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def _open_clip(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    tensors = {
        "logit_scale": torch.tensor(4.6),
        "text_projection": state["text_projection.weight"].T,
        "token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": state["text_model.embeddings.position_embedding.weight"],
        "ln_final.weight": state["text_model.final_layer_norm.weight"],
        "ln_final.bias": state["text_model.final_layer_norm.bias"],
    }
    for layer in range(11):
        theirs, ours = f"text_model.encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        for end in ("weight", "bias"):
            qkv = [state[f"{theirs}.self_attn.{which}_proj.{end}"] for which in "qkv"]
            tensors[f"{ours}.attn.in_proj_{end}"] = torch.cat(qkv)
            for part, original in _OPEN_CLIP.items():
                tensors[f"{ours}.{original}.{end}"] = state[f"{theirs}.{part}.{end}"]
    return {prefix + name: value for name, value in tensors.items()}
