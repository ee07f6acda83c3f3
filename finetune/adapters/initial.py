"""Adapters that begin as a part of the base: PiSSA and OLoRA, and what they learned as a plain LoRA.

Both begin with the factors of a part of the base's weight, and take that part out of the base: W - s B0 A0 + s B A. The
factors alone then mean nothing to an untouched base, which is how such files go wrong. Here the base stays as it is
and the part is taken out of the adapter instead, which is the same sum: the change is s (B A - B0 A0), zero where
training starts, and it is exported as a plain LoRA of twice the rank, [B, -B0] [A; A0].

PiSSA: Meng et al. 2024 (arXiv 2404.02948), the largest singular values. OLoRA: Büyükakyüz 2024 (arXiv 2406.01775),
the first columns of a QR decomposition.
"""

from typing import Literal

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional as F

from finetune.adapters.products import Layer, applying
from finetune.adapters.weights import LoraModule

Initialisation = Literal["zero", "pissa", "olora"]
"""How an adapter begins: with a second factor of zero, or as a part of the base."""


def initial_factors(weight: Tensor, rank: int, scale: float, kind: Initialisation) -> tuple[Tensor, Tensor]:
    """Return down and up of the part of `weight` that an adapter begins with, float32: scale · up @ down is the part.

    Args:
        weight: the base's, (out, in) or (out, in, height, width).
        rank: of the adapter; no more than the smaller side of the weight.
        scale: what the product is multiplied by.
        kind: 'pissa' or 'olora'.

    Raises:
        ValueError: the rank is larger than the weight's.
    """
    flat = weight.detach().float().flatten(1)  # (out, in * height * width)
    if rank > min(flat.shape):
        raise ValueError(f"rank {rank} is more than a weight of {tuple(weight.shape)} has ({min(flat.shape)})")
    if kind == "pissa":
        left, values, right = torch.linalg.svd(flat, full_matrices=False)
        root = (values[:rank] / scale).sqrt()
        up, down = left[:, :rank] * root, root[:, None] * right[:rank]
    else:
        orthogonal, upper = torch.linalg.qr(flat)
        up, down = orthogonal[:, :rank], upper[:rank] / scale
    kernel = weight.shape[2:]
    return down.reshape(rank, *weight.shape[1:]).contiguous(), up.reshape(-1, rank, *[1] * len(kernel)).contiguous()


def without_initialisation(trained: LoraModule, initial: LoraModule) -> LoraModule:
    """Return what a PiSSA or OLoRA adapter changes on the untouched base, as a plain LoRA of the two ranks' sum.

    Args:
        trained: the factors after training.
        initial: those before it, of the same module and scale.

    Raises:
        ValueError: they are not of one module, or their scales differ.
    """
    if (trained.component, trained.module, trained.shape) != (initial.component, initial.module, initial.shape):
        raise ValueError(f"{initial.component}.{initial.module} is not where {trained.module} began")
    if trained.scale != initial.scale:
        raise ValueError(f"{trained.module}: began at a scale of {initial.scale:g}, and is of {trained.scale:g}")
    if trained.magnitude is not None:
        raise ValueError(f"{trained.module}: DoRA's norms are those of the base that was changed")
    return LoraModule(
        trained.component,
        trained.module,
        down=torch.cat([trained.down, initial.down]),
        up=torch.cat([trained.up, -initial.up], dim=1),
        scale=trained.scale,
    )


class _WithInitial(nn.Module):
    """A factor that is trained, and the one it began as, which stays."""

    initial: Tensor

    def __init__(self, begun: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(begun.clone())
        self.register_buffer("initial", begun.clone())


class DownWithInitial(_WithInitial):
    """The first factor: x to A x and A0 x."""

    def __init__(self, begun: Tensor, base: Layer) -> None:
        """Begin as `begun`, (rank, in[, height, width]); a convolution strides and pads as its base does."""
        super().__init__(begun)
        self._apply_weight = applying(base)

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """Return both, apart: halves of one tensor lie elsewhere in memory, and kernels may round them otherwise."""
        return self._apply_weight(hidden_states, self.weight), self._apply_weight(hidden_states, self.initial)


class UpWithInitial(_WithInitial):
    """The second factor: h and h0 to B h - B0 h0. Where training starts both are one computation: zero.

    But for a rounding where kernels look at how memory is aligned, as they do for inputs that are transposed.
    """

    def forward(self, halves: tuple[Tensor, Tensor]) -> Tensor:
        """Return the difference."""
        own, initial = halves
        apply = F.linear if self.weight.dim() == 2 else F.conv2d
        return apply(own, self.weight) - apply(initial, self.initial)


def begin_as_part_of_base(layer: LoraLayer, adapter_name: str, kind: Initialisation) -> None:
    """Replace the factors of a layer's adapter by those of a part of its base's weight.

    Raises:
        ValueError: the adapter's rank is larger than the weight's.
    """
    base = layer.get_base_layer()
    down, up = initial_factors(base.weight, layer.r[adapter_name], layer.scaling[adapter_name], kind)
    layer.lora_A[adapter_name] = DownWithInitial(down.to(base.weight.device), base)
    layer.lora_B[adapter_name] = UpWithInitial(up.to(base.weight.device))
