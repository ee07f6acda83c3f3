"""A trained adapter in neutral forms that every exporter and reader here speaks.

Nothing in them depends on peft, on a naming dialect or on the way a scale was written in a recipe: one record per
adapted module, with the factors and the number their product is multiplied by. Four kinds are known: LoRA (Hu et al.
2021, arXiv 2106.09685), LoHa (the Hadamard product of two low-rank products: Hyeon-Woo et al. 2021, FedPara, arXiv
2108.06098), LoKr (a Kronecker product: Edalati et al. 2022, KronA, arXiv 2212.10650) and the whole change. The parts
of the latter three are named as LyCORIS names them (Yeh et al. 2023, arXiv 2309.14859).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from finetune.naming.components import Component

Shape = tuple[int, ...]


class AdaptedModule(Protocol):
    """What every neutral form says of itself: one record per adapted module, whichever way its change is factored.

    Attributes:
        component: the model the module belongs to.
        module: its path in diffusers' (U-Net) or transformers' (encoders) naming. Encoder paths always start with
            `text_model.`, whichever version of transformers built the model.
        scale: what the product of the factors is multiplied by.
        magnitude: DoRA's learned norms, flat, or None.
        magnitude_axis: what they are norms of: 0, of each output's row (out,); 1, of each input's column (in,).
    """

    @property
    def component(self) -> Component: ...  # noqa: D102 - above

    @property
    def module(self) -> str: ...  # noqa: D102

    @property
    def scale(self) -> float: ...  # noqa: D102

    @property
    def magnitude(self) -> Tensor | None: ...  # noqa: D102

    @property
    def magnitude_axis(self) -> int: ...  # noqa: D102

    @property
    def kind(self) -> str:
        """The word for its kind: 'LoRA', 'LoHa', 'LoKr' or 'full'."""

    @property
    def rank(self) -> int | None:
        """The inner dimension of its factors, or None where nothing is factored."""

    @property
    def factors(self) -> Mapping[str, Tensor]:
        """The tensors it is made of but the magnitude, by their names in LyCORIS."""

    @property
    def shape(self) -> Shape:
        """The shape of the weight that is changed: (out, in) or (out, in, height, width)."""

    def delta(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the change in the shape of the module's weight, without DoRA's renormalisation."""


@dataclass(frozen=True)
class LoraModule:
    """The low-rank change of one module's weight: `scale * up @ down`.

    Attributes:
        component: the model the module belongs to.
        module: its path in diffusers' (U-Net) or transformers' (encoders) naming. Encoder paths always start with
            `text_model.`, whichever version of transformers built the model.
        down: the first factor, (rank, in) for a Linear, (rank, in, height, width) for a convolution.
        up: the second factor, (out, rank), or (out, rank, 1, 1).
        scale: what the product is multiplied by: alpha / rank, or alpha / sqrt(rank) with rsLoRA.
        magnitude: DoRA's learned norms, (out,), or None for plain LoRA.
        magnitude_axis: 0 for norms of rows as peft learns them; 1 for norms of columns, (in,), as older LyCORIS does.
    """

    component: Component
    module: str
    down: Tensor
    up: Tensor
    scale: float
    magnitude: Tensor | None = None
    magnitude_axis: int = 0

    kind = "LoRA"

    def __post_init__(self) -> None:
        if self.down.shape[0] != self.up.shape[1]:
            raise ValueError(
                f"{self.component}.{self.module}: the factors do not fit together: "
                f"down {tuple(self.down.shape)}, up {tuple(self.up.shape)}"
            )

    @property
    def rank(self) -> int:
        """The inner dimension of the two factors."""
        return self.down.shape[0]

    @property
    def factors(self) -> Mapping[str, Tensor]:
        """Both factors."""
        return {"lora_down": self.down, "lora_up": self.up}

    @property
    def shape(self) -> Shape:
        """The shape of the weight that is changed: (out, in) or (out, in, height, width)."""
        return (self.up.shape[0], *self.down.shape[1:])

    def delta(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return `scale * up @ down` in the shape of the module's weight, without DoRA's renormalisation."""
        down = self.down.to(dtype).flatten(1)  # (rank, in * kh * kw)
        up = self.up.to(dtype).flatten(1)  # (out, rank)
        return (self.scale * (up @ down)).reshape(self.shape)


@dataclass(frozen=True)
class LohaModule:
    """The change of one module's weight as a product, element by element, of two low-rank products.

    `scale * (w1_a @ w1_b) * (w2_a @ w2_b)` (LyCORIS, `functional/loha.py`, `diff_weight`; peft, `tuners/loha/layer.py`,
    `make_weight`). With Tucker cores t1 and t2 each half is sum over i, j of t[i, j] w_a[i, out] w_b[j, in]
    (`make_weight_cp` in peft).

    Attributes:
        component, module: as in LoraModule.
        shape: of the weight.
        w1_a, w2_a: (out, rank); (rank, out) with cores.
        w1_b, w2_b: (rank, in * height * width); (rank, in) with cores.
        t1, t2: the cores, (rank, rank, height, width), or None.
        scale: alpha / rank.
        magnitude, magnitude_axis: as in LoraModule.
    """

    component: Component
    module: str
    shape: Shape
    w1_a: Tensor
    w1_b: Tensor
    w2_a: Tensor
    w2_b: Tensor
    scale: float
    t1: Tensor | None = None
    t2: Tensor | None = None
    magnitude: Tensor | None = None
    magnitude_axis: int = 0

    kind = "LoHa"

    @property
    def rank(self) -> int:
        """The inner dimension of each half."""
        return self.w1_b.shape[0]

    @property
    def factors(self) -> Mapping[str, Tensor]:
        """The four factors and the cores, as LyCORIS names them."""
        found = {"hada_w1_a": self.w1_a, "hada_w1_b": self.w1_b, "hada_w2_a": self.w2_a, "hada_w2_b": self.w2_b}
        return found | _present({"hada_t1": self.t1, "hada_t2": self.t2})

    def halves(self, dtype: torch.dtype = torch.float64) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return (up, down) of each half: (out, rank) and (rank, in * height * width)."""
        return (
            product_of(self.w1_a.to(dtype), self.w1_b.to(dtype), self.t1),
            product_of(self.w2_a.to(dtype), self.w2_b.to(dtype), self.t2),
        )

    def delta(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the change in the shape of the module's weight, without DoRA's renormalisation."""
        (up_1, down_1), (up_2, down_2) = self.halves(dtype)
        return (self.scale * (up_1 @ down_1) * (up_2 @ down_2)).reshape(self.shape)


@dataclass(frozen=True)
class LokrModule:
    """The change of one module's weight as a Kronecker product: `scale * kron(w1, w2)`.

    Either of the two may be a product of two factors, and w2's kernel may have a Tucker core (LyCORIS,
    `functional/lokr.py`, `diff_weight`; peft, `tuners/lokr/layer.py`, `get_delta_weight`).

    Attributes:
        component, module: as in LoraModule.
        shape: of the weight.
        w1: (a, c) where the weight is (a * b, c * d), or None where it is w1_a @ w1_b.
        w1_a, w1_b: (a, rank) and (rank, c), or None.
        w2: (b, d), or (b, d, height, width), or None.
        w2_a, w2_b: (b, rank) and (rank, d * height * width); with a core (rank, b) and (rank, d); or None.
        t2: the core, (rank, rank, height, width), or None.
        scale: what the product is multiplied by.
        magnitude, magnitude_axis: as in LoraModule.
    """

    component: Component
    module: str
    shape: Shape
    scale: float
    w1: Tensor | None = None
    w1_a: Tensor | None = None
    w1_b: Tensor | None = None
    w2: Tensor | None = None
    w2_a: Tensor | None = None
    w2_b: Tensor | None = None
    t2: Tensor | None = None
    magnitude: Tensor | None = None
    magnitude_axis: int = 0

    kind = "LoKr"

    @property
    def rank(self) -> int | None:
        """The inner dimension of what is factored, or None where neither part is."""
        factored = self.w2_b if self.w2_b is not None else self.w1_b
        return None if factored is None else factored.shape[0]

    @property
    def factors(self) -> Mapping[str, Tensor]:
        """What is there of the parts, as LyCORIS names them."""
        names = ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")
        return _present({f"lokr_{name}": getattr(self, name) for name in names})

    def parts(self, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        """Return w1 (a, c) and w2 (b, d * height * width), multiplied out."""
        if self.w1 is not None:
            first = self.w1.to(dtype)
        else:
            assert self.w1_a is not None
            assert self.w1_b is not None
            first = self.w1_a.to(dtype) @ self.w1_b.to(dtype)
        if self.w2 is not None:
            return first, self.w2.to(dtype).flatten(1)
        assert self.w2_a is not None
        assert self.w2_b is not None
        up, down = product_of(self.w2_a.to(dtype), self.w2_b.to(dtype), self.t2)
        return first, up @ down

    def delta(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the change in the shape of the module's weight, without DoRA's renormalisation."""
        first, second = self.parts(dtype)
        return (self.scale * torch.kron(first, second)).reshape(self.shape)


@dataclass(frozen=True)
class FullModule:
    """The change of one module's weight as it is: `scale * diff` (LyCORIS' `full`).

    Attributes:
        component, module: as in LoraModule.
        diff: in the shape of the weight.
        scale: 1 in every file.
        magnitude, magnitude_axis: as in LoraModule.
    """

    component: Component
    module: str
    diff: Tensor
    scale: float = 1.0
    magnitude: Tensor | None = None
    magnitude_axis: int = 0

    kind = "full"

    @property
    def rank(self) -> None:
        """Nothing is factored."""
        return

    @property
    def factors(self) -> Mapping[str, Tensor]:
        """The change."""
        return {"diff": self.diff}

    @property
    def shape(self) -> Shape:
        """The shape of the weight that is changed."""
        return tuple(self.diff.shape)

    def delta(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the change, without DoRA's renormalisation."""
        return self.scale * self.diff.to(dtype)


def product_of(a: Tensor, b: Tensor, core: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return a pair of matrices whose product two factors and their Tucker core, if there is one, stand for.

    Args:
        a: (out, rank), or (rank, out) with a core.
        b: (rank, in), flat behind its first dimension.
        core: (rank, rank, height, width), or None.
    """
    if core is None:
        return a.flatten(1), b.flatten(1)
    return a.T.contiguous(), torch.einsum("ijkl,jr->irkl", core.to(b.dtype), b).flatten(1)


def _present(tensors: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}
