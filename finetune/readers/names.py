"""The modules of a model under the names the readers give them, made by building the lists as their classes do.

`UNetModel.__init__` (Stability-AI/generative-models, sgm/modules/diffusionmodules/openaimodel.py) appends to
`input_blocks` and `output_blocks` one by one; the walk here appends the same way and counts. `UNet2DConditionModel` of
diffusers holds the same modules in the same order, block by block, so each is named twice as it is met. No rule here
computes an index from another one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from finetune.naming.components import Component
from finetune.naming.structure import ModelStructure, Shape, TextStructure, UNetStructure

Module = tuple[Component, str]
"""A module: its component and its path in diffusers' and transformers' naming, encoders from `text_model.` on."""

_RESNET = (
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
)
# A layer and the norm before it, in the original layout; the same in diffusers.
_NORMS = (
    ("in_layers.2", "in_layers.0", "conv1", "norm1"),
    ("out_layers.3", "out_layers.0", "conv2", "norm2"),
    ("proj_in", "norm", "proj_in", "norm"),
    ("attn1.to_q", "norm1", "attn1.to_q", "norm1"),
    ("attn2.to_q", "norm2", "attn2.to_q", "norm2"),
    ("ff.net.0.proj", "norm3", "ff.net.0.proj", "norm3"),
    ("out.2", "out.0", "conv_out", "conv_norm_out"),
)
_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_TEXT_LAYER = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")


@dataclass(frozen=True)
class ModelNames:
    """A model's modules and what they are called.

    Attributes:
        structure: the model.
    """

    structure: ModelStructure

    @cached_property
    def shapes(self) -> Mapping[Module, Shape]:
        """The shape of each module's weight."""
        return self.structure.weights

    @cached_property
    def original(self) -> Mapping[str, str]:
        """The U-Net's modules in the original layout, dotted, and the paths they have in diffusers."""
        known = {path for component, path in self.shapes if component == "unet"}
        return {name: path for name, path in walk_unet(self.structure.unet) if path in known}

    @cached_property
    def norms(self) -> Mapping[str, str]:
        """The U-Net's norms in the original layout, dotted, and the paths they have in diffusers."""
        return dict(_walk_norms(self.original))

    @cached_property
    def unet_paths(self) -> tuple[str, ...]:
        """The U-Net's modules as diffusers names them."""
        return tuple(path for component, path in self.shapes if component == "unet")

    @property
    def encoders(self) -> Mapping[Component, TextStructure]:
        """The text encoders the model has."""
        first = self.structure.text_encoder
        both: dict[Component, TextStructure] = {} if first is None else {"text_encoder": first}
        return both | {"text_encoder_2": self.structure.text_encoder_2}

    def text_paths(self, component: Component) -> Iterator[str]:
        """Yield the paths of an encoder's layers, from `text_model.` on, without the projection behind them."""
        encoder = self.encoders.get(component)
        for layer in range(encoder.layers if encoder else 0):
            for name in _TEXT_LAYER:
                yield f"text_model.encoder.layers.{layer}.{name}"


@lru_cache(maxsize=8)
def names_of(structure: ModelStructure) -> ModelNames:
    """Return a model's names; those of the last few models are kept, as every file asks for the same ones."""
    return ModelNames(structure)


def underscored(path: str) -> str:
    """Write a path as the names of kohya's files hold it."""
    return path.replace(".", "_")


def walk_unet(unet: UNetStructure) -> Iterator[tuple[str, str]]:
    """Yield (original name, diffusers' path) of every Linear and convolution that a U-Net of this kind can have.

    A resnet's `skip_connection` is yielded for each; whether it is a convolution or nothing depends on widths.
    """
    yield "time_embed.0", "time_embedding.linear_1"
    yield "time_embed.2", "time_embedding.linear_2"
    yield "label_emb.0.0", "add_embedding.linear_1"
    yield "label_emb.0.2", "add_embedding.linear_2"
    yield "input_blocks.0.0", "conv_in"
    num_levels = len(unet.channels)
    index = 1
    for level in range(num_levels):
        for layer in range(unet.layers[level]):
            yield from _resnet(f"input_blocks.{index}.0", f"down_blocks.{level}.resnets.{layer}")
            if unet.down_attention[level]:
                depth = unet.transformer_layers[level]
                yield from _transformer(f"input_blocks.{index}.1", f"down_blocks.{level}.attentions.{layer}", depth)
            index += 1
        if level != num_levels - 1:
            yield f"input_blocks.{index}.0.op", f"down_blocks.{level}.downsamplers.0.conv"
            index += 1
    yield from _resnet("middle_block.0", "mid_block.resnets.0")
    yield from _transformer("middle_block.1", "mid_block.attentions.0", unet.middle_transformer_layers)
    yield from _resnet("middle_block.2", "mid_block.resnets.1")
    index = 0
    for block, level in enumerate(reversed(range(num_levels))):
        for layer in range(unet.layers[level] + 1):
            parts = 1
            yield from _resnet(f"output_blocks.{index}.0", f"up_blocks.{block}.resnets.{layer}")
            if unet.up_attention[block]:
                depth = unet.transformer_layers[level]
                yield from _transformer(f"output_blocks.{index}.1", f"up_blocks.{block}.attentions.{layer}", depth)
                parts += 1
            if level and layer == unet.layers[level]:
                yield f"output_blocks.{index}.{parts}.conv", f"up_blocks.{block}.upsamplers.0.conv"
            index += 1
    yield "out.2", "conv_out"


def _walk_norms(layers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield (original name, diffusers' path) of each norm, told by the layer that stands behind it."""
    for original, path in layers.items():
        for layer, norm, other, other_norm in _NORMS:
            if original.endswith(layer) and path.endswith(other):
                yield original.removesuffix(layer) + norm, path.removesuffix(other) + other_norm


def _resnet(original: str, path: str) -> Iterator[tuple[str, str]]:
    for name, other in _RESNET:
        yield f"{original}.{name}", f"{path}.{other}"


def _transformer(original: str, path: str, depth: int) -> Iterator[tuple[str, str]]:
    inner = ["proj_in"]
    for block in range(depth):
        inner += [
            f"transformer_blocks.{block}.{attention}.{name}" for attention in ("attn1", "attn2") for name in _ATTENTION
        ]
        inner += [f"transformer_blocks.{block}.ff.net.0.proj", f"transformer_blocks.{block}.ff.net.2"]
    for name in [*inner, "proj_out"]:
        yield f"{original}.{name}", f"{path}.{name}"
