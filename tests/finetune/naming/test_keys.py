"""Names of U-Nets of other shapes: the refiner's four stages, a miniature's one resnet a block."""

import pytest

from finetune.errors import AtelierError
from finetune.naming.keys import SDXL_BASE_LAYOUT, UNetLayout, kohya_stem, module_of_stem, sgm_path

# Four stages; the outer ones have no attention, so the first up block's upsampler stands second (Podell et al. 2023).
REFINER = UNetLayout.from_config(
    {
        "layers_per_block": 2,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    }
)
MINIATURE = UNetLayout.from_config(
    {
        "layers_per_block": 1,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    }
)

NAMES = [
    (REFINER, "down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
    (REFINER, "down_blocks.3.resnets.0.conv1", "input_blocks.10.0.in_layers.2"),
    (REFINER, "down_blocks.3.resnets.1.conv2", "input_blocks.11.0.out_layers.3"),
    (REFINER, "down_blocks.1.attentions.0.transformer_blocks.3.attn2.to_k",
     "input_blocks.4.1.transformer_blocks.3.attn2.to_k"),
    (REFINER, "up_blocks.0.upsamplers.0.conv", "output_blocks.2.1.conv"),
    (REFINER, "up_blocks.1.upsamplers.0.conv", "output_blocks.5.2.conv"),
    (REFINER, "up_blocks.3.resnets.2.conv_shortcut", "output_blocks.11.0.skip_connection"),
    (MINIATURE, "conv_in", "input_blocks.0.0"),
    (MINIATURE, "down_blocks.0.resnets.0.time_emb_proj", "input_blocks.1.0.emb_layers.1"),
    (MINIATURE, "down_blocks.0.downsamplers.0.conv", "input_blocks.2.0.op"),
    (MINIATURE, "down_blocks.2.attentions.0.transformer_blocks.1.ff.net.0.proj",
     "input_blocks.5.1.transformer_blocks.1.ff.net.0.proj"),
    (MINIATURE, "mid_block.resnets.1.conv1", "middle_block.2.in_layers.2"),
    (MINIATURE, "mid_block.attentions.0.proj_out", "middle_block.1.proj_out"),
    (MINIATURE, "up_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0",
     "output_blocks.1.1.transformer_blocks.0.attn1.to_out.0"),
    (MINIATURE, "up_blocks.0.upsamplers.0.conv", "output_blocks.1.2.conv"),
    (MINIATURE, "up_blocks.2.resnets.1.conv1", "output_blocks.5.0.in_layers.2"),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "module", "expected"), NAMES)
def test_names_follow_the_block_structure(layout: UNetLayout, module: str, expected: str) -> None:
    assert sgm_path(module, layout) == expected
    stem = kohya_stem("unet", module, layout)
    assert stem == "lora_unet_" + expected.replace(".", "_")
    assert module_of_stem(stem, layout) == ("unet", module)


def test_blocks_may_differ_in_their_number_of_resnets() -> None:
    config = {"down_block_types": ["D"] * 3, "up_block_types": ["CrossAttnUp"] * 3, "layers_per_block": [1, 2, 3]}
    layout = UNetLayout.from_config(config)
    assert sgm_path("down_blocks.2.resnets.0.conv1", layout) == "input_blocks.6.0.in_layers.2"
    assert sgm_path("up_blocks.1.resnets.0.conv1", layout) == "output_blocks.4.0.in_layers.2"  # 3 + 1 resnets before


@pytest.mark.parametrize(
    "module", ["down_blocks.0.resnets.0.norm1", "encoder_hid_proj", "mid_block.resnets.2.conv1", "up_blocks.0.conv"]
)
def test_a_module_without_an_original_name_is_refused(module: str) -> None:
    with pytest.raises(AtelierError, match=r"no name in the original layout.*adapter\.unet\.targets"):
        sgm_path(module, SDXL_BASE_LAYOUT)


@pytest.mark.parametrize(
    "stem",
    [
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_w",
        "lora_unet_input_blocks_4_0_transformer_blocks_0_attn1_to_q",
        "lora_unet_input_blocks_99_1_proj_in_x",
        "lora_unet_output_blocks_3_1_conv",
        "lora_unet_input_blocks_0_1_proj_in",
        "lora_unet_down_blocks_1_attentions_0_proj_in",
        "lora_te1_text_model_encoder_layers_x_mlp_fc1",
        "lora_te2_text_model_encoder_layers_0_mlp_fc3",
        "lora_te3_text_model_encoder_layers_0_mlp_fc1",
        "unet.down_blocks.1",
        "../../x",
        "",
    ],
)
def test_a_stem_of_no_module_is_refused(stem: str) -> None:
    with pytest.raises(AtelierError, match="the name of no module"):
        module_of_stem(stem, SDXL_BASE_LAYOUT)
