"""Put LoRAs into the weights of a model for good: a checkpoint, or a folder as diffusers saves it.

Weight by weight: in float32, all LoRAs of a module together, and rounded once to the numbers that the base is kept in.
What a fused model computes differs from its base by the sum of what each LoRA alone would change, as
`finetune.adapters.lora` applies them. Everything else of the base is copied byte for byte.

With DoRA (Liu et al. 2024, arXiv 2402.09353, equation 5) a weight becomes m (W + ΔW) / ‖W + ΔW‖, the norm taken of each
row, or of each column where the file's norms are of columns. A strength below 1 moves m towards the norm of W, as
`finetune.adapters.lora.lora_scaled` does.
"""

import contextlib
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from finetune.adapters.weights import AdaptedModule
from finetune.dialects.lora_file import LoraFile
from finetune.errors import AtelierError, RecipeError
from finetune.loras.writing import Watch, check_apart, unwatched
from finetune.model.weight_files import ModelWeights, WeightPlace, shards_of
from finetune.naming.components import COMPONENTS, Component
from finetune.run.durable import disk_errors, whole_folder
from finetune.tensors.finite import all_finite
from finetune.tensors.rewriting import Change, rewrite

_WIDTHS = ("F16", "BF16", "F32", "F64")
_STALE_METADATA = ("modelspec.hash_sha256", "modelspec.hash", "sshs_model_hash", "sshs_legacy_hash")

# Of a part's files, those that hold its weights in one format or another.
_WEIGHT_ENDINGS = (
    ".safetensors",
    ".bin",
    ".ckpt",
    ".pt",
    ".pth",
    ".msgpack",
    ".h5",
    ".onnx",
    ".onnx_data",
    ".pb",
    ".xml",
)

ModuleName = tuple[Component, str]
WeightChange = Callable[[Tensor], Tensor]


@dataclass
class FuseReport:
    """What fusing did.

    Attributes:
        modules: by component, how many weights were changed.
        change: the norm of all changes of weights together.
        rounding: the norm of what rounding to the base's numbers added to them.
        left_behind: files of a folder that were not copied, as they hold the weights from before: other variants and
            formats of the changed parts, and checkpoints beside the parts.
    """

    modules: dict[Component, int] = field(default_factory=lambda: dict.fromkeys(COMPONENTS, 0))
    change: float = 0.0
    rounding: float = 0.0
    left_behind: list[str] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "modules": {name: count for name, count in self.modules.items() if count},
            "rounding_relative": self.rounding / self.change if self.change > 0 else 0.0,
            "left_behind": self.left_behind,
        }


def fuse(
    base: ModelWeights,
    loras: Sequence[Path],
    weights: Sequence[float],
    target: Path,
    *,
    watch: Watch = unwatched,
) -> FuseReport:
    """Write a model with LoRAs in its weights.

    Args:
        base: the model, open.
        loras: LoRA files for it, in the order in which they are put in.
        weights: the strength of each.
        target: a file where the base is one, else a folder; see `check_fused_output`.
        watch: told of progress.

    Returns:
        What was changed.

    Raises:
        RecipeError: there is not one weight for each file, or one is no number.
        AtelierError: a file does not fit the model, two with DoRA change one module, the base is kept in numbers too
            narrow to be added to, or a sum does not fit them.
        DiskError: the disk refuses. What was at `target` is as it was.
    """
    if not loras or len(weights) != len(loras):
        raise RecipeError(f"--weights: got {len(weights)} for {len(loras)} LoRA files; give one for each")
    if not all(math.isfinite(weight) for weight in weights):
        raise RecipeError(f"--weights: needs numbers, got {', '.join(f'{weight:g}' for weight in weights)}")
    report = FuseReport()
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(LoraFile(path, base.structure)) for path in loras]
        owners: dict[ModuleName, list[int]] = {}
        for index, file in enumerate(files):
            for name in file.names:
                owners.setdefault(name, []).append(index)
        _require_wide(base, owners)
        total = len(owners)

        def change_of(name: ModuleName) -> WeightChange:
            def changed(weight: Tensor) -> Tensor:
                parts = [(weights[index], files[index].load(name)) for index in owners[name]]
                report.modules[name[0]] += 1
                watch(sum(report.modules.values()), total)
                return fused_weight(weight, parts)

            return changed

        changes = _by_file(base, {name: change_of(name) for name in owners}, report)
        metadata = {"atelier_made_by": json.dumps(_made_by(base, loras, weights), ensure_ascii=False)}
        if base.path.is_dir():
            report.left_behind = _write_folder(base, changes, target, metadata)
        else:
            _rewrite(base, base.path, target, changes[base.path], metadata)
    return report


def fused_weight(weight: Tensor, parts: Sequence[tuple[float, AdaptedModule]]) -> Tensor:
    """Return a weight with LoRAs of these strengths in it, float32.

    Raises:
        AtelierError: two of them have DoRA: the norms of one say nothing of what the other adds.
    """
    if sum(module.magnitude is not None for _, module in parts) > 1:
        first = parts[0][1]
        raise AtelierError(
            f"{first.component}.{first.module}: two of the files have DoRA there, and the norms of one say nothing of "
            "what the other adds. Fuse one of them"
        )
    before = weight.float()
    result = before.clone()
    for strength, module in parts:
        change = module.delta(torch.float32) * strength
        if module.magnitude is not None:
            change = _dora(before, change, module.magnitude, module.magnitude_axis, strength) - before
        result += change
    return result


def check_fused_output(target: Path, base: Path, loras: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse an output that is one of the inputs, lies in the base, or is there already.

    Raises:
        RecipeError: with what to give instead.
    """
    check_apart(target, [base, *loras])
    if base.is_dir():
        if target.suffix == ".safetensors":
            raise RecipeError(f"--output {target}: the base is a folder, and so is what is made of it. Name a folder")
        if target.exists() and not (overwrite and (target / "model_index.json").is_file()):
            raise RecipeError(
                f"--output {target} is there already. Give another name; --overwrite replaces a folder that holds a "
                "model (model_index.json)"
            )
        return
    if target.suffix != ".safetensors":
        raise RecipeError(f"--output {target}: needs a name that ends in .safetensors, as the base is one file")
    if target.exists() and not (overwrite and target.is_file()):
        raise RecipeError(f"--output {target} is there already. Give another name, or --overwrite to replace a file")


def _dora(weight: Tensor, change: Tensor, magnitude: Tensor, axis: int, strength: float) -> Tensor:
    direction = weight + change
    norms, norms_before = (_norms(each, axis) for each in (direction, weight))
    shape = [-1 if index == axis else 1 for index in range(weight.dim())]
    learned = torch.lerp(norms_before, magnitude.float(), strength)
    # A row of zeros has no direction to be given a length.
    factors = torch.where(norms > 0, learned / norms.clamp(min=torch.finfo(torch.float32).tiny), 0.0)
    return direction * factors.reshape(shape)


def _norms(weight: Tensor, axis: int) -> Tensor:
    return weight.movedim(axis, 0).flatten(1).norm(dim=1)


def _require_wide(base: ModelWeights, owners: Mapping[ModuleName, object]) -> None:
    for name in owners:
        dtype = base.dtype(*name)
        if dtype not in _WIDTHS:
            raise AtelierError(
                f"{base.path}: {'.'.join(name)} is kept as {dtype}, which is too narrow to add to. "
                "Take the base in fp16, bf16 or fp32"
            )


def _by_file(
    base: ModelWeights, changes: Mapping[ModuleName, WeightChange], report: FuseReport
) -> dict[Path, dict[str, Change]]:
    """Return, for each file and each of its tensors, what changes the weights that lie in it."""
    lying: dict[Path, dict[str, list[tuple[WeightPlace, Callable[[Tensor], Tensor]]]]] = {
        file: {} for file in base.files
    }
    for (component, module), change in changes.items():
        place = base.places[component, f"{module}.weight"]
        lying[place.file].setdefault(place.tensor, []).append((place, change))
    return {
        file: {tensor: partial(_change_stored, tensor, own, report) for tensor, own in tensors.items()}
        for file, tensors in lying.items()
    }


def _change_stored(
    name: str, lying: Sequence[tuple[WeightPlace, WeightChange]], report: FuseReport, stored: Tensor
) -> Tensor:
    """Change the weights that lie in one tensor, in place."""
    for place, change in lying:
        view = place.view(stored)
        before = view.to(torch.float32, copy=True)
        if not all_finite(before):
            raise AtelierError(f"{place.file}: {name} holds something else than finite numbers")
        after = change(before)
        view.copy_(after)
        if not all_finite(view):
            raise AtelierError(
                f"{place.file}: {name} with the LoRA in it is too large for the base's numbers. Give the base in bf16 "
                "or fp32, or a smaller weight"
            )
        change_norm, lost = (after - before).norm().item(), (view.float() - after).norm().item()
        report.change = (report.change**2 + change_norm**2) ** 0.5
        report.rounding = (report.rounding**2 + lost**2) ** 0.5
    return stored


def _rewrite(
    base: ModelWeights, file: Path, target: Path, changes: Mapping[str, Change], metadata: Mapping[str, str]
) -> None:
    source = base.opened(file)
    kept = {key: value for key, value in source.header.metadata.items() if key not in _STALE_METADATA}
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    rewrite(source, target, changes, {**kept, **metadata})


def _write_folder(
    base: ModelWeights, changes: Mapping[Path, Mapping[str, Change]], target: Path, metadata: Mapping[str, str]
) -> list[str]:
    """Write the folder, and return what was not copied into it."""
    changed_parts = {file.parent for file, own in changes.items() if own}
    left_behind = []
    with whole_folder(target) as folder:
        for path in sorted(base.path.rglob("*")):
            relative = path.relative_to(base.path)
            if any(part.startswith(".") for part in relative.parts) or not path.is_file():
                continue
            place = folder / relative
            if changes.get(path):
                _rewrite(base, path, place, changes[path], metadata)
                continue
            is_stale = path.parent in changed_parts or path.parent == base.path
            if path not in changes and is_stale and _holds_weights(path, {file.name for file in changes}):
                left_behind.append(relative.as_posix())
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    return left_behind


def _holds_weights(path: Path, kept: set[str]) -> bool:
    """Whether a file holds weights, or is the index of shards that are not kept."""
    if ".index" in path.name and path.suffix == ".json":
        return not set(shards_of(path)) <= kept
    return path.name.endswith(_WEIGHT_ENDINGS)


def _made_by(base: ModelWeights, loras: Sequence[Path], weights: Sequence[float]) -> dict[str, Any]:
    parts = [{"name": path.stem, "weight": weight} for path, weight in zip(loras, weights, strict=True)]
    return {"verb": "fuse", "base": base.path.stem, "of": parts}
