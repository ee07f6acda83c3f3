"""Put LoRA into a frozen model with peft, switch it off and on, and take out what it learned.

Hu et al. 2021 (arXiv 2106.09685); DoRA: Liu et al. 2024 (arXiv 2402.09353); rsLoRA: Kalajdzievski 2023
(arXiv 2312.03732). Adapter parameters are float32 whatever the base's precision: plain bf16 ones lose most of an
update at usual learning rates.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from finetune.adapters.dora import base_norm, has_dora, use_float32_norms
from finetune.adapters.dropout import DropoutKey, KeyedDropout
from finetune.adapters.initial import Initialisation, begin_as_part_of_base
from finetune.adapters.products import new_loha, new_lokr, put_change
from finetune.adapters.targets import target_paths
from finetune.adapters.weights import AdaptedModule, LoraModule
from finetune.errors import RecipeError
from finetune.naming.components import Component
from imagesets.randomness import key_to_seed

ADAPTER_NAME = "default"

ModuleName = tuple[Component, str]


@dataclass(frozen=True)
class LoraSettings:
    """How an adapter is put into one model; see the recipe's `adapter` for what the settings mean."""

    rank: int
    alpha: float
    targets: str | Sequence[str]
    dropout: float = 0.0
    use_dora: bool = False
    use_rslora: bool = False
    kind: Literal["lora", "loha", "lokr"] = "lora"
    init: Initialisation = "zero"
    factor: int | None = None


def inject_lora(model: nn.Module, component: Component, settings: LoraSettings, seed: int, key: DropoutKey) -> None:
    """Attach LoRA to `model` in place; the result is the identity, and only its parameters take gradients.

    Args:
        model: the frozen U-Net or text encoder.
        component: which one it is.
        settings: rank, alpha, targets and switches.
        seed: the run's seed; what is drawn is drawn from (seed, component, module).
        key: the object the loop updates before each micro batch, for dropout.

    Raises:
        RecipeError: a pattern of the targets matches nothing, or a weight is too small for the rank.
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
        try:
            _initialize(layer, (component, path), settings, key_to_seed(seed, "lora-init", component, path))
        except ValueError as error:
            raise RecipeError(f"adapter.{component}.rank: {path}: {error}. Give a smaller rank") from error
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
def lora_scaled(models: Iterable[nn.Module], strength: float, name: str = ADAPTER_NAME) -> Iterator[None]:
    """Multiply the change of the adapter `name` by `strength` inside the block: 0 is the base, 1 what was learned.

    With DoRA both parts of the change are multiplied: the low-rank one and the magnitude's distance from the norm of
    the base's weight.
    """
    layers = [layer for model in models for _, layer in lora_layers(model) if name in layer.lora_A]
    scales = [layer.scaling[name] for layer in layers]
    magnitudes = [layer.lora_magnitude_vector[name].weight for layer in layers if has_dora(layer, name)]
    learned = [magnitude.data for magnitude in magnitudes]
    norms = [base_norm(layer, name) for layer in layers if has_dora(layer, name)]
    try:
        for layer, scale in zip(layers, scales, strict=True):
            layer.scaling[name] = scale * strength
        for magnitude, norm in zip(magnitudes, norms, strict=True):
            magnitude.data = torch.lerp(norm, magnitude.data, strength)  # exact at 0 and at 1
        yield
    finally:
        for layer, scale in zip(layers, scales, strict=True):
            layer.scaling[name] = scale
        for magnitude, value in zip(magnitudes, learned, strict=True):
            magnitude.data = value


@contextmanager
def loras_scaled(models: Iterable[nn.Module], strengths: Mapping[str, float]) -> Iterator[None]:
    """Multiply the change of each adapter by its strength inside the block; one of strength 0 computes nothing."""
    layers = [layer for model in models for _, layer in lora_layers(model)]
    before = {layer: list(layer.active_adapters) for layer in layers}
    with ExitStack() as stack:
        for name, strength in strengths.items():
            stack.enter_context(lora_scaled(models, strength, name))
        try:
            for layer, names in before.items():
                _activate(layer, [name for name in names if strengths.get(name, 1.0) != 0.0])
            yield
        finally:
            for layer, names in before.items():
                _activate(layer, names)


def apply_lora(
    model: nn.Module, component: Component, modules: Sequence[AdaptedModule], name: str = ADAPTER_NAME
) -> None:
    """Attach a trained adapter to a frozen model, so that it can be switched and scaled; beside others, if there are.

    What the model then computes differs from its base by the sum of what each adapter alone would change. At most one
    of them may have DoRA, since a norm of a weight says nothing of what others add to it; peft computes it first.

    Args:
        model: the U-Net or a text encoder.
        component: which one it is.
        modules: what the adapter changes there.
        name: the adapter's, of which there is no other in the model; no dot in it.

    Raises:
        ValueError: a module the adapter names is not in the model, is of another shape, or it is the second DoRA. The
            model is unchanged.
    """
    attached = dict(lora_layers(model))
    assert not any(name in layer.lora_A for layer in attached.values()), f"there is an adapter {name!r} already"
    has_prefix = component == "unet" or hasattr(model, "text_model")
    named = {module.module if has_prefix else module.module.removeprefix("text_model."): module for module in modules}
    missing = sorted(set(named) - {path for path, _ in model.named_modules()})
    if missing:
        raise ValueError(f"{len(missing)} modules are not in the {component}, the first: {missing[0]}")
    use_dora = any(module.magnitude is not None for module in modules)
    if use_dora and any(layer.lora_magnitude_vector for layer in attached.values()):
        raise ValueError("two adapters with DoRA cannot be added up: use one of them, or plain LoRAs beside it")
    for path, module in named.items():
        _check_fit(attached[path].get_base_layer() if path in attached else model.get_submodule(path), module)
    rank, rank_pattern = _ranks(named)
    config = LoraConfig(
        r=rank,
        rank_pattern=rank_pattern,
        target_modules=_any_of(named),
        use_dora=use_dora,
        bias="none",
    )
    active = {path: list(layer.active_adapters) for path, layer in attached.items()}
    vars(model).pop("peft_config", None)  # peft warns where there is an adapter already; here another is meant
    inject_adapter_in_model(config, model, adapter_name=name)
    for path, layer in lora_layers(model):
        if path in named:
            _fill(layer, named[path], name)
        others = active.get(path, [])
        own = [name] if path in named else []
        _activate(layer, [*own, *others] if use_dora else [*others, *own])
    model.requires_grad_(requires_grad=False)


def remove_loras(model: nn.Module) -> None:
    """Put back the modules that every adapter of a model was attached to: it is the model from before."""
    for path, layer in list(lora_layers(model)):
        parent, _, last = path.rpartition(".")
        setattr(model.get_submodule(parent), last, layer.get_base_layer())
    vars(model).pop("peft_config", None)


def _fill(layer: LoraLayer, module: AdaptedModule, name: str) -> None:
    """Give a layer's adapter what was learned."""
    if not isinstance(module, LoraModule):
        put_change(layer, name, module)
        layer.cast_input_dtype_enabled = False
        return
    _assign(layer.lora_A[name].weight, module.down)
    _assign(layer.lora_B[name].weight, module.up)
    layer.scaling[name] = module.scale
    layer.cast_input_dtype_enabled = False
    use_float32_norms(layer, name)
    if module.magnitude is not None:
        weight = layer.lora_magnitude_vector[name].weight
        _assign(weight, module.magnitude.reshape(weight.shape))


def _activate(layer: LoraLayer, names: Sequence[str]) -> None:
    """Let a layer compute these adapters, in this order; `set_adapter` would also touch what takes gradients."""
    layer._active_adapter = list(names)


def _check_fit(target: nn.Module, module: AdaptedModule) -> None:
    """Raise ValueError unless the change has the shape of the weight it is added to, and DoRA's norms are of rows."""
    name = f"{module.component}.{module.module}"
    if not isinstance(target, (nn.Linear, nn.Conv2d)):
        raise ValueError(f"{name} is a {type(target).__name__}; LoRA goes into a Linear or a convolution")
    given = module.shape  # (out, in[, kh, kw])
    weight = tuple(target.weight.shape)
    if given != weight:
        raise ValueError(f"{name}: the factors are for a weight of {given}, the model's is {weight}")
    if module.magnitude is not None and (module.magnitude_axis != 0 or not isinstance(module, LoraModule)):
        raise ValueError(f"{name}: DoRA's norms are of another kind than peft computes; fuse it into the model instead")
    if module.magnitude is not None and module.magnitude.numel() != weight[0]:
        raise ValueError(f"{name}: the magnitude has {module.magnitude.numel()} numbers for {weight[0]} outputs")


def _ranks(named: Mapping[str, AdaptedModule]) -> tuple[int, dict[str, int]]:
    """Return the most common rank and, for each other one, a pattern of the paths that have it.

    peft tries every pattern on every module, so one pattern a path would be quadratic: 40 s on the U-Net's 788.
    """
    paths_by_rank: dict[int, list[str]] = {}
    for path, module in named.items():
        rank = module.rank if isinstance(module, LoraModule) else 1  # others' factors are put in afterwards
        paths_by_rank.setdefault(rank, []).append(path)
    common = max(paths_by_rank, key=lambda rank: len(paths_by_rank[rank]))
    return common, {"^" + _any_of(paths): rank for rank, paths in paths_by_rank.items() if rank != common}


def _any_of(paths: Iterable[str]) -> str:
    """Return an expression that matches these paths and, as peft uses it, no other."""
    return "(?:" + "|".join(re.escape(path) for path in paths) + ")"


def _initialize(layer: LoraLayer, name: ModuleName, settings: LoraSettings, seed: int) -> None:
    """Let an adapter begin as no change, in float32. A plain LoRA's first factor is drawn as peft draws it.

    That is Kaiming uniform with a = sqrt 5, and the second factor zero.
    """
    generator = torch.Generator().manual_seed(seed)
    if settings.kind != "lora":
        _begin_product(layer, name, settings, generator)
        return
    if settings.init != "zero":
        begin_as_part_of_base(layer, ADAPTER_NAME, settings.init)
        return
    for factors in (layer.lora_A, layer.lora_B):
        factors[ADAPTER_NAME].to(torch.float32)
    use_float32_norms(layer, ADAPTER_NAME)
    down = layer.lora_A[ADAPTER_NAME].weight
    drawn = nn.init.kaiming_uniform_(torch.empty(down.shape), a=math.sqrt(5), generator=generator)
    _assign(down, drawn)
    nn.init.zeros_(layer.lora_B[ADAPTER_NAME].weight)


def _begin_product(layer: LoraLayer, name: ModuleName, settings: LoraSettings, generator: torch.Generator) -> None:
    """Put a LoHa or a LoKr where peft has its two factors."""
    shape = tuple(layer.get_base_layer().weight.shape)
    rank, alpha = settings.rank, settings.alpha
    if settings.kind == "loha":
        put_change(layer, ADAPTER_NAME, new_loha(*name, shape, rank=rank, alpha=alpha, generator=generator))
        return
    factor = settings.factor
    put_change(layer, ADAPTER_NAME, new_lokr(*name, shape, rank=rank, alpha=alpha, factor=factor, generator=generator))


def _assign(parameter: nn.Parameter, value: Tensor) -> None:
    parameter.data = value.to(device=parameter.device, dtype=torch.float32).contiguous().clone()
