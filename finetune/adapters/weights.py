"""A trained adapter in a neutral form that every exporter and reader here speaks.

Nothing in it depends on peft, on a naming dialect or on the way a scale was written in a recipe: one record per
adapted module, with the factors and the number their product is multiplied by.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Component = Literal["unet", "text_encoder", "text_encoder_2"]

COMPONENTS: tuple[Component, ...] = ("unet", "text_encoder", "text_encoder_2")


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

    def delta(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return `scale * up @ down` in the shape of the module's weight, without DoRA's renormalisation."""
        down = self.down.to(dtype).flatten(1)  # (rank, in * kh * kw)
        up = self.up.to(dtype).flatten(1)  # (out, rank)
        return (self.scale * (up @ down)).reshape(self.up.shape[0], *self.down.shape[1:])
