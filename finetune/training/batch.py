"""One micro batch as the step takes it."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from finetune.model.text import TextEmbeddings
from finetune.training.prior import PriorText

NUM_TIME_IDS = (6, 5)
"""How many a base and a refiner take."""


@dataclass(frozen=True)
class TrainBatch:
    """What one forward pass is made from. Shapes are checked when it is made.

    Attributes:
        latents: (B, 4, h, w), float32, scaled.
        prompt_embeds: (B, 77 * chunks, width of both encoders).
        pooled_prompt_embeds: (B, projection width).
        add_time_ids: (B, 6), float32: original (h, w), crop (top, left), target (h, w); for a refiner (B, 5): original
            (h, w), crop (top, left), aesthetic score. bf16 would turn 1366 into 1368.
        sample_weights: (B,), float32: what each sample's loss counts in the optimizer step. They sum to 1 over a full
            step of samples whose own weight is 1; 0 marks a filler that keeps processes in step.
        sample_names: (B,) names of the pictures, for messages.
        prompt_mask: (B, 77 * chunks), bool: which of the tokens belong to the sample's own text; None where all do.
        loss_mask: (B, 1, h, w), float32, from 0 to 1: what each place's error counts; None where all count whole.
        prior: what the frozen base is asked with beside; None where it is not.
    """

    latents: Tensor
    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor
    add_time_ids: Tensor
    sample_weights: Tensor
    sample_names: tuple[str, ...]
    prompt_mask: Tensor | None = None
    loss_mask: Tensor | None = None
    prior: PriorText | None = None

    def __post_init__(self) -> None:
        size = self.latents.shape[0]
        shapes_fit = (
            self.latents.ndim == 4
            and self.prompt_embeds.ndim == 3
            and self.prompt_embeds.shape[0] == size
            and self.pooled_prompt_embeds.ndim == 2
            and self.pooled_prompt_embeds.shape[0] == size
            and self.add_time_ids.ndim == 2
            and self.add_time_ids.shape[0] == size
            and self.add_time_ids.shape[1] in NUM_TIME_IDS
            and self.sample_weights.shape == (size,)
            and len(self.sample_names) == size
            and (self.prompt_mask is None or self.prompt_mask.shape == self.prompt_embeds.shape[:2])
            and (self.loss_mask is None or self.loss_mask.shape == (size, 1, *self.latents.shape[2:]))
        )
        assert shapes_fit, f"a batch whose parts do not fit: {self.shapes()}"
        assert self.add_time_ids.dtype == torch.float32, "time ids lose whole numbers in lower precision"
        assert self.latents.dtype == torch.float32, "latents are kept in float32 until noise is added"

    @property
    def text(self) -> TextEmbeddings:
        """What the captions say to the U-Net."""
        return TextEmbeddings(self.prompt_embeds, self.pooled_prompt_embeds, self.prompt_mask)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return each tensor's shape by name."""
        return {name: tuple(value.shape) for name, value in vars(self).items() if isinstance(value, Tensor)}

    def to(self, device: torch.device) -> "TrainBatch":
        """Return the batch on `device`."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved, prior=None if self.prior is None else self.prior.to(device))
