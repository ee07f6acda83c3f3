"""Merge LoRA files into one: modules of several files added up, those of one file alone kept as they are.

Methods, by the names of peft's `add_weighted_adapter` where it has one:

- `cat`: the factors one behind the other. The weighted sum of the changes, exactly; ranks add up.
- `svd`: that sum, cut to a rank by its singular values.
- `ties` (peft: ties_svd): Yadav et al. 2023 (arXiv 2306.01708, section 4): of each change only the `density` largest
  numbers stay; for each number of the weight the sign with the larger sum is elected, and those that agree are
  averaged. A file's weight multiplies its change first.
- `dare` (peft: dare_linear_svd): Yu et al. 2024 (arXiv 2311.03099, section 3): every number of a change is dropped with
  probability 1 - density, the rest divided by density, and the changes added up.

peft's `linear` is not offered: it adds up the factors, sqrt(w) A and sqrt(w) B each, so beside the weighted changes
the product holds every file's B times every other's A, which nobody trained. `svd` is the weighted sum it looks like.
DoRA is refused: a magnitude is the norm of a row with one change in it, and says nothing of what another adds.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from finetune.adapters.weights import LoraModule
from finetune.dialects.lora_file import AnyModule, LoraFile
from finetune.errors import AtelierError, RecipeError
from finetune.loras.resize import plain_lora, resize_module
from finetune.loras.svd import RankRule, decompose_dense, decompose_product
from finetune.loras.writing import Watch, choose_precision, unwatched, write_made
from finetune.naming.components import COMPONENTS, Component
from finetune.naming.structure import ModelStructure
from imagesets.randomness import key_to_seed

MERGE_METHODS = ("cat", "svd", "ties", "dare")


@dataclass(frozen=True)
class MergeSettings:
    """How files are merged.

    Attributes:
        method: one of MERGE_METHODS, see the module.
        rank: of the result, for every method but cat; None takes the largest rank a module has in the files.
        density: the share of numbers that ties and dare keep.
        seed: of dare's draws.
    """

    method: str = "cat"
    rank: int | None = None
    density: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in MERGE_METHODS:
            why = (
                ": peft's linear adds up factors, not changes, and so multiplies each file's with the others'. "
                "'svd' is the weighted sum of the changes"
                if self.method == "linear"
                else ""
            )
            raise RecipeError(f"--method {self.method!r} is not known{why}. Known: {', '.join(MERGE_METHODS)}")
        if self.rank is not None and (self.method == "cat" or self.rank < 1):
            raise RecipeError(
                f"--rank {self.rank}: with --method cat ranks add up; take --method svd for a rank"
                if self.method == "cat"
                else f"--rank {self.rank}: needs 1 or more"
            )
        if not 0 < self.density <= 1:
            raise RecipeError(f"--density {self.density:g}: needs a share above 0 and up to 1")


@dataclass(frozen=True)
class MergeReport:
    """What merging did.

    Attributes:
        shared: for each model, modules that more than one file has.
        alone: for each model, modules of one file, which are as they were, times its weight.
        ranks: for each model, the smallest and the largest rank written, where anything there has one.
    """

    shared: Mapping[Component, int]
    alone: Mapping[Component, int]
    ranks: Mapping[Component, tuple[int, int]]

    def plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            component: {
                "shared": self.shared[component],
                "alone": self.alone[component],
                "ranks": list(self.ranks[component]) if component in self.ranks else None,
            }
            for component in COMPONENTS
            if self.shared[component] + self.alone[component]
        }


def merge(
    sources: Sequence[Path],
    weights: Sequence[float],
    target: Path,
    *,
    settings: MergeSettings,
    structure: ModelStructure,
    precision: str | None = None,
    watch: Watch = unwatched,
) -> MergeReport:
    """Write several LoRA files as one.

    Args:
        sources: LoRA files of one model, two or more.
        weights: what each file's change is multiplied by; below zero takes it away.
        target: the new file, in kohya's format.
        settings: the method.
        structure: the model they were trained on.
        precision: of the new file; None for theirs, or fp32 where theirs differ.
        watch: told of progress.

    Raises:
        RecipeError: a weight is missing or zero.
        AtelierError: a file cannot be read, has DoRA, or changes a module of another shape than the others.
        DiskError: the disk refuses.
    """
    check_weights(sources, weights)
    ranks: dict[Component, list[int]] = {component: [] for component in COMPONENTS}
    shared, alone = dict.fromkeys(COMPONENTS, 0), dict.fromkeys(COMPONENTS, 0)

    def modules() -> Iterator[AnyModule]:
        names, owned = _all_names(files), [set(file.names) for file in files]
        for done, name in enumerate(names, start=1):
            owners = [(index, file.load(name)) for index, file in enumerate(files) if name in owned[index]]
            parts = [_Part(index, weights[index], _without_dora(sources[index], module)) for index, module in owners]
            _check_fit(sources, parts)
            merged = merge_module(parts, settings)
            if merged.rank is not None:
                ranks[name[0]].append(merged.rank)
            (shared if len(parts) > 1 else alone)[name[0]] += 1
            yield merged
            watch(done, len(names))

    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(LoraFile(source, structure)) for source in sources]
        write_made(
            modules(),
            target,
            precision=choose_precision(precision, files),
            structure=structure,
            metadata=_first_metadata(files[0]),
            made_by=_made_by(sources, weights, settings),
        )
    return MergeReport(shared, alone, {name: (min(found), max(found)) for name, found in ranks.items() if found})


@dataclass(frozen=True)
class _Part:
    """One file's module: which file, its weight, its change."""

    index: int
    weight: float
    module: AnyModule


def merge_module(parts: Sequence[_Part], settings: MergeSettings) -> AnyModule:
    """Return what several files change in one module, as one LoRA; what one file alone changes, as it has it.

    Raises:
        AtelierError: `cat` is asked to join what are no plain LoRAs.
    """
    first = parts[0].module
    if len(parts) == 1:
        alone = replace(first, scale=first.scale * parts[0].weight)
        return alone if settings.rank is None else resize_module(alone, RankRule(settings.rank))
    plain = [(part.weight, part.module) for part in parts if isinstance(part.module, LoraModule)]
    is_plain = len(plain) == len(parts)
    if settings.method == "cat" and not is_plain:
        raise AtelierError(
            f"{first.component}.{first.module}: LoHa, LoKr and whole changes cannot be joined factor by factor. "
            "Take --method svd"
        )
    if settings.method == "cat":
        return concatenate(plain)
    rule = RankRule(settings.rank or (max(module.rank for _, module in plain) if is_plain else min(first.shape[:2])))
    if settings.method == "svd" and is_plain:
        joined = concatenate(plain)
        found = decompose_product(joined.up.double() * joined.scale, joined.down)
    else:
        found = decompose_dense(_dense_merge(parts, settings))
    return plain_lora(first, *found.factors(rule.choose(found.values)))


def _dense_merge(parts: Sequence[_Part], settings: MergeSettings) -> Tensor:
    """Return the merged change of one module's weight, whole."""
    changes = [part.module.delta(torch.float64) * part.weight for part in parts]
    if settings.method == "ties":
        return ties(changes, settings.density)
    if settings.method == "dare":
        first = parts[0].module
        keys = [("lora-merge-dare", part.index, first.component, first.module) for part in parts]
        generators = [torch.Generator().manual_seed(key_to_seed(settings.seed, *key)) for key in keys]
        changes = [drop(change, settings.density, g) for change, g in zip(changes, generators, strict=True)]
    return torch.stack(changes).sum(0)


def concatenate(parts: Sequence[tuple[float, LoraModule]]) -> LoraModule:
    """Return the weighted sum of changes as one LoRA of the sum of their ranks.

    The largest of the scales becomes the whole's, so that factors of equal weight and scale are not even rounded.
    """
    factors = [weight * module.scale for weight, module in parts]
    scale = max(map(abs, factors)) or 1.0
    first = parts[0][1]
    return replace(
        first,
        down=torch.cat([module.down for _, module in parts]),
        up=torch.cat([module.up * (factor / scale) for factor, (_, module) in zip(factors, parts, strict=True)], dim=1),
        scale=scale,
    )


def ties(changes: Sequence[Tensor], density: float) -> Tensor:
    """Trim, elect signs, and average those that agree (Yadav et al. 2023, section 4, algorithm 1 with lambda 1)."""
    stacked = torch.stack([trim(change, density) for change in changes])
    elected = stacked.sum(0).sign()
    agree = (stacked.sign() == elected) & (stacked != 0)
    return torch.where(agree, stacked, 0.0).sum(0) / agree.sum(0).clamp(min=1)


def trim(change: Tensor, density: float) -> Tensor:
    """Keep the share `density` of numbers that are largest in magnitude, and all as large; the rest becomes zero."""
    sizes = change.abs().flatten()
    dropped = min(round((1 - density) * sizes.numel()), sizes.numel() - 1)
    return torch.where(change.abs() >= sizes.kthvalue(dropped + 1).values, change, 0.0)


def drop(change: Tensor, density: float, generator: torch.Generator) -> Tensor:
    """Keep each number with probability `density`, divided by it (Yu et al. 2024, equation 3)."""
    kept = torch.rand(change.shape, generator=generator, dtype=torch.float64) < density
    return torch.where(kept, change / density, 0.0)


def check_weights(sources: Sequence[Path], weights: Sequence[float]) -> None:
    """Refuse fewer than two files, and weights that are not one for each. Raises RecipeError."""
    if len(sources) < 2:
        raise RecipeError("merging needs two LoRA files or more")
    if len(weights) != len(sources):
        raise RecipeError(f"--weights: got {len(weights)} for {len(sources)} files; give one for each, or none")
    for source, weight in zip(sources, weights, strict=True):
        if not math.isfinite(weight) or weight == 0:
            raise RecipeError(f"--weights: {weight:g} for {source.name}: needs a number other than 0; or leave it out")


def _all_names(files: Sequence[LoraFile]) -> list[tuple[Component, str]]:
    """Return every module of any file, once, in the order of models and then of files."""
    names = dict.fromkeys(name for file in files for name in file.names)
    return sorted(names, key=lambda name: COMPONENTS.index(name[0]))


def _without_dora(source: Path, module: AnyModule) -> AnyModule:
    if module.magnitude is not None:
        raise AtelierError(
            f"{source}: has DoRA ({module.component}.{module.module}), whose norms say nothing of what "
            "others add. Fuse it into a base (`atelier lora fuse`), or use the files beside each other"
        )
    return module


def _check_fit(sources: Sequence[Path], parts: Sequence[_Part]) -> None:
    first = parts[0]
    for part in parts[1:]:
        if part.module.shape != first.module.shape:
            raise AtelierError(
                f"{first.module.component}.{first.module.module}: {sources[first.index].name} changes a weight of "
                f"{first.module.shape}, {sources[part.index].name} one of {part.module.shape}: "
                "they were trained on different models"
            )


def _first_metadata(file: LoraFile) -> dict[str, str]:
    """Return the first file's strings without the recipe, which would not make the merged file again."""
    return {key: value for key, value in file.metadata.items() if key != "atelier_recipe"}


def _made_by(sources: Sequence[Path], weights: Sequence[float], settings: MergeSettings) -> dict[str, Any]:
    made: dict[str, Any] = {"verb": "merge", "method": settings.method}
    if settings.method != "cat":
        made["rank"] = settings.rank
    if settings.method in ("ties", "dare"):
        made["density"] = settings.density
    if settings.method == "dare":
        made["seed"] = settings.seed
    return {**made, "of": [{"name": source.stem, "weight": weight}
                           for source, weight in zip(sources, weights, strict=True)]}  # fmt: skip
