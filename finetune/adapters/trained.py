"""From a recipe's adapter to what is put into a model, and from what a checkpoint holds to the neutral forms."""

import math
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from finetune.adapters.initial import without_initialisation
from finetune.adapters.lora import ADAPTER_NAME, LoraSettings
from finetune.adapters.weights import AdaptedModule, LohaModule, LokrModule, LoraModule
from finetune.naming.components import COMPONENTS, Component
from finetune.recipe.schema import LokrAdapter, LoraAdapter, SmallAdapter, TextLora, UNetLora


def section_of(adapter: SmallAdapter, component: Component) -> UNetLora | TextLora | None:
    """Return the recipe's settings for one model's adapter, or None where it has none."""
    section: UNetLora | TextLora | None = getattr(adapter, component)
    return section


def lora_scale(adapter: SmallAdapter, section: UNetLora | TextLora) -> float:
    """Return what `up @ down` is multiplied by: alpha / rank, or alpha / sqrt(rank) with rsLoRA."""
    alpha = float(section.rank) if section.alpha is None else section.alpha
    is_rslora = isinstance(adapter, LoraAdapter) and adapter.use_rslora
    return alpha / (math.sqrt(section.rank) if is_rslora else section.rank)


def lora_settings(adapter: SmallAdapter, section: UNetLora | TextLora) -> LoraSettings:
    """Return how an adapter is put into one model."""
    settings = LoraSettings(
        rank=section.rank,
        alpha=float(section.rank) if section.alpha is None else section.alpha,
        targets=section.targets,
        dropout=section.dropout,
        kind=adapter.kind,
    )
    match adapter:
        case LoraAdapter():
            return replace(settings, use_dora=adapter.use_dora, use_rslora=adapter.use_rslora, init=adapter.init)
        case LokrAdapter():
            return replace(settings, factor=adapter.factor)
        case _:
            return settings


def trained_modules(parameters: Mapping[str, Tensor], adapter: SmallAdapter) -> list[AdaptedModule]:
    """Return every adapted module, U-Net first.

    Args:
        parameters: by `component.path.lora_A.default.weight`, as a checkpoint names them, with what they began as,
            `.initial`, where they did not begin as no change.
        adapter: the recipe's section, which holds the scale.
    """
    modules: list[AdaptedModule] = []
    for component in COMPONENTS:
        section = section_of(adapter, component)
        if section is None:
            continue
        scale = lora_scale(adapter, section)
        for stem, factors in _factors(parameters, component).items():
            path = _module_path(component, stem)
            if "weight" in factors:
                modules.append(_low_rank(parameters, component, stem, scale))
            elif "w1_a" in factors:
                modules.append(_loha(component, path, factors, scale))
            else:
                modules.append(_lokr(component, path, factors, scale))
    return modules


def _factors(parameters: Mapping[str, Tensor], component: Component) -> dict[str, dict[str, Tensor]]:
    """Return stem → name → tensor of what stands in the place of peft's first factor, in the order of the names."""
    factors: dict[str, dict[str, Tensor]] = {}
    for name, tensor in parameters.items():
        stem, place, factor = name.rpartition(f".lora_A.{ADAPTER_NAME}.")
        if place and stem.startswith(component + "."):
            factors.setdefault(stem, {})[factor] = _plain(tensor)
    return factors


def _loha(component: Component, path: str, factors: Mapping[str, Tensor], scale: float) -> LohaModule:
    """Return a LoHa; LyCORIS has a convolution's inputs and kernel on one axis."""
    shape = (factors["w1_a"].shape[0], *factors["w1_b"].shape[1:])
    return LohaModule(
        component,
        path,
        shape,
        w1_a=factors["w1_a"],
        w1_b=factors["w1_b"].flatten(1),
        w2_a=factors["w2_a"],
        w2_b=factors["w2_b"].flatten(1),
        scale=scale,
    )


def _lokr(component: Component, path: str, factors: Mapping[str, Tensor], scale: float) -> LokrModule:
    """Return a LoKr; where no factor is low-rank, the scale is 1."""
    p, q = factors["w1"].shape
    if "w2" in factors:
        second = factors["w2"]
        shape = (p * second.shape[0], q * second.shape[1], *second.shape[2:])
        return LokrModule(component, path, shape, 1.0, w1=factors["w1"], w2=second)
    up, down = factors["w2_a"], factors["w2_b"]
    shape = (p * up.shape[0], q * down.shape[1], *down.shape[2:])
    return LokrModule(component, path, shape, scale, w1=factors["w1"], w2_a=up, w2_b=down.flatten(1))


def _low_rank(parameters: Mapping[str, Tensor], component: Component, stem: str, scale: float) -> LoraModule:
    """Return a plain LoRA; one that began as a part of the base has twice the rank it was trained with."""
    down, up = f"{stem}.lora_A.{ADAPTER_NAME}", f"{stem}.lora_B.{ADAPTER_NAME}"
    magnitude = parameters.get(f"{stem}.lora_magnitude_vector.{ADAPTER_NAME}.weight")
    trained = LoraModule(
        component=component,
        module=_module_path(component, stem),
        down=_plain(parameters[f"{down}.weight"]),
        up=_plain(parameters[f"{up}.weight"]),
        scale=scale,
        magnitude=None if magnitude is None else _plain(magnitude).flatten(),
    )
    if f"{down}.initial" not in parameters:
        return trained
    begun = (_plain(parameters[f"{down}.initial"]), _plain(parameters[f"{up}.initial"]))
    return without_initialisation(trained, replace(trained, down=begun[0], up=begun[1]))


def _module_path(component: Component, stem: str) -> str:
    """Drop the component; an encoder's path always starts with `text_model.`, whatever transformers calls it."""
    path = stem.removeprefix(component + ".")
    return path if component == "unet" else "text_model." + path.removeprefix("text_model.")


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().float().cpu().contiguous()
