"""The real SDXL's shape, without weights: parameters, target counts and the names in a kohya file.

The names are written out here from the original model's block structure (the tables below), not by our converter.
"""

from functools import cache

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from finetune.adapters.targets import target_paths
from finetune.adapters.weights import LoraModule
from finetune.export.kohya import kohya_state_dict
from finetune.naming.components import Component
from finetune.naming.keys import SDXL_BASE_LAYOUT, UNetLayout, module_of_stem

TARGETS = ("attention", "attention+feedforward", "attention+feedforward+convolutions")

# Block with attention → number of transformer blocks, in the original layout.
TRANSFORMERS = {
    **dict.fromkeys(("input_blocks_4_1", "input_blocks_5_1"), 2),
    **dict.fromkeys(("input_blocks_7_1", "input_blocks_8_1", "middle_block_1"), 10),
    **dict.fromkeys(("output_blocks_0_1", "output_blocks_1_1", "output_blocks_2_1"), 10),
    **dict.fromkeys(("output_blocks_3_1", "output_blocks_4_1", "output_blocks_5_1"), 2),
}
RESNETS = (
    *(f"input_blocks_{index}_0" for index in (1, 2, 4, 5, 7, 8)),
    *("middle_block_0", "middle_block_2"),
    *(f"output_blocks_{index}_0" for index in range(9)),
)
# Where the number of channels changes.
SKIPS = ("input_blocks_4_0", "input_blocks_7_0", *(f"output_blocks_{index}_0" for index in range(9)))
SAMPLERS = ("input_blocks_3_0_op", "input_blocks_6_0_op", "output_blocks_2_2_conv", "output_blocks_5_2_conv")


def written_out(targets: str) -> set[str]:
    names = {
        f"{block}_transformer_blocks_{index}_{attention}_{projection}"
        for block, depth in TRANSFORMERS.items()
        for index in range(depth)
        for attention in ("attn1", "attn2")
        for projection in ("to_q", "to_k", "to_v", "to_out_0")
    }
    if targets != "attention":
        names |= {
            f"{block}_transformer_blocks_{index}_ff_net_{layer}"
            for block, depth in TRANSFORMERS.items()
            for index in range(depth)
            for layer in ("0_proj", "2")
        }
        names |= {f"{block}_{projection}" for block in TRANSFORMERS for projection in ("proj_in", "proj_out")}
    if targets.endswith("convolutions"):
        names |= {f"{resnet}_{part}" for resnet in RESNETS for part in ("in_layers_2", "emb_layers_1", "out_layers_3")}
        names |= {f"{resnet}_skip_connection" for resnet in SKIPS} | set(SAMPLERS)
    return {f"lora_unet_{name}" for name in names}


def text_names(prefix: str, num_layers: int) -> set[str]:
    parts = ("self_attn_q_proj", "self_attn_k_proj", "self_attn_v_proj", "self_attn_out_proj", "mlp_fc1", "mlp_fc2")
    return {f"{prefix}_text_model_encoder_layers_{layer}_{part}" for layer in range(num_layers) for part in parts}


@cache
def unet() -> UNet2DConditionModel:
    with torch.device("meta"):
        return UNet2DConditionModel(
            sample_size=128,
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=2,
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )


@cache
def text_encoder(component: Component) -> nn.Module:
    with torch.device("meta"):
        if component == "text_encoder":
            return CLIPTextModel(
                CLIPTextConfig(
                    hidden_size=768,
                    intermediate_size=3072,
                    num_hidden_layers=12,
                    num_attention_heads=12,
                    projection_dim=768,
                )
            )
        return CLIPTextModelWithProjection(
            CLIPTextConfig(
                hidden_size=1280,
                intermediate_size=5120,
                num_hidden_layers=32,
                num_attention_heads=20,
                projection_dim=1280,
                hidden_act="gelu",
            )
        )


def rank_one(model: nn.Module, component: Component, targets: str) -> list[LoraModule]:
    modules = []
    for path in target_paths(model, component, targets):
        shape = model.get_submodule(path).weight.shape
        down = torch.zeros(1, *shape[1:])
        up = torch.zeros(shape[0], 1, *[1] * (len(shape) - 2))
        name = path if component == "unet" else "text_model." + path.removeprefix("text_model.")
        modules.append(LoraModule(component, name, down, up, scale=1.0))
    return modules


def stems(state_dict: dict[str, torch.Tensor]) -> set[str]:
    return {name.partition(".")[0] for name in state_dict}


def test_the_unet_is_the_real_one() -> None:
    assert sum(parameter.numel() for parameter in unet().parameters()) == 2_567_463_684
    assert UNetLayout.from_config(unet().config) == SDXL_BASE_LAYOUT


@pytest.mark.parametrize(("targets", "count"), list(zip(TARGETS, (560, 722, 788), strict=True)))
def test_the_names_are_those_written_out(targets: str, count: int) -> None:
    modules = rank_one(unet(), "unet", targets)
    expected = written_out(targets)
    assert len(modules) == len(expected) == count
    state_dict = kohya_state_dict(modules, "fp16", SDXL_BASE_LAYOUT)
    assert stems(state_dict) == expected
    assert set(state_dict) == {
        f"{stem}.{part}" for stem in expected for part in ("lora_down.weight", "lora_up.weight", "alpha")
    }
    back = {module_of_stem(stem, SDXL_BASE_LAYOUT) for stem in expected}
    assert back == {("unet", module.module) for module in modules}


@pytest.mark.parametrize(
    ("component", "prefix", "num_layers", "count", "per_rank"),
    [("text_encoder", "lora_te1", 12, 72, 165_888), ("text_encoder_2", "lora_te2", 32, 192, 737_280)],
)
def test_the_encoders(component: Component, prefix: str, num_layers: int, count: int, per_rank: int) -> None:
    modules = rank_one(text_encoder(component), component, "attention+feedforward")
    assert len(modules) == count
    assert sum(module.down.numel() + module.up.numel() for module in modules) == per_rank
    assert stems(kohya_state_dict(modules, "fp32", SDXL_BASE_LAYOUT)) == text_names(prefix, num_layers)
    back = {module_of_stem(stem, SDXL_BASE_LAYOUT) for stem in text_names(prefix, num_layers)}
    assert back == {(component, module.module) for module in modules}


@pytest.mark.parametrize(("targets", "per_rank"), [("attention", 1_451_520), ("attention+feedforward", 2_659_840)])
def test_parameters_for_each_unit_of_rank(targets: str, per_rank: int) -> None:
    modules = rank_one(unet(), "unet", targets)
    assert sum(module.down.numel() + module.up.numel() for module in modules) == per_rank


# Stem → input and output size, and the kernel of a convolution.
SHAPES = {
    "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q": (640, 640),
    "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k": (2048, 640),
    "lora_unet_input_blocks_7_1_transformer_blocks_9_ff_net_0_proj": (1280, 10240),
    "lora_unet_middle_block_1_transformer_blocks_0_ff_net_2": (5120, 1280),
    "lora_unet_output_blocks_0_1_proj_in": (1280, 1280),
    "lora_unet_output_blocks_5_1_transformer_blocks_1_attn1_to_out_0": (640, 640),
    "lora_unet_input_blocks_1_0_in_layers_2": (320, 320, 3),
    "lora_unet_input_blocks_4_0_skip_connection": (320, 640, 1),
    "lora_unet_input_blocks_3_0_op": (320, 320, 3),
    "lora_unet_output_blocks_2_2_conv": (1280, 1280, 3),
    "lora_unet_output_blocks_8_0_skip_connection": (640, 320, 1),
}


def test_the_shapes_stand_under_the_right_names() -> None:
    state_dict = kohya_state_dict(rank_one(unet(), "unet", TARGETS[-1]), "fp32", SDXL_BASE_LAYOUT)
    for stem, (inputs, outputs, *kernel) in SHAPES.items():
        assert state_dict[f"{stem}.lora_down.weight"].shape == (1, inputs, *kernel * 2), stem
        assert state_dict[f"{stem}.lora_up.weight"].shape == (outputs, 1, *[1, 1] * len(kernel)), stem


def test_the_first_layers_outside_the_blocks() -> None:
    paths = ["conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2", "add_embedding.linear_1",
             "add_embedding.linear_2"]  # fmt: skip
    names = ["input_blocks_0_0", "out_2", "time_embed_0", "time_embed_2", "label_emb_0_0", "label_emb_0_2"]
    for path, name in zip(paths, names, strict=True):
        module = LoraModule("unet", path, torch.zeros(1, 4), torch.zeros(4, 1), 1.0)
        assert stems(kohya_state_dict([module], "fp32", SDXL_BASE_LAYOUT)) == {f"lora_unet_{name}"}
        assert module_of_stem(f"lora_unet_{name}", SDXL_BASE_LAYOUT) == ("unet", path)
