"""Optimizers by name, each built from its own settings. A missing library is named with the line that installs it."""

import io
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from typing import Any

import torch
from torch.optim import Optimizer

from finetune.errors import RecipeError
from finetune.recipe.training import (
    AdafactorOptimizer,
    AdamW8bitOptimizer,
    AdamWOptimizer,
    AutoOptimizer,
    PagedAdamW8bitOptimizer,
    ProdigyOptimizer,
)

ParameterGroups = Iterable[dict[str, Any]]


def adamw(groups: ParameterGroups, settings: AdamWOptimizer | AutoOptimizer) -> Optimizer:
    """Build torch's fused AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101)."""
    return torch.optim.AdamW(
        groups, betas=settings.betas, eps=settings.eps, weight_decay=settings.weight_decay, fused=True
    )


def adamw8bit(groups: ParameterGroups, settings: AdamW8bitOptimizer | AutoOptimizer) -> Optimizer:
    """Build AdamW with block-wise 8-bit state (Dettmers et al. 2022, arXiv 2110.02861)."""
    return _bitsandbytes("adamw8bit", "AdamW8bit", groups, settings)


def paged_adamw8bit(groups: ParameterGroups, settings: PagedAdamW8bitOptimizer) -> Optimizer:
    """Build the 8-bit AdamW whose state may leave the card."""
    return _bitsandbytes("paged_adamw8bit", "PagedAdamW8bit", groups, settings)


def adafactor(groups: ParameterGroups, settings: AdafactorOptimizer) -> Optimizer:
    """Build Adafactor at the recipe's learning rate (Shazeer & Stern 2018, arXiv 1804.04235)."""
    from transformers.optimization import Adafactor

    return Adafactor(
        list(groups), weight_decay=settings.weight_decay, relative_step=False, scale_parameter=False, warmup_init=False
    )


def prodigy(groups: ParameterGroups, settings: ProdigyOptimizer) -> Optimizer:
    """Build Prodigy, which finds the step size (Mishchenko & Defazio 2023, arXiv 2306.06101).

    Raises:
        RecipeError: it is not installed, or the groups' learning rates differ: it finds one step size for all.
    """
    groups = list(groups)
    if len({group["lr"] for group in groups}) > 1:
        given = ", ".join(f"{group['name']} {group['lr']:g}" for group in groups)
        wanted = " ".join(f"adapter.{group['name']}.learning_rate=1.0" for group in groups)
        raise RecipeError(
            f"training.optimizer.kind: prodigy finds one step size for all adapters and needs one learning rate; "
            f"got {given}. Set {wanted}"
        )
    try:
        from prodigyopt import Prodigy
    except ImportError as error:
        raise _missing("prodigy", "prodigyopt") from error
    with redirect_stdout(io.StringIO()):  # it prints a line as it is made; stdout is for results
        return Prodigy(
            groups,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            decouple=True,
            d_coef=settings.d_coef,
            use_bias_correction=settings.use_bias_correction,
            safeguard_warmup=settings.safeguard_warmup,
        )


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adamw": adamw,
    "adamw8bit": adamw8bit,
    "paged_adamw8bit": paged_adamw8bit,
    "adafactor": adafactor,
    "prodigy": prodigy,
}


def optimizer_kind(
    settings: AutoOptimizer
    | AdamWOptimizer
    | AdamW8bitOptimizer
    | PagedAdamW8bitOptimizer
    | AdafactorOptimizer
    | ProdigyOptimizer,
    device: torch.device,
) -> str:
    """Return the registry's name: `auto` is adamw8bit on CUDA and adamw elsewhere."""
    if settings.kind != "auto":
        return settings.kind
    return "adamw8bit" if device.type == "cuda" else "adamw"


def build_optimizer(kind: str, groups: list[dict[str, Any]], settings: Any) -> Optimizer:
    """Build the optimizer `kind` over groups of `params`, `lr` and `name`. The rates in the groups are the peaks."""
    return OPTIMIZERS[kind](groups, settings)


def _bitsandbytes(kind: str, class_name: str, groups: ParameterGroups, settings: Any) -> Optimizer:
    try:
        import bitsandbytes.optim
    except ImportError as error:
        raise _missing(kind, "bitsandbytes") from error
    return getattr(bitsandbytes.optim, class_name)(
        list(groups), betas=settings.betas, eps=settings.eps, weight_decay=settings.weight_decay
    )


def _missing(kind: str, package: str) -> RecipeError:
    return RecipeError(
        f"training.optimizer.kind: {kind} needs {package}, which is not installed here. "
        f"Type: pip install {package}  (or choose another of: {', '.join(OPTIMIZERS)})"
    )
