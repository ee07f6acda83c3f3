"""Changes that are no plain low-rank product, in the place of peft's two factors: LoHa, LoKr, any other neutral form.

A layer of peft computes `up(down(x)) * scale` beside its base. Here `down` is a module that applies a whole change,
made anew from its factors each time, and `up` the identity: everything else, from switching off to strengths, is as
with a LoRA. LoHa: Hyeon-Woo et al. 2021 (arXiv 2108.06098); LoKr: Yeh et al. 2023, LyCORIS (arXiv 2309.14859).
"""

import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional as F

from finetune.adapters.weights import AdaptedModule, FullModule, LohaModule, LokrModule, LoraModule, Shape
from finetune.naming.components import Component

Layer = nn.Linear | nn.Conv2d


def applying(base: Layer) -> Callable[[Tensor, Tensor], Tensor]:
    """Return what applies another weight to an input as `base` applies its own, without its bias."""
    if isinstance(base, nn.Linear):
        return F.linear
    stride, dilation = base.stride, base.dilation
    padding = base.padding if isinstance(base.padding, str) else tuple(base.padding)
    assert base.groups == 1 and base.padding_mode == "zeros", "SDXL has no other convolutions"  # noqa: PT018

    def convolve(hidden_states: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(hidden_states, weight, None, stride, padding, dilation)

    return convolve


class Change(nn.Module):
    """A change of a weight in any neutral form, applied to a layer's input; its tensors are parameters."""

    def __init__(self, module: AdaptedModule, base: Layer) -> None:
        """Take the tensors of `module`, in float32, to the device of the layer `base`."""
        super().__init__()
        assert isinstance(module, LoraModule | LohaModule | LokrModule | FullModule), "one of the neutral forms"
        self._form = module
        self._apply_weight = applying(base)
        for field in fields(module):
            value = getattr(module, field.name)
            if isinstance(value, Tensor) and field.name != "magnitude":
                self.register_parameter(field.name, nn.Parameter(value.float().to(base.weight.device, copy=True)))

    @property
    def weight(self) -> Tensor:
        """One of its tensors: peft looks at its number format."""
        return next(self.parameters())

    def change(self) -> Tensor:
        """Return the change in the shape of the base's weight, before it is scaled."""
        tensors: dict[str, Any] = dict(self.named_parameters())
        return replace(self._form, scale=1.0, **tensors).delta(self.weight.dtype)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return what the change makes of a layer's input."""
        return self._apply_weight(hidden_states, self.change())


def put_change(layer: LoraLayer, adapter_name: str, module: AdaptedModule) -> None:
    """Let a layer's adapter be this change, in place of peft's two factors."""
    layer.lora_A[adapter_name] = Change(module, layer.get_base_layer())
    layer.lora_B[adapter_name] = nn.Identity()
    layer.scaling[adapter_name] = module.scale


def new_loha(
    component: Component, path: str, shape: Shape, *, rank: int, alpha: float, generator: torch.Generator
) -> LohaModule:
    """Return a LoHa that changes nothing yet, begun as LyCORIS begins one (`lycoris/modules/loha.py`).

    Args:
        component: the model the module belongs to.
        path: of the module.
        shape: of its weight.
        rank: of each of the two products.
        alpha: the change is scaled by alpha / rank.
        generator: what the factors are drawn from.
    """

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator)

    return LohaModule(
        component,
        path,
        shape,
        w1_a=draw(shape[0], rank) * 0.1,
        w1_b=draw(rank, *shape[1:]),
        w2_a=torch.zeros(shape[0], rank),
        w2_b=draw(rank, *shape[1:]),
        scale=alpha / rank,
    )


def new_lokr(
    component: Component,
    path: str,
    shape: Shape,
    *,
    rank: int,
    alpha: float,
    factor: int | None,
    generator: torch.Generator,
) -> LokrModule:
    """Return a LoKr that changes nothing yet, begun as LyCORIS begins one (`lycoris/modules/lokr.py`).

    The arguments are `new_loha`'s, and `factor`: how large the sides of the small matrix are (see `split_size`). The
    large one is low-rank where that is smaller than the matrix itself; else the scale is 1, as readers have it.
    """
    (p, m), (q, n) = split_size(shape[0], factor), split_size(shape[1], factor)

    def draw(*size: int) -> Tensor:
        return nn.init.kaiming_uniform_(torch.empty(size), a=math.sqrt(5), generator=generator)

    if rank < max(m, n) / 2:
        w2_b = torch.zeros(rank, n, *shape[2:])
        return LokrModule(component, path, shape, alpha / rank, w1=draw(p, q), w2_a=draw(m, rank), w2_b=w2_b)
    return LokrModule(component, path, shape, 1.0, w1=draw(p, q), w2=torch.zeros(m, n, *shape[2:]))


def split_size(size: int, factor: int | None) -> tuple[int, int]:
    """Return two whole numbers whose product is `size`, the smaller one first.

    Args:
        size: what is split.
        factor: one of the two, where it divides `size`. Else, and with None, the smaller one is the largest divisor
            that is neither above it nor above the root of `size`.
    """
    if factor is not None and size % factor == 0:
        return min(factor, size // factor), max(factor, size // factor)
    limit = math.isqrt(size) if factor is None else min(factor, math.isqrt(size))
    small = max(divisor for divisor in range(1, limit + 1) if size % divisor == 0)
    return small, size // small
