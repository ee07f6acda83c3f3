"""A tiny SDXL in diffusers' own classes, and trained-looking adapters for it."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from finetune.adapters.targets import target_paths
from finetune.adapters.weights import LoraModule
from finetune.naming.components import Component
from finetune.naming.keys import UNetLayout
from finetune.naming.structure import ModelStructure, TextStructure, UNetStructure

MakePipeline = Callable[..., StableDiffusionXLPipeline]
MakeModules = Callable[..., list[LoraModule]]
StructureOf = Callable[[StableDiffusionXLPipeline], ModelStructure]


@pytest.fixture
def make_pipeline() -> MakePipeline:
    """Return a function that builds the same small pipeline each time, without VAE and tokenizers."""

    def make(layers_per_block: int = 2) -> StableDiffusionXLPipeline:
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(32, 64, 96),
            layers_per_block=layers_per_block,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 1, 2),
            attention_head_dim=(2, 4, 6),
            cross_attention_dim=48,
            norm_num_groups=16,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=32 + 6 * 8,
        )
        common = {"num_attention_heads": 2, "intermediate_size": 40, "vocab_size": 64, "max_position_embeddings": 77}
        first = CLIPTextConfig(hidden_size=16, num_hidden_layers=2, **common)
        second = CLIPTextConfig(hidden_size=32, projection_dim=32, num_hidden_layers=3, **common)
        return StableDiffusionXLPipeline(
            vae=None,
            text_encoder=CLIPTextModel(first).eval(),
            text_encoder_2=CLIPTextModelWithProjection(second).eval(),
            tokenizer=None,
            tokenizer_2=None,
            unet=unet.eval(),
            scheduler=EulerDiscreteScheduler(),
        )

    return make


@pytest.fixture
def make_modules() -> MakeModules:
    """Return a function that invents a trained adapter for a pipeline."""

    def make(
        pipeline: StableDiffusionXLPipeline,
        targets: str | Sequence[str] = "attention+feedforward+convolutions",
        components: Sequence[Component] = ("unet", "text_encoder", "text_encoder_2"),
        rank: int = 4,
        alpha: float = 2.0,
        use_rslora: bool = False,
        use_dora: bool = False,
    ) -> list[LoraModule]:
        generator = torch.Generator().manual_seed(1)
        modules: list[LoraModule] = []
        for index, component in enumerate(components):
            model = getattr(pipeline, component)
            own_rank, own_alpha = rank + index, alpha * (index + 1)
            words = targets if component == "unet" else "attention+feedforward"
            for path in target_paths(model, component, words):
                weight = model.get_submodule(path).weight
                kernel = weight.shape[2:]
                down = torch.randn(own_rank, weight.shape[1], *kernel, generator=generator) * 0.2
                up = torch.randn(weight.shape[0], own_rank, *[1] * len(kernel), generator=generator) * 0.2
                scale = own_alpha / (math.sqrt(own_rank) if use_rslora else own_rank)
                name = path if component == "unet" else "text_model." + path.removeprefix("text_model.")
                magnitude = None
                if use_dora:
                    norms = weight.detach().flatten(1).norm(dim=1)
                    magnitude = norms * (0.5 + torch.rand(norms.shape, generator=generator))
                modules.append(LoraModule(component, name, down, up, scale, magnitude))
        return modules

    return make


@pytest.fixture
def layout() -> UNetLayout:
    """Return the layout of the pipeline with two resnets a block, which is SDXL's."""
    return UNetLayout(down_layers=(2, 2, 2), up_layers=(2, 2, 2), up_attention=(True, True, False))


@pytest.fixture
def structure_of() -> StructureOf:
    """Return a function that tells a pipeline's structure from its configurations."""

    def tell(pipeline: StableDiffusionXLPipeline) -> ModelStructure:
        return ModelStructure(
            UNetStructure.from_config(pipeline.unet.config),
            TextStructure.from_config(pipeline.text_encoder.config.to_dict(), projected=False),
            TextStructure.from_config(pipeline.text_encoder_2.config.to_dict(), projected=True),
        )

    return tell
