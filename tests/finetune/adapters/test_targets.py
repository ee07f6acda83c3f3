"""Words and patterns against the miniature, and the counts on the real SDXL's shape."""

import math

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from finetune.adapters.targets import target_paths
from finetune.errors import RecipeError


@pytest.fixture(scope="module")
def real():
    """Return SDXL's U-Net and encoders in their real shapes, without weights."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=128,
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )
        first = CLIPTextModel(
            CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
        )
        second = CLIPTextModelWithProjection(
            CLIPTextConfig(
                hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20,
                projection_dim=1280, hidden_act="gelu",
            )
        )  # fmt: skip
    return {"unet": unet, "text_encoder": first, "text_encoder_2": second}


def test_the_real_shape_is_sdxls(real):
    assert sum(parameter.numel() for parameter in real["unet"].parameters()) == 2_567_463_684


@pytest.mark.parametrize(
    ("component", "targets", "count", "parameters_per_rank"),
    [
        ("unet", "attention", 560, 1_451_520),
        ("unet", "attention+feedforward", 722, 2_659_840),
        ("unet", "attention+feedforward+convolutions", 788, None),
        ("text_encoder", "attention", 48, None),
        ("text_encoder", "attention+feedforward", 72, 165_888),
        ("text_encoder_2", "attention", 128, None),
        ("text_encoder_2", "attention+feedforward", 192, 737_280),
    ],
)
def test_counts_on_the_real_shape(real, component, targets, count, parameters_per_rank):
    model = real[component]
    paths = target_paths(model, component, targets)
    assert len(paths) == len(set(paths)) == count
    if parameters_per_rank is not None:
        weights = [model.get_submodule(path).weight for path in paths]
        assert sum(weight.shape[0] + math.prod(weight.shape[1:]) for weight in weights) == parameters_per_rank


def test_convolutions_leave_out_what_is_not_in_a_block(real):
    added = set(target_paths(real["unet"], "unet", "attention+feedforward+convolutions")) - set(
        target_paths(real["unet"], "unet", "attention+feedforward")
    )
    assert len(added) == 66
    assert not {"conv_in", "conv_out", "time_embedding.linear_1", "add_embedding.linear_1"} & added
    assert {"down_blocks.0.downsamplers.0.conv", "up_blocks.2.resnets.1.conv_shortcut"} <= added


class Toy(nn.Module):
    """Paths that look alike at their ends."""

    def __init__(self):
        super().__init__()
        self.block = nn.ModuleDict({"to_q": nn.Linear(2, 2), "not_to_q": nn.Linear(2, 2), "norm": nn.LayerNorm(2)})
        self.other = nn.ModuleDict({"to_q": nn.Linear(2, 2), "conv": nn.Conv2d(2, 2, 1)})


@pytest.mark.parametrize(
    ("patterns", "paths"),
    [
        (["to_q"], ["block.to_q", "other.to_q"]),  # an end after a dot, not any end
        (["block.to_q"], ["block.to_q"]),
        (["other.*"], ["other.to_q", "other.conv"]),
        (["*to_q"], ["block.to_q", "block.not_to_q", "other.to_q"]),
        (["other.conv", "block.to_q", "to_q"], ["block.to_q", "other.to_q", "other.conv"]),  # once, in model order
    ],
)
def test_patterns(patterns, paths):
    assert target_paths(Toy(), "unet", patterns) == paths


@pytest.mark.parametrize(
    ("pattern", "nearest"), [("to_qq", "to_q"), ("block.to_k", "block.to_q"), ("norm", "conv"), ("", "to_q")]
)
def test_a_pattern_without_a_match_names_the_nearest(pattern, nearest):
    with pytest.raises(RecipeError) as caught:
        target_paths(Toy(), "unet", ["to_q", pattern])
    message = str(caught.value)
    assert message.startswith(f"adapter.unet.targets: {pattern!r} matches no Linear or convolution of the unet.")
    assert "See: atelier recipes schema" in message
    if pattern and pattern != "norm":
        assert f"Nearest: {nearest!r}." in message


def test_words_on_the_miniature_mean_the_same_kinds_of_modules(load):
    unet = load()
    attention = target_paths(unet, "unet", "attention")
    assert {path.rpartition("attn")[2][2:] for path in attention} == {"to_q", "to_k", "to_v", "to_out.0"}
    feedforward = set(target_paths(unet, "unet", "attention+feedforward")) - set(attention)
    endings = {path.partition("transformer_blocks.")[2][2:] or path.rpartition(".")[2] for path in feedforward}
    assert endings == {"ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"}
