"""From the trainable parameters, as a checkpoint holds them, to the neutral form that is exported."""

import math
from collections.abc import Mapping

from torch import Tensor

from finetune.adapters.lora import ADAPTER_NAME
from finetune.adapters.weights import LoraModule
from finetune.naming.components import COMPONENTS, Component
from finetune.recipe.schema import LoraAdapter, TextLora, UNetLora


def section_of(adapter: LoraAdapter, component: Component) -> UNetLora | TextLora | None:
    """Return the recipe's settings for one model's adapter, or None where it has none."""
    section: UNetLora | TextLora | None = getattr(adapter, component)
    return section


def lora_scale(adapter: LoraAdapter, section: UNetLora | TextLora) -> float:
    """Return what `up @ down` is multiplied by: alpha / rank, or alpha / sqrt(rank) with rsLoRA."""
    alpha = float(section.rank) if section.alpha is None else section.alpha
    return alpha / (math.sqrt(section.rank) if adapter.use_rslora else section.rank)


def trained_modules(parameters: Mapping[str, Tensor], adapter: LoraAdapter) -> list[LoraModule]:
    """Return every adapted module, U-Net first.

    Args:
        parameters: by `component.path.lora_A.default.weight`, as a checkpoint names them.
        adapter: the recipe's section, which holds the scale.
    """
    modules = []
    for component in COMPONENTS:
        section = section_of(adapter, component)
        if section is None:
            continue
        down_suffix = f".lora_A.{ADAPTER_NAME}.weight"
        stems = [
            name.removesuffix(down_suffix)
            for name in parameters
            if name.startswith(component + ".") and name.endswith(down_suffix)
        ]
        for stem in stems:
            magnitude = parameters.get(f"{stem}.lora_magnitude_vector.{ADAPTER_NAME}.weight")
            modules.append(
                LoraModule(
                    component=component,
                    module=_module_path(component, stem),
                    down=_plain(parameters[stem + down_suffix]),
                    up=_plain(parameters[f"{stem}.lora_B.{ADAPTER_NAME}.weight"]),
                    scale=lora_scale(adapter, section),
                    magnitude=None if magnitude is None else _plain(magnitude).flatten(),
                )
            )
    return modules


def _module_path(component: Component, stem: str) -> str:
    """Drop the component; an encoder's path always starts with `text_model.`, whatever transformers calls it."""
    path = stem.removeprefix(component + ".")
    return path if component == "unet" else "text_model." + path.removeprefix("text_model.")


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().float().cpu().contiguous()
