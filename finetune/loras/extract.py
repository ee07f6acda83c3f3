"""What a fine-tuned model has learned, as a LoRA: the difference of its weights from the base's, cut to ranks.

Module by module: the difference in float32, decomposed as `finetune.loras.svd` does it. A LoRA holds changes of Linear
layers and convolutions alone; what else differs is told with its size, not kept.
"""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from finetune.adapters.targets import choose_paths, path_matches
from finetune.adapters.weights import FullModule, LoraModule
from finetune.errors import AtelierError, RecipeError
from finetune.loras.resize import ResizedModule, resize_module, summarise
from finetune.loras.svd import RankRule
from finetune.loras.writing import Watch, rounded, unwatched, write_made
from finetune.model.weight_files import ModelWeights, ParameterName
from finetune.naming.components import COMPONENTS, Component

WORDS = ("attention", "attention+feedforward", "attention+feedforward+convolutions", "all")
_TEXT_WORDS = {"attention+feedforward+convolutions": "attention+feedforward"}

ModuleName = tuple[Component, str]


@dataclass(frozen=True)
class OtherChange:
    """A parameter that differs and that the file does not hold.

    Attributes:
        component, name: which one.
        relative: the norm of its difference over that of the base's; None where the base's is zero, or the two have no
            common shape.
    """

    component: Component
    name: str
    relative: float | None


@dataclass(frozen=True)
class ExtractReport:
    """What was found.

    Attributes:
        modules: those that the file holds, with what their rank lost.
        unchanged: by component, modules that are equal to the bit in both models.
        others: what differs beside them, the largest first.
        mixed: whether the two models keep their weights in numbers of different kinds, so that rounding looks like
            a change.
    """

    modules: tuple[ResizedModule, ...]
    unchanged: dict[Component, int]
    others: tuple[OtherChange, ...]
    mixed: bool

    def plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        own = {name: [module for module in self.modules if module.component == name] for name in COMPONENTS}
        return {
            "components": {name: summarise(modules) for name, modules in own.items() if modules},
            "total": summarise(self.modules),
            "unchanged": dict(self.unchanged),
            "not_held": [
                {"component": other.component, "name": other.name, "relative": other.relative} for other in self.others
            ],
            "mixed_precision": self.mixed,
        }


def extract(
    base: ModelWeights,
    tuned: ModelWeights,
    target: Path,
    *,
    rule: RankRule,
    components: Sequence[Component] = COMPONENTS,
    targets: str | Sequence[str] = "attention+feedforward+convolutions",
    precision: str = "fp16",
    watch: Watch = unwatched,
) -> ExtractReport:
    """Write the difference of two models as a LoRA file.

    Args:
        base: the model before.
        tuned: the one after, of the same structure.
        target: the new file, in kohya's format.
        rule: how ranks are chosen, module by module.
        components: which models to look at.
        targets: one of WORDS, or patterns as a recipe's targets. `all` takes the first and last layers too, which not
            every reader takes.
        precision: of the new file.
        watch: told of progress.

    Raises:
        RecipeError: a pattern matches nothing.
        AtelierError: the models differ in structure or nowhere, or a number is not finite.
        DiskError: the disk refuses.
    """
    _require_equal_structures(base, tuned)
    names = chosen_modules(base, components, targets)
    found: list[ResizedModule] = []
    unchanged: dict[Component, int] = dict.fromkeys(components, 0)

    def modules() -> Iterator[LoraModule]:
        for done, (component, module) in enumerate(names, start=1):
            difference = tuned.get(component, module) - base.get(component, module)
            watch(done, len(names))
            if not difference.any():
                unchanged[component] += 1
                continue
            after = rounded(resize_module(FullModule(component, module, difference), rule), precision)
            found.append(_measured(difference, after))
            yield after

    made_by = {"verb": "extract", "rank": rule.rank, "energy": rule.energy, "of": [base.path.stem, tuned.path.stem]}
    write_made(modules(), target, precision=precision, structure=base.structure, metadata={}, made_by=made_by)
    mixed = any(base.dtype(*name) != tuned.dtype(*name) for name in names)
    others = sorted(_others(base, tuned, set(names), components), key=lambda other: -(other.relative or 1e300))
    return ExtractReport(tuple(found), unchanged, tuple(others), mixed)


def chosen_modules(
    weights: ModelWeights, components: Sequence[Component], targets: str | Sequence[str]
) -> list[ModuleName]:
    """Return which modules are meant, in the model's order; errors and arguments as `extract`'s."""
    names = [name for name in weights.structure.weights if name[0] in components]
    if targets == "all":
        return names
    if not isinstance(targets, str):
        for pattern in targets:
            if not any(path_matches(path, pattern) for _, path in names):
                raise RecipeError(_no_match(pattern, names))
        return [name for name in names if any(path_matches(name[1], pattern) for pattern in targets)]
    if targets not in WORDS:
        raise RecipeError(f"--targets {targets!r} is not known. Known: {', '.join(WORDS)}, or several patterns")
    chosen: list[ModuleName] = []
    for component in components:
        word = targets if component == "unet" else _TEXT_WORDS.get(targets, targets)
        paths = [path for own, path in names if own == component]
        chosen += [(component, path) for path in choose_paths(paths, component, word)]
    return chosen


def _no_match(pattern: str, names: Sequence[ModuleName]) -> str:
    endings = {ending for _, path in names for ending in (path, path.rpartition(".")[2])}
    nearest = difflib.get_close_matches(pattern, sorted(endings), n=1, cutoff=0.0)
    return f"--targets: {pattern!r} matches no Linear or convolution. Nearest: {nearest[0]!r}; or {', '.join(WORDS)}"


def _require_equal_structures(base: ModelWeights, tuned: ModelWeights) -> None:
    before, after = base.structure.weights, tuned.structure.weights
    if before == after:
        return
    differing = next(name for name in {**before, **after} if before.get(name) != after.get(name))
    sizes = [str(shapes.get(differing, "missing")) for shapes in (before, after)]
    raise AtelierError(
        f"{tuned.path} is not of {base.path}'s structure: {'.'.join(differing)} is {sizes[1]} there and {sizes[0]} "
        "here. Give the base that it was trained from"
    )


def _measured(difference: Tensor, after: LoraModule) -> ResizedModule:
    lost = difference.double() - after.delta()
    return ResizedModule(
        after.component, after.module, None, after.rank, difference.double().norm().item(), lost.norm().item()
    )


def _others(
    base: ModelWeights, tuned: ModelWeights, held: set[ModuleName], components: Sequence[Component]
) -> Iterator[OtherChange]:
    """Yield what differs beside the held weights: norms, biases, embeddings, and layers that were not asked for."""
    held_parameters = {(component, f"{module}.weight") for component, module in held}
    named = {name for name in (*base.places, *tuned.places) if name[0] in components} - held_parameters
    for name in sorted(named):
        relative = _difference(base, tuned, name)
        if relative != 0.0:
            yield OtherChange(*name, relative)


def _difference(base: ModelWeights, tuned: ModelWeights, name: ParameterName) -> float | None:
    """Return the relative size of a parameter's difference; None where it has none, see OtherChange."""
    if name not in base.places or name not in tuned.places:
        return None
    before, after = base.parameter(*name), tuned.parameter(*name)
    if before.shape != after.shape:
        return None
    norm = before.norm().item()
    difference = after.sub_(before).norm().item()
    if norm == 0:
        return None if difference > 0 else 0.0
    return difference / norm
