"""Gradients around backward and the optimizer: scaled for fp16, summed over processes, checked, clipped."""

from collections.abc import Iterable, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from finetune.errors import DivergedError

_NAMES_SHOWN = 8


def make_scaler(device: torch.device, *, enabled: bool) -> torch.amp.GradScaler:
    """Return fp16's loss scale, ready also in a process that has no batch in the first step."""
    scaler = torch.amp.GradScaler(device.type, enabled=enabled)
    scaler.scale(torch.zeros((), device=device))  # makes its scale; it would else wait for the first loss
    return scaler


def reduce_gradients(accelerator: Accelerator, parameters: Sequence[nn.Parameter]) -> None:
    """Sum gradients over all processes, in one exchange.

    A process that had no batch in a short last step takes part with zeros; a parameter that has a gradient nowhere has
    none afterwards either, so that the optimizer leaves it alone. The samples' weights already sum to one over the
    whole step, so the sum is the step's gradient.
    """
    if accelerator.num_processes == 1:
        return
    device = parameters[0].device
    present = torch.tensor([float(parameter.grad is not None) for parameter in parameters], device=device)
    flat = torch.cat([
        present,
        *((torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters),
    ])  # fmt: skip
    summed = accelerator.reduce(flat, reduction="sum")
    counts, *gradients = summed.split([len(parameters), *(parameter.numel() for parameter in parameters)])
    for parameter, count, gradient in zip(parameters, counts.tolist(), gradients, strict=True):
        # In the parameter's order in memory, which fused optimizers rely on.
        parameter.grad = torch.empty_like(parameter).copy_(gradient.view_as(parameter)) if count else None


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the 2-norm over all gradients, (), float32; not finite if any gradient is not."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)


def clip_gradients(parameters: Iterable[nn.Parameter], norm: Tensor, max_norm: float) -> None:
    """Shorten all gradients by one factor where their norm is above `max_norm` (Pascanu et al. 2013)."""
    torch.nn.utils.clip_grads_with_norm_(list(parameters), max_norm, norm)


def require_finite(value: float, what: str, step: int, sample_names: Sequence[str]) -> None:
    """Stop before the optimizer when a number is NaN or infinite.

    Raises:
        DivergedError: naming the step and the pictures it was computed from.
    """
    if value == value and abs(value) != float("inf"):
        return
    shown = ", ".join(sample_names[:_NAMES_SHOWN])
    more = f" and {len(sample_names) - _NAMES_SHOWN} more" if len(sample_names) > _NAMES_SHOWN else ""
    raise DivergedError(
        f"step {step}: the {what} is {value}. Nothing was updated with it. The pictures of the batch: {shown}{more}. "
        "Look at them; if they are sound, go on from the last checkpoint with a lower learning rate or in another "
        "precision: --resume adapter.unet.learning_rate=… or --resume training.precision=fp32"
    )
