"""The changes of LoHa and LoKr: products of small factors that are no plain low-rank ones.

LoHa: Hyeon-Woo et al. 2021 (arXiv 2108.06098), (w1_a w1_b) ⊙ (w2_a w2_b). LoKr: Yeh et al. 2023, LyCORIS
(arXiv 2309.14859), a Kronecker product w1 ⊗ w2, of which a large factor is itself low-rank. Names and shapes are
LyCORIS' own (`lycoris/modules/loha.py`, `lokr.py`), which readers know.
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ProductKind = Literal["loha", "lokr"]


def hadamard_change(factors: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
    """Return (w1_a @ w1_b) ⊙ (w2_a @ w2_b) in a weight's shape; a convolution's inputs and kernel are one axis."""
    first, second = factors["w1_a"] @ factors["w1_b"], factors["w2_a"] @ factors["w2_b"]
    return (first * second).reshape(shape)


def kronecker_change(factors: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
    """Return w1 ⊗ w2 in a weight's shape; either factor may be given as the product of its own `_a` and `_b`.

    With w1 (p, q) and w2 (m, n[, height, width]) the weight is (p m, q n[, height, width]): block (i, j) of outputs and
    inputs is w1[i, j] · w2.
    """
    first = factors["w1"] if "w1" in factors else factors["w1_a"] @ factors["w1_b"]
    second = factors["w2"] if "w2" in factors else factors["w2_a"] @ factors["w2_b"]
    kernel = shape[2:]
    second = second.reshape(shape[0] // first.shape[0], shape[1] // first.shape[1], *kernel)
    return torch.kron(first.reshape(*first.shape, *[1] * len(kernel)), second)


def split_size(size: int, factor: int | None) -> tuple[int, int]:
    """Return two whole numbers whose product is `size`, the smaller one first.

    Args:
        size: what is split.
        factor: where it divides `size`, it is one of the two; the other way, and with None, the smaller one is the
            largest divisor that is not above it, or above the root of `size`.
    """
    if factor is not None and size % factor == 0:
        return min(factor, size // factor), max(factor, size // factor)
    limit = math.isqrt(size) if factor is None else min(factor, math.isqrt(size))
    small = max(divisor for divisor in range(1, limit + 1) if size % divisor == 0)
    return small, size // small


def loha_shapes(shape: tuple[int, ...], rank: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each factor for a weight's."""
    inputs = math.prod(shape[1:])
    return {"w1_a": (shape[0], rank), "w1_b": (rank, inputs), "w2_a": (shape[0], rank), "w2_b": (rank, inputs)}


def lokr_shapes(shape: tuple[int, ...], rank: int, factor: int | None) -> dict[str, tuple[int, ...]]:
    """Return the shape of each factor for a weight's: w1 the small one, w2 low-rank where that is smaller."""
    (p, m), (q, n) = split_size(shape[0], factor), split_size(shape[1], factor)
    shapes: dict[str, tuple[int, ...]] = {"w1": (p, q)}
    if rank < max(m, n) / 2:
        return shapes | {"w2_a": (m, rank), "w2_b": (rank, n * math.prod(shape[2:]))}
    return shapes | {"w2": (m, n, *shape[2:])}


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


class ProductChange(nn.Module):
    """A change by products, standing where peft has its first factor; the second one is then the identity."""

    def __init__(self, kind: ProductKind, shapes: Mapping[str, tuple[int, ...]], base: Layer) -> None:
        """Make the factors, float32 and zero, for the layer `base`, a Linear or a convolution."""
        super().__init__()
        self.kind = kind
        self.shape = tuple(base.weight.shape)
        self._apply_weight = applying(base)
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape, device=base.weight.device)))

    @property
    def weight(self) -> Tensor:
        """One of the factors: peft looks at its number format."""
        return next(self.parameters())

    def change(self) -> Tensor:
        """Return the change in the shape of the base's weight, before it is scaled."""
        factors = dict(self.named_parameters())
        product = hadamard_change if self.kind == "loha" else kronecker_change
        return product(factors, self.shape)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return what the change makes of a layer's input."""
        return self._apply_weight(hidden_states, self.change())

    def draw(self, generator: torch.Generator) -> None:
        """Begin as LyCORIS does: as no change, with one factor zero and the others drawn."""
        with torch.no_grad():
            if self.kind == "loha":
                self._draw("w1_a", 0.1, generator)
                self._draw("w1_b", 1.0, generator)
                self._draw("w2_b", 1.0, generator)
                return
            for name in ("w1", "w2_a"):
                if hasattr(self, name):
                    factor = getattr(self, name)
                    drawn = nn.init.kaiming_uniform_(torch.empty(factor.shape), a=math.sqrt(5), generator=generator)
                    factor.copy_(drawn)

    def _draw(self, name: str, deviation: float, generator: torch.Generator) -> None:
        factor = getattr(self, name)
        factor.copy_(torch.randn(factor.shape, generator=generator) * deviation)
