"""LoRA dropout whose mask is an argument: keyed by seed, step and module, never drawn from a global generator.

The mask depends on the key alone, so it is the same when gradient checkpointing runs a block's forward pass a second
time, and the same after a resume.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imagesets.randomness import key_to_seed


@dataclass
class DropoutKey:
    """The part of the key that changes from one micro batch to the next; one object serves all modules of a run."""

    seed: int = 0
    global_step: int = 0
    micro_batch: int = 0


class KeyedDropout(nn.Module):
    """Dropout in front of one LoRA module (Srivastava et al. 2014), inverted scaling."""

    def __init__(self, probability: float, name: str, key: DropoutKey) -> None:
        super().__init__()
        self.p = probability
        self.name = name
        self.key = key

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Zero entries with the module's probability and scale the rest so that the mean stays."""
        if not self.training:
            return hidden_states
        generator = torch.Generator(hidden_states.device)
        generator.manual_seed(
            key_to_seed(self.key.seed, "lora-dropout", self.key.global_step, self.key.micro_batch, self.name)
        )
        kept = torch.rand(hidden_states.shape, generator=generator, device=hidden_states.device) >= self.p
        return hidden_states * kept / (1.0 - self.p)
