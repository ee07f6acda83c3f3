"""Give the modules of a LoRA file smaller ranks, each keeping as much of its change as a rank can.

A factorisation of LoHa, LoKr or of a whole change becomes a plain LoRA by the same means. With DoRA only the factors
change: its magnitudes are the learned norms of the rows of the weight after the change, which say nothing of how the
change is factored, so they stay; what a smaller rank loses is direction.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from finetune.adapters.weights import AdaptedModule, LoraModule
from finetune.dialects.lora_file import LoraFile
from finetune.loras.svd import RankRule, decompose_dense, decompose_product, product_norm
from finetune.loras.writing import Watch, choose_precision, rounded, unwatched, write_made
from finetune.naming.components import COMPONENTS, Component
from finetune.naming.structure import ModelStructure


@dataclass(frozen=True)
class ResizedModule:
    """How one module came out.

    Attributes:
        component, module: which one.
        old_rank: None where it was no plain LoRA.
        new_rank: of the written factors.
        norm: the Frobenius norm of its change before.
        error: that of the difference between the change before and as it was written, rounding included.
    """

    component: Component
    module: str
    old_rank: int | None
    new_rank: int
    norm: float
    error: float

    @property
    def relative_error(self) -> float:
        """The error as a share of the change."""
        return self.error / self.norm if self.norm > 0 else 0.0


@dataclass(frozen=True)
class ResizeReport:
    """What resizing did, module by module, and the sizes of both files in bytes."""

    modules: tuple[ResizedModule, ...]
    bytes_before: int
    bytes_after: int

    def of(self, component: Component | None) -> tuple[ResizedModule, ...]:
        """Return the modules of one model, or all."""
        return tuple(module for module in self.modules if component in (None, module.component))

    def plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "components": {name: summarise(self.of(name)) for name in COMPONENTS if self.of(name)},
            "total": summarise(self.modules),
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
        }


def resize(
    source: Path,
    target: Path,
    *,
    rule: RankRule,
    structure: ModelStructure,
    precision: str | None = None,
    watch: Watch = unwatched,
) -> ResizeReport:
    """Write a LoRA file's modules with the ranks that `rule` chooses; one whose rank is small enough stays as it is.

    Args:
        source: a LoRA file.
        target: the new one, in kohya's format, with one alpha for all modules of a component.
        rule: how ranks are chosen.
        structure: the model it was trained on.
        precision: of the new file; None for the old one's.
        watch: told of progress.

    Raises:
        AtelierError: the file cannot be read or trusted, or its numbers do not fit the precision.
        DiskError: the disk refuses.
    """
    resized: list[ResizedModule] = []

    def modules() -> Iterator[LoraModule]:
        for done, name in enumerate(file.names, start=1):
            before = file.load(name)
            after = rounded(resize_module(before, rule), width)
            resized.append(compare(before, after))
            yield after
            watch(done, len(file.names))

    with LoraFile(source, structure) as file:
        width = choose_precision(precision, [file])
        made_by = {"verb": "resize", "rank": rule.rank, "energy": rule.energy, "of": [source.stem]}
        write_made(modules(), target, precision=width, structure=structure, metadata=file.metadata, made_by=made_by)
    return ResizeReport(tuple(resized), source.stat().st_size, target.stat().st_size)


def resize_module(module: AdaptedModule, rule: RankRule) -> LoraModule:
    """Return the best plain LoRA of the rank that `rule` chooses; a plain one of no larger rank as it is."""
    if isinstance(module, LoraModule):
        if rule.energy is None and rule.rank is not None and module.rank <= rule.rank:
            return module
        parts = decompose_product(module.up.double() * module.scale, module.down)
    else:
        parts = decompose_dense(module.delta(torch.float64))
    up, down = parts.factors(rule.choose(parts.values))
    return plain_lora(module, up, down)


def plain_lora(like: AdaptedModule, up: torch.Tensor, down: torch.Tensor) -> LoraModule:
    """Return a module whose change is up (out, rank) @ down (rank, in · height · width), as factors and a scale.

    The alpha of a plain LoRA stays, and that of others becomes 1: kohya's format wants one alpha for all modules of a
    model, and the exporter would have to round once more where they differ. The scale is taken out of both factors
    evenly.
    """
    rank, kernel = up.shape[1], like.shape[2:]
    alpha = like.scale * like.rank if isinstance(like, LoraModule) and like.scale != 0 else 1.0
    scale = alpha / rank
    root = abs(scale) ** 0.5
    return LoraModule(
        like.component,
        like.module,
        down=(down / root).float().reshape(rank, *like.shape[1:]).contiguous(),
        up=(up / (root if scale > 0 else -root)).float().reshape(-1, rank, *[1] * len(kernel)).contiguous(),
        scale=scale,
        magnitude=like.magnitude,
        magnitude_axis=like.magnitude_axis,
    )


def compare(before: AdaptedModule, after: LoraModule) -> ResizedModule:
    """Measure what a new factorisation lost, without forming the change where both are plain LoRAs."""
    if isinstance(before, LoraModule):
        norm = product_norm(before.up.double() * before.scale, before.down)
        error = 0.0
        if before is not after:
            up = torch.cat(
                [before.up.flatten(1).double() * before.scale, -after.up.flatten(1).double() * after.scale], 1
            )
            error = product_norm(up, torch.cat([before.down.flatten(1).double(), after.down.flatten(1).double()]))
        old_rank = before.rank
    else:
        change = before.delta(torch.float64)
        norm, error, old_rank = change.norm().item(), (change - after.delta(torch.float64)).norm().item(), None
    return ResizedModule(before.component, before.module, old_rank, after.rank, norm, error)


def summarise(modules: Sequence[ResizedModule]) -> dict[str, Any]:
    """Return the ranks and errors of some modules, one or more, as plain data."""
    old = [module.old_rank for module in modules if module.old_rank is not None]
    new = [module.new_rank for module in modules]
    worst = max(modules, key=lambda module: module.relative_error)
    norm = sum(module.norm**2 for module in modules) ** 0.5
    error = sum(module.error**2 for module in modules) ** 0.5
    return {
        "modules": len(modules),
        "old_ranks": [min(old), max(old)] if old else None,
        "new_ranks": [min(new), max(new)],
        "relative_error": error / norm if norm > 0 else 0.0,
        "worst_module": f"{worst.component}.{worst.module}",
        "worst_relative_error": worst.relative_error,
    }
