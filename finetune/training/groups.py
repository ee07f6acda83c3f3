"""The trainable parameters: which model each belongs to, its learning rate, and when it stops."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from finetune.adapters.lora import lora_layers


@dataclass(frozen=True)
class TrainedGroup:
    """One model in training: an adapter in it, or its own weights. What is trained takes gradients, the rest none.

    Attributes:
        component: which model: unet, text_encoder, text_encoder_2 or vae.
        model: the model itself, with an adapter in it or without.
        learning_rate: the peak, before the schedule's factor.
        stop_after_steps: it stays as it is after this many optimizer steps, or None.
    """

    component: str
    model: nn.Module
    learning_rate: float
    stop_after_steps: int | None = None

    def is_trained_at(self, global_step: int) -> bool:
        """Whether optimizer step `global_step`, from 1, still changes it."""
        return self.stop_after_steps is None or global_step <= self.stop_after_steps

    def num_modules(self) -> int:
        """Count the adapted modules or, where the model's own weights are trained, the modules that hold some."""
        num_adapted = sum(1 for _ in lora_layers(self.model))
        return num_adapted or sum(
            1
            for module in self.model.modules()
            if any(parameter.requires_grad for parameter in module.parameters(recurse=False))
        )

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return its trainable parameters, in the model's order, under names that are unique over all groups."""
        return {
            f"{self.component}.{name}": parameter
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
        }

    def initial(self) -> dict[str, Tensor]:
        """Return what its factors began as, where they did not begin as no change, named as its parameters are."""
        return {
            f"{self.component}.{name}": buffer
            for name, buffer in self.model.named_buffers()
            if ".lora_" in name and name.endswith(".initial")
        }


def optimizer_groups(groups: Mapping[str, TrainedGroup]) -> list[dict[str, Any]]:
    """Return the groups as an optimizer takes them, named."""
    return [
        {"params": list(group.parameters().values()), "lr": group.learning_rate, "name": name}
        for name, group in groups.items()
    ]


def all_parameters(groups: Mapping[str, TrainedGroup]) -> dict[str, nn.Parameter]:
    """Return every trainable parameter by its unique name."""
    return {name: parameter for group in groups.values() for name, parameter in group.parameters().items()}
