"""Random draws as a pure function of (seed, purpose, step, sample).

No generator lives from one step to the next, so a run's state holds none: a resumed run draws what an uninterrupted
one would have drawn, and the number of processes or the size of a micro batch changes no draw.
Draws are made on the CPU, so they are the same on every device.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from imagesets.randomness import key_to_seed


def keyed_generator(*key: int | str) -> torch.Generator:
    """Return a fresh CPU generator for `key`."""
    return torch.Generator().manual_seed(key_to_seed(*key))


class BatchGenerator:
    """The draws of one micro batch, each sample's from its own key.

    Args:
        seed: the run's seed.
        global_step: the optimizer step that is being taken.
        sample_keys: a text for each sample of the batch, unique within the step.
    """

    def __init__(self, seed: int, global_step: int, sample_keys: Sequence[str]) -> None:
        self.seed = seed
        self.global_step = global_step
        self.sample_keys = tuple(sample_keys)

    def normal(self, purpose: str, shape: Sequence[int]) -> Tensor:
        """Return standard normal values, (B, *shape), float32."""
        return torch.stack([torch.randn(tuple(shape), generator=generator) for generator in self._generators(purpose)])

    def uniform(self, purpose: str) -> Tensor:
        """Return one value in [0, 1) a sample, (B,), float32."""
        return torch.cat([torch.rand(1, generator=generator) for generator in self._generators(purpose)])

    def integers(self, purpose: str, low: int, high: int) -> Tensor:
        """Return one whole number from low to high, both included, a sample, (B,), int64."""
        drawn = [torch.randint(low, high + 1, (1,), generator=generator) for generator in self._generators(purpose)]
        return torch.cat(drawn)

    def _generators(self, purpose: str) -> list[torch.Generator]:
        return [keyed_generator(self.seed, purpose, self.global_step, key) for key in self.sample_keys]
