"""A trained adapter in a neutral form that every exporter and reader here speaks.

Nothing in it depends on peft, on a naming dialect or on the way a scale was written in a recipe: one record per
adapted module, with the factors and the number their product is multiplied by.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from finetune.naming.components import Component


class AdaptedModule(Protocol):
    """What every neutral form says of itself: one record per adapted module, whichever way its change is factored.

    Attributes:
        component: the model the module belongs to.
        module: its path in diffusers' (U-Net) or transformers' (encoders) naming. Encoder paths always start with
            `text_model.`, whichever version of transformers built the model.
        magnitude: DoRA's learned norms, or None.
    """

    @property
    def component(self) -> Component: ...  # noqa: D102 - above

    @property
    def module(self) -> str: ...  # noqa: D102

    @property
    def magnitude(self) -> Tensor | None: ...  # noqa: D102

    @property
    def shape(self) -> tuple[int, ...]:
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
        magnitude: DoRA's learned column norm, (out,), or None for plain LoRA.
    """

    component: Component
    module: str
    down: Tensor
    up: Tensor
    scale: float
    magnitude: Tensor | None = None

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
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight that is changed: (out, in) or (out, in, height, width)."""
        return (self.up.shape[0], *self.down.shape[1:])

    def delta(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return `scale * up @ down` in the shape of the module's weight, without DoRA's renormalisation."""
        down = self.down.to(dtype).flatten(1)  # (rank, in * kh * kw)
        up = self.up.to(dtype).flatten(1)  # (out, rank)
        return (self.scale * (up @ down)).reshape(self.shape)
