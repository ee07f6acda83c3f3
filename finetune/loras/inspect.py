"""What a LoRA file holds: its kind, its sizes, where it changes the model and how much, and what it says of itself.

Nothing is judged by eye here, and no model is opened: changes are measured by themselves. How much a weight changes on
average (the root of the mean square over a weight's numbers) is comparable between modules of any size.
"""

import json
import math
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from finetune.adapters.weights import AdaptedModule, LohaModule, LokrModule, LoraModule
from finetune.dialects.lora_file import LoraFile
from finetune.dialects.spelling import ModuleName
from finetune.export.metadata import base_model_version
from finetune.loras.svd import product_norm
from finetune.loras.writing import Watch, unwatched
from finetune.naming.structure import ModelStructure
from finetune.tensors.finite import all_finite

_LAYER = re.compile(r"text_model\.encoder\.layers\.(\d+)\.")
_BLOCK = re.compile(r"(?:down_blocks|up_blocks)\.\d+|mid_block")


@dataclass(frozen=True)
class InspectedModule:
    """One module of a file.

    Attributes:
        name: component and path.
        kind: 'LoRA', 'LoHa', 'LoKr' or 'full'.
        rank: of its factors, or None where nothing is factored.
        alpha: scale · rank, or None likewise.
        has_dora: whether it has a magnitude.
        size: how many numbers the weight has.
        norm: of its change (Frobenius), or None where it holds numbers that are not finite.
    """

    name: ModuleName
    kind: str
    rank: int | None
    alpha: float | None
    has_dora: bool
    size: int
    norm: float | None

    @property
    def change(self) -> float:
        """How much a number of the weight changes, by root of mean square."""
        return (self.norm or 0.0) / math.sqrt(self.size)


@dataclass(frozen=True)
class LoraInspection:
    """All that is known about a file.

    Attributes:
        path, num_bytes: the file or folder.
        dialect: what people call its naming.
        types: tensors by kind of numbers, as safetensors names them.
        modules: in the model's order.
        not_finite: names in the file of tensors that hold numbers that are not finite.
        left_out: name and kind of what no neutral form holds.
        began_as: by component, the initialisation that took a part out of the base.
        metadata: the file's strings.
        structure: the model it was read for.
    """

    path: Path
    num_bytes: int
    dialect: str
    types: Mapping[str, int]
    modules: Sequence[InspectedModule]
    not_finite: Sequence[str]
    left_out: Sequence[tuple[str, str]]
    began_as: Mapping[str, str]
    metadata: Mapping[str, str]
    structure: ModelStructure

    @property
    def dead(self) -> Sequence[InspectedModule]:
        """Modules that change nothing."""
        return [module for module in self.modules if module.norm == 0.0]


def inspect_lora(path: Path, structure: ModelStructure, watch: Watch = unwatched) -> LoraInspection:
    """Look at a LoRA, in any dialect.

    Args:
        path: a file, or a folder of peft's or diffusers'.
        structure: the model it was made for.
        watch: told of progress.

    Raises:
        AtelierError: it cannot be read or must not be trusted. Numbers that are not finite are told, not refused.
    """
    modules: list[InspectedModule] = []
    not_finite: list[str] = []
    with LoraFile(path, structure, leave_out=True) as file:
        for done, name in enumerate(file.names, start=1):
            broken = [
                file.keys(name)[part] for part, tensor in file.raw(name).items()
                if tensor.is_floating_point() and not all_finite(tensor.float())
            ]  # fmt: skip
            not_finite += broken
            modules.append(_broken_module(file, name) if broken else _inspected(name, file.load_factors(name)))
            watch(done, len(file.names))
        return LoraInspection(
            path=path,
            num_bytes=sum(one.stat().st_size for one in file.files),
            dialect=file.dialect,
            types=dict(file.types),
            modules=tuple(modules),
            not_finite=tuple(not_finite),
            left_out=tuple(file.left_out),
            began_as={component: word for component, word in file.began_as.items()},  # noqa: C416
            metadata=file.metadata,
            structure=structure,
        )


def change_norm(module: AdaptedModule) -> float:
    """Return the Frobenius norm of a module's change, without forming it where its factors tell.

    |kron(a, b)| = |a| |b|; of a low-rank product it follows from the factors' Gram matrices.
    """
    if isinstance(module, LoraModule):
        norm = product_norm(module.up, module.down)
    elif isinstance(module, LokrModule):
        first, second = module.parts()
        norm = (first.norm() * second.norm()).item()
    elif isinstance(module, LohaModule):
        norm = replace(module, scale=1.0).delta(torch.float32).norm().item()
    else:
        return module.delta().norm().item()
    return abs(module.scale) * norm


def block_of(name: ModuleName) -> str:
    """Return the part of the model that a module lies in: 'down_blocks.1', 'mid_block', 'text_encoder.layers.3'."""
    component, path = name
    layer = _LAYER.match(path)
    if layer:
        return f"{component}.layers.{layer[1]}"
    block = _BLOCK.match(path)
    if block:
        return block[0]
    return "others" if component == "unet" else f"{component}.others"


def changes_by_block(modules: Sequence[InspectedModule]) -> dict[str, float]:
    """Return by how much each block's changed weights change, by root of mean square, in the model's order."""
    blocks: dict[str, list[tuple[float, int]]] = {}
    for module in modules:
        if module.norm is not None:
            blocks.setdefault(block_of(module.name), []).append((module.norm**2, module.size))
    return {
        block: math.sqrt(sum(square for square, _ in found) / sum(size for _, size in found))
        for block, found in blocks.items()
    }


def hints(inspection: LoraInspection) -> Iterator[str]:
    """Yield what is worth knowing or doing about a file."""
    metadata, modules = inspection.metadata, inspection.modules
    if inspection.not_finite:
        count = len(inspection.not_finite)
        held = "1 tensor holds" if count == 1 else f"{count} tensors hold"
        yield f"{held} numbers that are not finite: every picture with it is black"
    for component, word in inspection.began_as.items():
        yield (
            f"{component}: began as a part of the base ({word}), so its factors alone are wrong on the untouched base. "
            "With the factors before training: atelier lora convert --initial"
        )
    if inspection.left_out:
        kinds = ", ".join(sorted({kind for _, kind in inspection.left_out}))
        yield f"holds {kinds} too ({len(inspection.left_out)} tensors), which no conversion carries over"
    dead = [module for module in inspection.dead if not _never_trained(module.name, inspection.structure)]
    if dead:
        yield f"{len(dead)} modules change nothing: they were not trained, or learned nothing"
    if not metadata.get("ss_base_model_version", "").startswith("sdxl_"):
        yield "does not say that it is of SDXL (ss_base_model_version), so A1111 may hide it. Converting it adds that"
    wanted = base_model_version(is_refiner=inspection.structure.text_encoder is None)
    if metadata.get("ss_base_model_version", wanted) != wanted:
        yield f"says it is of {metadata['ss_base_model_version']}, and was read as one of {wanted}"
    ranks = {module.rank for module in modules}
    told = metadata.get("ss_network_dim", "")
    if told.isdecimal() and ranks and int(told) not in ranks:
        yield f"says it has rank {told}, which none of its modules has"
    kinds_there = {module.kind for module in modules} - {"LoRA"}
    if kinds_there:
        yield f"is {' and '.join(sorted(kinds_there))}: diffusers does not read it. As plain LoRA: --as-lora exact"
    if inspection.types.get("F32", 0) > len(modules):
        yield "is in full precision: in half it is as good and half as large (atelier lora convert --precision fp16)"
    yield f"which programs read it: atelier lora verify {shlex.quote(str(inspection.path))}"


def plain_inspection(inspection: LoraInspection) -> dict[str, Any]:
    """Return everything as plain data for JSON."""
    by_change = sorted((module for module in inspection.modules if module.norm), key=lambda module: -module.change)
    return {
        "file": str(inspection.path),
        "bytes": inspection.num_bytes,
        "dialect": inspection.dialect,
        "types": dict(inspection.types),
        "kinds": dict(Counter(module.kind for module in inspection.modules)),
        "dora_modules": sum(module.has_dora for module in inspection.modules),
        "components": {
            component: {
                "modules": len(own),
                "ranks": _counted(module.rank for module in own),
                "alphas": _counted(module.alpha for module in own),
            }
            for component, own in by_component(inspection.modules).items()
        },
        "changes": changes_by_block(inspection.modules),
        "strongest": [_told(module) for module in by_change[:5]],
        "weakest": [_told(module) for module in by_change[:-6:-1]],
        "dead": [".".join(module.name) for module in inspection.dead],
        "not_finite": list(inspection.not_finite),
        "left_out": [{"name": name, "kind": kind} for name, kind in inspection.left_out],
        "began_as": dict(inspection.began_as),
        "about": about(inspection.metadata),
        "hints": list(hints(inspection)),
        "metadata": dict(inspection.metadata),
    }


def by_component(modules: Sequence[InspectedModule]) -> dict[str, list[InspectedModule]]:
    """Return the modules of each component."""
    groups: dict[str, list[InspectedModule]] = {}
    for module in modules:
        groups.setdefault(module.name[0], []).append(module)
    return groups


def about(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return what a file says of itself, by what a person would ask; what it does not say is left out."""
    keys = {
        "title": ("modelspec.title", "ss_output_name"),
        "author": ("modelspec.author",),
        "licence": ("modelspec.license",),
        "model": ("ss_base_model_version", "modelspec.architecture"),
        "trained on": ("ss_sd_model_name",),
        "prediction": ("modelspec.prediction_type",),
        "trigger": ("modelspec.trigger_phrase",),
        "steps": ("ss_steps", "ss_max_train_steps"),
        "pictures, with repeats": ("ss_num_train_images",),
        "date": ("modelspec.date",),
        "made by": ("atelier_made_by",),
    }
    said = {what: next((metadata[key] for key in names if metadata.get(key)), "") for what, names in keys.items()}
    found = {what: text for what, text in said.items() if text}
    tags = _frequent_tags(metadata.get("ss_tag_frequency", ""))
    if tags:
        found["frequent tags"] = tags
    if metadata.get("atelier_recipe"):
        found["recipe"] = "is in the file (atelier_recipe)"
    return found


def _inspected(name: ModuleName, module: AdaptedModule) -> InspectedModule:
    rank = module.rank
    return InspectedModule(
        name=name,
        kind=module.kind,
        rank=rank,
        alpha=None if rank is None else float(f"{module.scale * rank:.7g}"),
        has_dora=module.magnitude is not None,
        size=math.prod(module.shape),
        norm=change_norm(module),
    )


def _broken_module(file: LoraFile, name: ModuleName) -> InspectedModule:
    parts = file.parts(name)
    has_dora = bool({"magnitude", "dora_scale"} & set(parts))
    rank = parts["down"][0] if "down" in parts else None
    size = math.prod(file.structure.weights[name])
    return InspectedModule(name, file.kind(name), rank, None, has_dora, size, None)


def _never_trained(name: ModuleName, structure: ModelStructure) -> bool:
    """Return whether nothing ever reaches a module: SDXL reads the first encoder before its last layer."""
    first = structure.text_encoder
    return first is not None and block_of(name) == f"text_encoder.layers.{first.layers - 1}"


def _told(module: InspectedModule) -> dict[str, Any]:
    return {"module": ".".join(module.name), "change": module.change, "norm": module.norm}


def _counted(values: Iterator[Any]) -> dict[str, int]:
    """Return how often each value stands, the most frequent first."""
    return {str(value): count for value, count in Counter(values).most_common()}


def _frequent_tags(text: str) -> str:
    """Return the most frequent tags of kohya's list; '' where there is none that can be read."""
    try:
        folders = json.loads(text)
        counts: Counter[str] = Counter()
        for tags in folders.values():
            counts.update({str(tag): int(count) for tag, count in tags.items()})
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
        return ""
    return ", ".join(tag for tag, _ in counts.most_common(5))
