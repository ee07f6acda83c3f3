"""The miniature's models, a batch for its U-Net, and a way to move an adapter away from where it starts."""

import copy
import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from finetune.adapters.lora import lora_parameters
from finetune.model.miniature import Miniature


@functools.cache
def _loaded(component: str) -> nn.Module:
    return getattr(Miniature(), f"load_{component}")(torch.float32)


@pytest.fixture
def load() -> Callable[..., nn.Module]:
    """Return a function that gives a fresh copy of one of the miniature's models; drawing its weights takes longer."""

    def load_component(component: str = "unet", dtype: torch.dtype = torch.float32) -> nn.Module:
        return nn.Module.to(copy.deepcopy(_loaded(component)), dtype)

    return load_component


@pytest.fixture
def run() -> Callable[[nn.Module, str], Tensor]:
    """Return a function that runs a model of the miniature on a fixed input."""

    def run_model(model: nn.Module, component: str = "unet") -> Tensor:
        generator = torch.Generator().manual_seed(5)
        if component != "unet":
            ids = torch.randint(0, 447, (2, 77), generator=generator)
            output = model(ids, output_hidden_states=True)
            pooled = output.text_embeds if component == "text_encoder_2" else output.last_hidden_state
            return torch.cat([output.hidden_states[-2].flatten(), pooled.flatten()])
        conditioning = {
            "text_embeds": torch.randn(2, 96, generator=generator),
            "time_ids": torch.tensor([[40.0, 48, 0, 4, 32, 32]] * 2),
        }
        latents, text = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 77, 160, generator=generator)
        return model(latents, torch.tensor([10, 700]), text, added_cond_kwargs=conditioning, return_dict=False)[0]

    return run_model


def move(model: nn.Module) -> None:
    """Change every adapter parameter, as training would."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in lora_parameters(model).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


@pytest.fixture
def moved() -> Callable[[nn.Module], None]:
    """Return the function that changes every adapter parameter."""
    return move
