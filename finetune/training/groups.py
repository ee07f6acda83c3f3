"""The trainable parameters: which model each belongs to, its learning rate, and when it stops."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from finetune.adapters.lora import lora_layers, lora_parameters
from finetune.adapters.weights import Component


@dataclass(frozen=True)
class AdapterGroup:
    """One model's adapter in training.

    Attributes:
        component: the model.
        model: the model itself, with the adapter in it.
        learning_rate: the peak, before the schedule's factor.
        stop_after_steps: the adapter stays as it is after this many optimizer steps, or None.
    """

    component: Component
    model: nn.Module
    learning_rate: float
    stop_after_steps: int | None = None

    def is_trained_at(self, global_step: int) -> bool:
        """Whether optimizer step `global_step`, from 1, still changes it."""
        return self.stop_after_steps is None or global_step <= self.stop_after_steps

    def num_modules(self) -> int:
        """Count the adapted modules."""
        return sum(1 for _ in lora_layers(self.model))

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return its parameters under names that are unique over all groups."""
        return {f"{self.component}.{name}": parameter for name, parameter in lora_parameters(self.model).items()}


def optimizer_groups(groups: Mapping[str, AdapterGroup]) -> list[dict[str, Any]]:
    """Return the groups as an optimizer takes them, named."""
    return [
        {"params": list(group.parameters().values()), "lr": group.learning_rate, "name": name}
        for name, group in groups.items()
    ]


def all_parameters(groups: Mapping[str, AdapterGroup]) -> dict[str, nn.Parameter]:
    """Return every trainable parameter by its unique name."""
    return {name: parameter for group in groups.values() for name, parameter in group.parameters().items()}
