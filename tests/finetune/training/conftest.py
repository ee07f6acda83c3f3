"""Batches without pictures behind them, and hashes of tensors."""

import hashlib
from collections.abc import Callable, Iterable, Mapping

import pytest
import torch
from torch import Tensor, nn

from finetune.training.batch import TrainBatch

MakeBatch = Callable[..., TrainBatch]


@pytest.fixture
def make_batch() -> MakeBatch:
    """Return a function that invents a batch of `size` samples for the miniature."""

    def make(size: int = 2, time_ids: tuple[float, ...] = (1366, 911, 3, 5, 32, 32)) -> TrainBatch:
        generator = torch.Generator().manual_seed(7)
        return TrainBatch(
            latents=torch.randn(size, 4, 8, 8, generator=generator),
            prompt_embeds=torch.randn(size, 77, 160, generator=generator),
            pooled_prompt_embeds=torch.randn(size, 96, generator=generator),
            add_time_ids=torch.tensor([time_ids] * size, dtype=torch.float32),
            sample_weights=torch.full((size,), 1.0 / size),
            sample_names=tuple(f"{index}.png" for index in range(size)),
        )

    return make


def hashes(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> dict[str, str]:
    """Return a hash of each tensor's bytes, which tells negative zero from zero."""
    items = tensors.items() if isinstance(tensors, Mapping) else tensors
    return {
        name: hashlib.sha256(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes()).hexdigest()
        for name, tensor in items
    }


@pytest.fixture
def hash_tensors() -> Callable[..., dict[str, str]]:
    """Return the function that hashes tensors by name."""
    return hashes


@pytest.fixture
def base_hashes() -> Callable[[nn.Module], dict[str, str]]:
    """Return a function that hashes everything of a model that is not the adapter's."""

    def base(model: nn.Module) -> dict[str, str]:
        tensors = [*model.named_parameters(), *model.named_buffers()]
        return hashes((name, tensor) for name, tensor in tensors if ".lora_" not in name)

    return base
