"""Names of modules in the two dialects: diffusers' paths, and the original (sgm) layout that kohya's files use.

The U-Net of SDXL was published as one list of input blocks, a middle block and one list of output blocks
(`UNetModel` of Stability-AI/generative-models); diffusers groups the same modules by resolution. The rules follow from
that and from the block structure alone, so they hold for the base, the refiner and a miniature. With L resnets in a
down block, each stage fills L + 1 input blocks (its last one the downsampler), and each up block L + 1 output blocks.
Nothing here touches tensors.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune.errors import AtelierError
from finetune.naming.components import Component

STEM_PREFIXES: dict[Component, str] = {
    "unet": "lora_unet_",
    "text_encoder": "lora_te1_",
    "text_encoder_2": "lora_te2_",
}

# Inside a resnet, diffusers' names and the original's.
_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}

# Modules outside the three lists of blocks.
_OUTER = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}

_BLOCK = re.compile(
    r"(?P<side>down|up)_blocks\.(?P<block>\d+)\.(?P<kind>resnets|attentions|downsamplers|upsamplers)\.(?P<layer>\d+)"
    r"\.(?P<rest>.+)"
)
_MIDDLE = re.compile(r"mid_block\.(?P<kind>resnets|attentions)\.(?P<layer>[01])\.(?P<rest>.+)")

# The same, from an underscored stem. Underscores also stand inside names, so the names are listed.
_TRANSFORMER_STEM = re.compile(
    r"proj_in|proj_out|transformer_blocks_\d+_(?:attn[12]_to_(?:q|k|v|out_0)|ff_net_(?:0_proj|2))"
)
_TEXT_STEM = re.compile(
    r"text_model_encoder_layers_(?P<layer>\d+)_(?P<name>self_attn_(?:q|k|v|out)_proj|mlp_fc[12])|text_projection"
)
_SGM_STEM = re.compile(r"(?P<list>input_blocks|output_blocks)_(?P<index>\d+)_(?P<part>\d+)_(?P<rest>.+)")
_SGM_MIDDLE_STEM = re.compile(r"middle_block_(?P<part>[012])_(?P<rest>.+)")


@dataclass(frozen=True)
class UNetLayout:
    """The block structure of a U-Net, as far as names depend on it.

    Attributes:
        down_layers: resnets in each down block.
        up_layers: one less than the resnets in each up block (diffusers' `layers_per_block`, in the up blocks' order).
        up_attention: whether each up block has attentions; its upsampler stands behind them.
    """

    down_layers: tuple[int, ...]
    up_layers: tuple[int, ...]
    up_attention: tuple[bool, ...]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "UNetLayout":
        """Read the structure from a diffusers U-Net's `config`."""
        num_blocks = len(config["down_block_types"])
        layers = config["layers_per_block"]
        down_layers = (layers,) * num_blocks if isinstance(layers, int) else tuple(layers)
        return cls(
            down_layers=down_layers,
            up_layers=tuple(reversed(down_layers)),
            up_attention=tuple("Attn" in kind for kind in config["up_block_types"]),
        )

    def first_input_block(self, block: int) -> int:
        """Return the index of a down block's first input block; block 0 of the list is `conv_in`."""
        return 1 + sum(self.down_layers[:block]) + block

    def first_output_block(self, block: int) -> int:
        """Return the index of an up block's first output block."""
        return sum(self.up_layers[:block]) + block


# Podell et al. 2023 (arXiv 2307.01952), table 1: three stages of two resnets, the full resolution without attention.
SDXL_BASE_LAYOUT = UNetLayout(down_layers=(2, 2, 2), up_layers=(2, 2, 2), up_attention=(True, True, False))


def kohya_stem(component: Component, module: str, layout: UNetLayout) -> str:
    """Return the stem of a module's tensors in a kohya file, `lora_unet_input_blocks_4_1_proj_in`.

    Raises:
        AtelierError: the module has no counterpart in the original layout.
    """
    path = sgm_path(module, layout) if component == "unet" else module
    return STEM_PREFIXES[component] + path.replace(".", "_")


def sgm_path(module: str, layout: UNetLayout) -> str:
    """Translate a diffusers U-Net path to the original layout, dotted.

    Raises:
        AtelierError: the module has no counterpart in the original layout.
    """
    if module in _OUTER:
        return _OUTER[module]
    middle = _MIDDLE.fullmatch(module)
    if middle:
        kind, rest = middle["kind"], middle["rest"]
        part = 1 if kind == "attentions" else 2 * int(middle["layer"])
        return f"middle_block.{part}.{_inner(kind, rest, module)}"
    match = _BLOCK.fullmatch(module)
    if not match:
        raise _unknown(module)
    block, layer, kind = int(match["block"]), int(match["layer"]), match["kind"]
    inner = _inner(kind, match["rest"], module)
    if match["side"] == "down":
        first, part = layout.first_input_block(block), 1 if kind == "attentions" else 0
        index = first + (layout.down_layers[block] if kind == "downsamplers" else layer)
        return f"input_blocks.{index}.{part}.{inner}"
    first = layout.first_output_block(block)
    if kind == "upsamplers":
        return f"output_blocks.{first + layout.up_layers[block]}.{2 if layout.up_attention[block] else 1}.{inner}"
    return f"output_blocks.{first + layer}.{1 if kind == 'attentions' else 0}.{inner}"


def module_of_stem(stem: str, layout: UNetLayout) -> tuple[Component, str]:
    """Translate a kohya stem back to the component and its diffusers path.

    Raises:
        AtelierError: no module of SDXL has that stem.
    """
    for component, prefix in STEM_PREFIXES.items():
        if stem.startswith(prefix):
            name = stem.removeprefix(prefix)
            module = _unet_module(name, layout) if component == "unet" else _text_module(name)
            if module is not None and kohya_stem(component, module, layout) == stem:
                return component, module
    raise AtelierError(f"{stem!r} is the name of no module of SDXL in kohya's dialect (input_blocks, output_blocks …)")


def _inner(kind: str, rest: str, module: str) -> str:
    """Translate what stands behind the block."""
    if kind == "attentions":
        return rest
    if kind == "resnets" and rest in _RESNET:
        return _RESNET[rest]
    if rest == "conv" and kind in ("downsamplers", "upsamplers"):
        return "op" if kind == "downsamplers" else "conv"
    raise _unknown(module)


def _unknown(module: str) -> AtelierError:
    return AtelierError(
        f"{module!r} has no name in the original layout, so kohya's format cannot hold it. Leave it out of "
        "adapter.unet.targets, or export diffusers or peft."
    )


def _text_module(name: str) -> str | None:
    match = _TEXT_STEM.fullmatch(name)
    if match is None or match["layer"] is None:
        return None if match is None else "text_projection"
    inner = match["name"].replace("self_attn_", "self_attn.").replace("mlp_", "mlp.")
    return f"text_model.encoder.layers.{match['layer']}.{inner}"


def _unet_module(name: str, layout: UNetLayout) -> str | None:
    for module, path in _OUTER.items():
        if name == path.replace(".", "_"):
            return module
    middle = _SGM_MIDDLE_STEM.fullmatch(name)
    if middle:
        part = int(middle["part"])
        place = "mid_block.attentions.0" if part == 1 else f"mid_block.resnets.{part // 2}"
        return _inside(place, middle["rest"], is_attention=part == 1)
    match = _SGM_STEM.fullmatch(name)
    if not match:
        return None
    index, part, rest = int(match["index"]), int(match["part"]), match["rest"]
    is_input = match["list"] == "input_blocks"
    firsts = [
        layout.first_input_block(block) if is_input else layout.first_output_block(block)
        for block in range(len(layout.down_layers))
    ]
    if index < firsts[0]:
        return None
    block = max(block for block, first in enumerate(firsts) if first <= index)
    side = "down" if is_input else "up"
    if rest == "op" and is_input:
        return f"down_blocks.{block}.downsamplers.0.conv"
    if rest == "conv" and not is_input:
        return f"up_blocks.{block}.upsamplers.0.conv"
    kind = "attentions" if part == 1 else "resnets"
    return _inside(f"{side}_blocks.{block}.{kind}.{index - firsts[block]}", rest, is_attention=part == 1)


def _inside(place: str, rest: str, *, is_attention: bool) -> str | None:
    if is_attention:
        return f"{place}.{_transformer_path(rest)}" if _TRANSFORMER_STEM.fullmatch(rest) else None
    for name, original in _RESNET.items():
        if rest == original.replace(".", "_"):
            return f"{place}.{name}"
    return None


def _transformer_path(rest: str) -> str:
    path = re.sub(r"^transformer_blocks_(\d+)_", r"transformer_blocks.\1.", rest)
    path = re.sub(r"(attn[12])_", r"\1.", path)
    return path.replace("to_out_0", "to_out.0").replace("ff_net_", "ff.net.").replace("0_proj", "0.proj")
