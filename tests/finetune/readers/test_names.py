"""The readers' names of modules: against diffusers' and transformers' classes, our mapping, a written-out table."""

from functools import cache

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from finetune.naming.keys import kohya_stem
from finetune.naming.structure import SDXL_BASE, SDXL_REFINER, ModelStructure, TextStructure, UNetStructure
from finetune.readers.a1111 import a1111_names
from finetune.readers.comfyui import comfyui_names
from finetune.readers.diffusers_kohya import diffusers_path
from finetune.readers.invokeai import invokeai_names
from finetune.readers.kohya import kohya_names
from finetune.readers.names import ModelNames, underscored

BASE, REFINER = ModelNames(SDXL_BASE), ModelNames(SDXL_REFINER)

# Block with attention → its number of transformer blocks, in the original layout of the base.
TRANSFORMERS = {
    **dict.fromkeys(("input_blocks.4.1", "input_blocks.5.1"), 2),
    **dict.fromkeys(("input_blocks.7.1", "input_blocks.8.1", "middle_block.1"), 10),
    **dict.fromkeys(("output_blocks.0.1", "output_blocks.1.1", "output_blocks.2.1"), 10),
    **dict.fromkeys(("output_blocks.3.1", "output_blocks.4.1", "output_blocks.5.1"), 2),
}
RESNETS = (
    *(f"input_blocks.{index}.0" for index in (1, 2, 4, 5, 7, 8)),
    *("middle_block.0", "middle_block.2"),
    *(f"output_blocks.{index}.0" for index in range(9)),
)
SKIPS = ("input_blocks.4.0", "input_blocks.7.0", *(f"output_blocks.{index}.0" for index in range(9)))
SAMPLERS = ("input_blocks.3.0.op", "input_blocks.6.0.op", "output_blocks.2.2.conv", "output_blocks.5.2.conv")
OUTSIDE = ("input_blocks.0.0", "out.2", "time_embed.0", "time_embed.2", "label_emb.0.0", "label_emb.0.2")


def written_out() -> set[str]:
    names = {*SAMPLERS, *OUTSIDE, *(f"{resnet}.skip_connection" for resnet in SKIPS)}
    names |= {f"{resnet}.{part}" for resnet in RESNETS for part in ("in_layers.2", "emb_layers.1", "out_layers.3")}
    for block, depth in TRANSFORMERS.items():
        names |= {f"{block}.proj_in", f"{block}.proj_out"}
        for index in range(depth):
            inside = f"{block}.transformer_blocks.{index}"
            names |= {f"{inside}.attn{number}.to_{part}" for number in (1, 2) for part in ("q", "k", "v", "out.0")}
            names |= {f"{inside}.ff.net.0.proj", f"{inside}.ff.net.2"}
    return names


@cache
def unet(is_refiner: bool) -> nn.Module:
    kinds = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")[: 4 if is_refiner else 3]
    with torch.device("meta"):
        return UNet2DConditionModel(
            block_out_channels=(384, 768, 1536, 1536) if is_refiner else (320, 640, 1280),
            down_block_types=kinds,
            up_block_types=tuple(kind.replace("Down", "Up") for kind in reversed(kinds)),
            transformer_layers_per_block=4 if is_refiner else (1, 2, 10),
            attention_head_dim=(6, 12, 24, 24) if is_refiner else (5, 10, 20),
            cross_attention_dim=1280 if is_refiner else 2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2560 if is_refiner else 2816,
        )


def layers(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {
        path: tuple(module.weight.shape)
        for path, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    }


def test_the_original_names_are_those_written_out() -> None:
    assert set(BASE.original) == written_out()
    assert len(BASE.original) == 794


@pytest.mark.parametrize("is_refiner", [False, True])
def test_every_layer_of_the_real_class_has_one_name_and_our_own_mapping_agrees(is_refiner: bool) -> None:
    names = REFINER if is_refiner else BASE
    real = layers(unet(is_refiner))
    back = {path: original for original, path in names.original.items()}
    assert len(back) == len(names.original) == len(real)
    assert {path: names.shapes["unet", path] for path in back} == real
    layout = names.structure.unet.layout
    assert {f"lora_unet_{underscored(name)}": path for name, path in names.original.items()} == {
        kohya_stem("unet", path, layout): path for path in real
    }


def test_the_norms_are_those_of_the_real_class() -> None:
    kinds = (nn.GroupNorm, nn.LayerNorm)
    assert set(BASE.norms.values()) == {path for path, layer in unet(False).named_modules() if isinstance(layer, kinds)}
    assert BASE.norms["input_blocks.4.1.norm"] == "down_blocks.1.attentions.0.norm"
    assert len(BASE.norms) == len(set(BASE.norms.values())) == 70 * 3 + 11 + 17 * 2 + 1


def test_the_encoders_layers_are_those_of_the_real_class() -> None:
    with torch.device("meta"):
        model = CLIPTextModelWithProjection(
            CLIPTextConfig(hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20)
        )
    real = set(layers(model)) - {"text_projection"}
    assert set(BASE.text_paths("text_encoder_2")) == real
    assert len(set(BASE.text_paths("text_encoder"))) == 72


def test_what_the_readers_tables_hold_of_the_base() -> None:
    """Each knows the 788 layers inside the blocks under the original names, and both encoders."""
    inside = {f"lora_unet_{underscored(name)}" for name in BASE.original if name not in OUTSIDE}
    assert len(inside) == 788
    for table in (comfyui_names, a1111_names, invokeai_names, kohya_names):
        known = table(BASE)
        assert inside <= set(known), table.__name__
        assert {known[stem][1] for stem in inside} == {
            BASE.original[name] for name in BASE.original if name not in OUTSIDE
        }
        assert sum(stem.startswith("lora_te1_") for stem in known) == 72
        assert sum(stem.startswith("lora_te2_text_model") for stem in known) == 192
    assert {diffusers_path(stem, BASE) for stem in inside} == {kohya_names(BASE)[stem][1] for stem in inside}


def test_what_single_readers_lack() -> None:
    """Each line is a trait of one program, read in its source."""
    assert "lora_unet_time_embed_0" in comfyui_names(BASE)
    assert "lora_unet_time_embed_0" not in kohya_names(BASE)
    # Today's names of diffusers: ComfyUI knows them only where no `to_` is in them.
    assert "unet.mid_block.attentions.0.proj_in" in comfyui_names(BASE)
    inner = "mid_block.attentions.0.transformer_blocks.0.attn1"
    assert f"unet.{inner}.to_q" not in comfyui_names(BASE)
    assert comfyui_names(BASE)[f"unet.{inner}.processor.to_out"] == ("unet", f"{inner}.to_out.0")
    # The refiner's encoder goes by the first one's names in ComfyUI.
    layer = "text_model_encoder_layers_0_mlp_fc1"
    assert f"lora_te2_{layer}" in comfyui_names(BASE)
    assert f"lora_te2_{layer}" not in comfyui_names(REFINER)
    assert comfyui_names(REFINER)[f"lora_te_{layer}"][0] == "text_encoder_2"
    # A1111 looks for the first upsampler, by diffusers' name, where SD 1 has it.
    assert "lora_unet_up_blocks_0_upsamplers_0_conv" not in a1111_names(BASE)
    assert "lora_unet_up_blocks_1_upsamplers_0_conv" in a1111_names(BASE)


def test_a_small_model_of_another_build() -> None:
    small = UNetStructure((32, 64), (1, 1), (False, True), (True, False), (1, 1), 1, 32, 64)
    names = ModelNames(ModelStructure(small, None, TextStructure(16, 32, 2)))
    assert names.original["output_blocks.1.2.conv"] == "up_blocks.0.upsamplers.0.conv"
    assert names.original["input_blocks.3.1.proj_in"] == "down_blocks.1.attentions.0.proj_in"
    assert set(names.original.values()) == set(names.unet_paths)
