"""Put LoRA into a frozen model with peft, switch it off and on, and take out what it learned.

Hu et al. 2021 (arXiv 2106.09685); DoRA: Liu et al. 2024 (arXiv 2402.09353); rsLoRA: Kalajdzievski 2023
(arXiv 2312.03732). Adapter parameters are float32 whatever the base's precision: plain bf16 ones lose most of an
update at usual learning rates.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from finetune.adapters.dora import base_norm, has_dora, use_float32_norms
from finetune.adapters.dropout import DropoutKey, KeyedDropout
from finetune.adapters.targets import target_paths
from finetune.adapters.weights import Component, LoraModule
from imagesets.randomness import key_to_seed

ADAPTER_NAME = "default"


@dataclass(frozen=True)
class LoraSettings:
    """How LoRA is put into one model."""

    rank: int
    alpha: float
    targets: str | Sequence[str]
    dropout: float = 0.0
    use_dora: bool = False
    use_rslora: bool = False


def inject_lora(model: nn.Module, component: Component, settings: LoraSettings, seed: int, key: DropoutKey) -> None:
    """Attach LoRA to `model` in place; the result is the identity, and only its parameters take gradients.

    Args:
        model: the frozen U-Net or text encoder.
        component: which one it is.
        settings: rank, alpha, targets and switches.
        seed: the run's seed; the first factor is drawn from (seed, component, module).
        key: the object the loop updates before each micro batch, for dropout.
    """
    paths = target_paths(model, component, settings.targets)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=_any_of(paths),
        lora_dropout=settings.dropout,
        use_dora=settings.use_dora,
        use_rslora=settings.use_rslora,
        bias="none",
    )
    inject_adapter_in_model(config, model, adapter_name=ADAPTER_NAME)
    attached = dict(lora_layers(model))
    assert list(attached) == paths, "peft attached LoRA to other modules than were asked for"
    for path, layer in attached.items():
        _initialize(layer, key_to_seed(seed, "lora-init", component, path))
        # peft would copy each input to float32 first, which autocast turns back: the factors alone are float32.
        layer.cast_input_dtype_enabled = False
        if settings.dropout > 0.0:
            layer.lora_dropout[ADAPTER_NAME] = KeyedDropout(settings.dropout, f"{component}.{path}", key)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name)


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    """Yield the adapted modules with their paths, in the model's order."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def lora_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the adapter's trainable parameters by name, in the model's order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


@contextmanager
def lora_disabled(models: Iterable[nn.Module]) -> Iterator[None]:
    """Switch every adapter off inside the block: the models compute exactly what their base computes."""
    layers = {layer: layer.disable_adapters for model in models for _, layer in lora_layers(model)}
    for layer in layers:
        layer._disable_adapters = True  # `enable_adapters(False)` would also take the gradients away
    try:
        yield
    finally:
        for layer, was_disabled in layers.items():
            layer._disable_adapters = was_disabled


@contextmanager
def lora_scaled(models: Iterable[nn.Module], strength: float) -> Iterator[None]:
    """Multiply every adapter's change by `strength` inside the block: 0 is the base, 1 what was learned.

    With DoRA both parts of the change are multiplied: the low-rank one and the magnitude's distance from the norm of
    the base's weight.
    """
    layers = [layer for model in models for _, layer in lora_layers(model)]
    scales = [layer.scaling[ADAPTER_NAME] for layer in layers]
    magnitudes = [layer.lora_magnitude_vector[ADAPTER_NAME].weight for layer in layers if has_dora(layer, ADAPTER_NAME)]
    learned = [magnitude.data for magnitude in magnitudes]
    norms = [base_norm(layer, ADAPTER_NAME) for layer in layers if has_dora(layer, ADAPTER_NAME)]
    try:
        for layer, scale in zip(layers, scales, strict=True):
            layer.scaling[ADAPTER_NAME] = scale * strength
        for magnitude, norm in zip(magnitudes, norms, strict=True):
            magnitude.data = torch.lerp(norm, magnitude.data, strength)  # exact at 0 and at 1
        yield
    finally:
        for layer, scale in zip(layers, scales, strict=True):
            layer.scaling[ADAPTER_NAME] = scale
        for magnitude, value in zip(magnitudes, learned, strict=True):
            magnitude.data = value


def apply_lora(model: nn.Module, component: Component, modules: Sequence[LoraModule]) -> None:
    """Attach a trained adapter to a frozen model, so that it can be switched and scaled.

    Raises:
        ValueError: a module the adapter names is not in the model, or is of another shape. The model is unchanged.
    """
    named = {module.module if component == "unet" else module.module.removeprefix("text_model."): module
             for module in modules}  # fmt: skip
    prefix = "text_model." if component != "unet" and hasattr(model, "text_model") else ""
    named = {prefix + path: module for path, module in named.items()}
    missing = sorted(set(named) - {name for name, _ in model.named_modules()})
    if missing:
        raise ValueError(f"{len(missing)} modules are not in the {component}, the first: {missing[0]}")
    for path, module in named.items():
        _check_fit(model.get_submodule(path), module)
    rank, rank_pattern = _ranks(named)
    config = LoraConfig(
        r=rank,
        rank_pattern=rank_pattern,
        target_modules=_any_of(named),
        use_dora=any(module.magnitude is not None for module in modules),
        bias="none",
    )
    inject_adapter_in_model(config, model, adapter_name=ADAPTER_NAME)
    for path, layer in lora_layers(model):
        module = named[path]
        _assign(layer.lora_A[ADAPTER_NAME].weight, module.down)
        _assign(layer.lora_B[ADAPTER_NAME].weight, module.up)
        layer.scaling[ADAPTER_NAME] = module.scale
        layer.cast_input_dtype_enabled = False
        use_float32_norms(layer, ADAPTER_NAME)
        if module.magnitude is not None:
            weight = layer.lora_magnitude_vector[ADAPTER_NAME].weight
            _assign(weight, module.magnitude.reshape(weight.shape))
    model.requires_grad_(requires_grad=False)


def _check_fit(target: nn.Module, module: LoraModule) -> None:
    """Raise ValueError unless the factors' product has the shape of the weight it is added to."""
    name = f"{module.component}.{module.module}"
    if not isinstance(target, (nn.Linear, nn.Conv2d)):
        raise ValueError(f"{name} is a {type(target).__name__}; LoRA goes into a Linear or a convolution")
    given = (module.up.shape[0], *module.down.shape[1:])  # (out, in[, kh, kw])
    weight = tuple(target.weight.shape)
    if given != weight:
        raise ValueError(f"{name}: the factors are for a weight of {given}, the model's is {weight}")
    if module.magnitude is not None and module.magnitude.numel() != weight[0]:
        raise ValueError(f"{name}: the magnitude has {module.magnitude.numel()} numbers for {weight[0]} outputs")


def _ranks(named: Mapping[str, LoraModule]) -> tuple[int, dict[str, int]]:
    """Return the most common rank and, for each other one, a pattern of the paths that have it.

    peft tries every pattern on every module, so one pattern a path would be quadratic: 40 s on the U-Net's 788.
    """
    paths_by_rank: dict[int, list[str]] = {}
    for path, module in named.items():
        paths_by_rank.setdefault(module.rank, []).append(path)
    common = max(paths_by_rank, key=lambda rank: len(paths_by_rank[rank]))
    return common, {"^" + _any_of(paths): rank for rank, paths in paths_by_rank.items() if rank != common}


def _any_of(paths: Iterable[str]) -> str:
    """Return an expression that matches these paths and, as peft uses it, no other."""
    return "(?:" + "|".join(re.escape(path) for path in paths) + ")"


def _initialize(layer: LoraLayer, seed: int) -> None:
    """Draw the first factor as peft does (Kaiming uniform, a = sqrt 5) and zero the second; all in float32."""
    for factors in (layer.lora_A, layer.lora_B):
        factors[ADAPTER_NAME].to(torch.float32)
    use_float32_norms(layer, ADAPTER_NAME)
    generator = torch.Generator().manual_seed(seed)
    down = layer.lora_A[ADAPTER_NAME].weight
    drawn = nn.init.kaiming_uniform_(torch.empty(down.shape), a=math.sqrt(5), generator=generator)
    _assign(down, drawn)
    nn.init.zeros_(layer.lora_B[ADAPTER_NAME].weight)


def _assign(parameter: nn.Parameter, value: Tensor) -> None:
    parameter.data = value.to(device=parameter.device, dtype=torch.float32).contiguous().clone()
