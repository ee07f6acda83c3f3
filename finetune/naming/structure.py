"""Every Linear and convolution of a model with the shape of its weight, from a few numbers: no model is built.

Paths are diffusers' (U-Net) and transformers' (encoders), the encoders' always beginning with `text_model.`. The rules
follow from the classes `UNet2DConditionModel` (blocks with and without cross-attention, linear projections) and
`CLIPTextModel`, which SDXL's base, refiner and miniature are built from; a test holds them against those classes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from finetune.naming.components import Component
from finetune.naming.keys import UNetLayout

Shape = tuple[int, ...]


@dataclass(frozen=True)
class UNetStructure:
    """A U-Net, as far as the names and shapes of its weights depend on it.

    Attributes:
        channels: of each stage, the full resolution first (diffusers' `block_out_channels`).
        layers: resnets in each down block; an up block has one more.
        down_attention, up_attention: whether each block has attentions, in the order of the blocks.
        transformer_layers: transformer blocks in an attention of each stage.
        middle_transformer_layers: those of the middle.
        text_width: of the text states that cross-attention reads.
        condition_width: of the pooled text and the embedded sizes, joined.
        in_channels, out_channels: of the latents.
    """

    channels: tuple[int, ...]
    layers: tuple[int, ...]
    down_attention: tuple[bool, ...]
    up_attention: tuple[bool, ...]
    transformer_layers: tuple[int, ...]
    middle_transformer_layers: int
    text_width: int
    condition_width: int
    in_channels: int = 4
    out_channels: int = 4

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "UNetStructure":
        """Read the structure from a diffusers U-Net's `config`."""
        channels = tuple(config["block_out_channels"])
        transformers = _each(config.get("transformer_layers_per_block", 1), len(channels))
        return cls(
            channels=channels,
            layers=_each(config["layers_per_block"], len(channels)),
            down_attention=tuple("Attn" in kind for kind in config["down_block_types"]),
            up_attention=tuple("Attn" in kind for kind in config["up_block_types"]),
            transformer_layers=transformers,
            middle_transformer_layers=transformers[-1],
            text_width=config["cross_attention_dim"],
            condition_width=config["projection_class_embeddings_input_dim"],
            in_channels=config.get("in_channels", 4),
            out_channels=config.get("out_channels", 4),
        )

    @property
    def layout(self) -> UNetLayout:
        """The part of it that names in the original layout depend on."""
        return UNetLayout(self.layers, tuple(reversed(self.layers)), self.up_attention)

    def weights(self) -> Iterator[tuple[str, Shape]]:
        """Yield path and weight shape, (out, in) or (out, in, height, width)."""
        first, embedding = self.channels[0], 4 * self.channels[0]
        yield "conv_in", (first, self.in_channels, 3, 3)
        yield "time_embedding.linear_1", (embedding, first)
        yield "time_embedding.linear_2", (embedding, embedding)
        yield "add_embedding.linear_1", (embedding, self.condition_width)
        yield "add_embedding.linear_2", (embedding, embedding)
        skips = [first]
        width = first
        last = len(self.channels) - 1
        for block, out in enumerate(self.channels):
            for layer in range(self.layers[block]):
                place = f"down_blocks.{block}"
                yield from self._resnet(f"{place}.resnets.{layer}", width, out)
                if self.down_attention[block]:
                    yield from self._transformer(f"{place}.attentions.{layer}", out, self.transformer_layers[block])
                width = out
                skips.append(out)
            if block < last:
                yield f"down_blocks.{block}.downsamplers.0.conv", (out, out, 3, 3)
                skips.append(out)
        yield from self._resnet("mid_block.resnets.0", width, width)
        yield from self._transformer("mid_block.attentions.0", width, self.middle_transformer_layers)
        yield from self._resnet("mid_block.resnets.1", width, width)
        for block, (out, stage) in enumerate(zip(reversed(self.channels), reversed(range(last + 1)), strict=True)):
            place = f"up_blocks.{block}"
            for layer in range(self.layers[stage] + 1):
                yield from self._resnet(f"{place}.resnets.{layer}", width + skips.pop(), out)
                if self.up_attention[block]:
                    yield from self._transformer(f"{place}.attentions.{layer}", out, self.transformer_layers[stage])
                width = out
            if block < last:
                yield f"{place}.upsamplers.0.conv", (out, out, 3, 3)
        yield "conv_out", (self.out_channels, first, 3, 3)

    def _resnet(self, place: str, width: int, out: int) -> Iterator[tuple[str, Shape]]:
        yield f"{place}.conv1", (out, width, 3, 3)
        yield f"{place}.time_emb_proj", (out, 4 * self.channels[0])
        yield f"{place}.conv2", (out, out, 3, 3)
        if width != out:
            yield f"{place}.conv_shortcut", (out, width, 1, 1)

    def _transformer(self, place: str, width: int, depth: int) -> Iterator[tuple[str, Shape]]:
        yield f"{place}.proj_in", (width, width)
        for index in range(depth):
            block = f"{place}.transformer_blocks.{index}"
            for attention, source in (("attn1", width), ("attn2", self.text_width)):
                yield f"{block}.{attention}.to_q", (width, width)
                yield f"{block}.{attention}.to_k", (width, source)
                yield f"{block}.{attention}.to_v", (width, source)
                yield f"{block}.{attention}.to_out.0", (width, width)
            yield f"{block}.ff.net.0.proj", (8 * width, width)
            yield f"{block}.ff.net.2", (width, 4 * width)
        yield f"{place}.proj_out", (width, width)


@dataclass(frozen=True)
class TextStructure:
    """A CLIP text encoder.

    Attributes:
        width: of its hidden states.
        inner_width: between the two layers of a feed-forward part.
        layers: how many it has.
        projection_width: of the pooled embedding; None where it is not projected (the first encoder).
    """

    width: int
    inner_width: int
    layers: int
    projection_width: int | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, projected: bool) -> "TextStructure":
        """Read the structure from transformers' `config`; `projected` for `CLIPTextModelWithProjection`."""
        return cls(
            width=config["hidden_size"],
            inner_width=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            projection_width=config["projection_dim"] if projected else None,
        )

    def weights(self) -> Iterator[tuple[str, Shape]]:
        """Yield path and weight shape of every Linear."""
        for layer in range(self.layers):
            place = f"text_model.encoder.layers.{layer}"
            for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
                yield f"{place}.self_attn.{name}", (self.width, self.width)
            yield f"{place}.mlp.fc1", (self.inner_width, self.width)
            yield f"{place}.mlp.fc2", (self.width, self.inner_width)
        if self.projection_width is not None:
            yield "text_projection", (self.projection_width, self.width)


@dataclass(frozen=True)
class ModelStructure:
    """The three models of SDXL; a refiner has no first encoder."""

    unet: UNetStructure
    text_encoder: TextStructure | None
    text_encoder_2: TextStructure

    @cached_property
    def weights(self) -> Mapping[tuple[Component, str], Shape]:
        """The shape of each Linear's and convolution's weight, by component and path, U-Net first."""
        shapes: dict[tuple[Component, str], Shape] = {("unet", path): shape for path, shape in self.unet.weights()}
        if self.text_encoder is not None:
            shapes |= {("text_encoder", path): shape for path, shape in self.text_encoder.weights()}
        return shapes | {("text_encoder_2", path): shape for path, shape in self.text_encoder_2.weights()}


def _each(value: int | list[int] | tuple[int, ...], count: int) -> tuple[int, ...]:
    return (value,) * count if isinstance(value, int) else tuple(value)


_VIT_L = TextStructure(width=768, inner_width=3072, layers=12)
_VIT_BIG_G = TextStructure(width=1280, inner_width=5120, layers=32, projection_width=1280)

# Podell et al. 2023 (arXiv 2307.01952), table 1, and the published configurations.
SDXL_BASE = ModelStructure(
    UNetStructure(
        channels=(320, 640, 1280),
        layers=(2, 2, 2),
        down_attention=(False, True, True),
        up_attention=(True, True, False),
        transformer_layers=(1, 2, 10),
        middle_transformer_layers=10,
        text_width=2048,
        condition_width=2816,
    ),
    _VIT_L,
    _VIT_BIG_G,
)
SDXL_REFINER = ModelStructure(
    UNetStructure(
        channels=(384, 768, 1536, 1536),
        layers=(2, 2, 2, 2),
        down_attention=(False, True, True, False),
        up_attention=(False, True, True, False),
        transformer_layers=(4, 4, 4, 4),
        middle_transformer_layers=4,
        text_width=1280,
        condition_width=2560,
    ),
    None,
    _VIT_BIG_G,
)
