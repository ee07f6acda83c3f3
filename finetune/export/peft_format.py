"""peft's own format: for each trained component a folder with `adapter_config.json` and `adapter_model.safetensors`.

`PeftModel.from_pretrained(pipeline.unet, "<name>-peft/unet")` loads one. Names here are those of the modules of the
models themselves; peft translates nothing, and a module that it finds no tensors for stays as it was drawn, with a
warning. So CLIPTextModel's modules stand here twice: without `text_model.`, as transformers 5.6 and later name them,
and with it, as earlier ones do. Either takes its own and passes over the others. (measured: 5.5.4 and 5.23.0 with peft
0.21.2)

LoRA, DoRA, LoHa and LoKr have a configuration in peft, one for all of a component. What it cannot say is refused: LoHa
and LoKr have no DoRA there, and the shapes of LoKr's two parts follow from one number for all modules
(`tuners/lokr/layer.py`, `update_layer`). What is only another way to write the same change is written peft's way:
Tucker cores become part of their factors, and LoKr's first part is multiplied out.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from finetune.adapters.weights import AdaptedModule, LohaModule, LokrModule, LoraModule, product_of
from finetune.errors import AtelierError
from finetune.export.check import cast, check_module
from finetune.export.diffusers_format import ComponentConfig, as_peft_lora, lora_config, peft_tensors
from finetune.export.summary import NetworkSummary
from finetune.naming.components import COMPONENTS, Component
from finetune.naming.keys import UNetLayout
from finetune.run.durable import whole_folder, write_json
from finetune.tensors.spool import SpooledFile, spooled_file

_COMMON = {"task_type": None, "inference_mode": True, "base_model_name_or_path": None}


def peft_config(modules: Sequence[LoraModule]) -> dict[str, Any]:
    """Return the content of `adapter_config.json` for one component's LoRA modules."""
    return {"peft_type": "LORA", **_COMMON, **lora_config(modules)}


@dataclass
class _ComponentFolder:
    """One component's folder in the making."""

    component: Component
    folder: Path
    spool: SpooledFile
    kind: str
    config: ComponentConfig = field(default_factory=ComponentConfig)
    splits: dict[str, tuple[tuple[int, int], tuple[int, int]]] = field(default_factory=dict)

    def add(self, module: AdaptedModule, precision: str) -> None:
        """Write one module's tensors."""
        if module.kind != self.kind:
            raise AtelierError(
                f"{self.component}: holds {self.kind} and {module.kind}; a configuration of peft is of one. Use kohya"
            )
        for name, tensor in self._tensors(module, precision).items():
            for path in _model_paths(module):
                self.spool.add(f"base_model.model.{path}.{name}", tensor)

    def _tensors(self, module: AdaptedModule, precision: str) -> dict[str, Tensor]:
        if isinstance(module, (LohaModule, LokrModule)):
            if module.magnitude is not None:
                raise AtelierError(
                    f"{module.component}.{module.module}: peft has no DoRA for a {module.kind}. Use kohya"
                )
            written, rank = _loha(module) if isinstance(module, LohaModule) else _lokr(module)
            if isinstance(module, LokrModule):
                self.splits[module.module] = _split_of(module)
            self.config.add(module, rank, module.scale * rank)
            return {name: cast(tensor, precision, module.module) for name, tensor in written.items()}
        lora = as_peft_lora(module, "peft")
        self.config.add(lora, lora.rank, lora.scale * lora.rank)
        return peft_tensors(lora, precision)

    def settings(self) -> dict[str, Any]:
        """Return the content of `adapter_config.json`."""
        if self.kind == "LoRA":
            return {"peft_type": "LORA", **_COMMON, **self.config.lora_settings()}
        own = {"use_effective_conv2d": False, "rank_dropout": 0.0, "module_dropout": 0.0}
        settings = {"peft_type": self.kind.upper(), **_COMMON, **self.config.settings("alpha"), **own}
        if self.kind == "LoKr":
            settings |= {"decompose_both": False, "decompose_factor": _common_factor(self.component, self.splits)}
        return settings


def write_peft(
    modules: Iterable[AdaptedModule],
    path: Path,
    *,
    precision: str,
    layout: UNetLayout,  # noqa: ARG001 - the writers' common signature
    metadata: Mapping[str, str],
) -> tuple[Path, ...]:
    """Write a folder with one for each component, whole or not at all. See `finetune.export.registry.Writer`."""
    summary = NetworkSummary()
    with whole_folder(path) as temporary, ExitStack() as stack:
        folders: dict[Component, _ComponentFolder] = {}
        for module in modules:
            check_module(module)
            summary.add(module)
            component = module.component
            if component not in folders:
                folder = temporary / component
                spool = stack.enter_context(spooled_file(folder / "adapter_model.safetensors"))
                folders[component] = _ComponentFolder(component, folder, spool, module.kind)
            folders[component].add(module, precision)
        for own in folders.values():
            write_json(own.folder / "adapter_config.json", own.settings())
            own.spool.finish({**metadata, **summary.metadata(), "format": "pt"})
    return tuple(_files(path, folders))


def _files(path: Path, folders: Iterable[Component]) -> Iterator[Path]:
    for component in COMPONENTS:
        if component in folders:
            yield path / component / "adapter_model.safetensors"
            yield path / component / "adapter_config.json"


def _model_paths(module: AdaptedModule) -> Sequence[str]:
    """Return the names of a module in its model, in each version of transformers."""
    path = module.module
    return [path.removeprefix("text_model."), path] if module.component == "text_encoder" else [path]


def _loha(module: LohaModule) -> tuple[dict[str, Tensor], int]:
    """Return a LoHa's tensors as peft has them without `use_effective_conv2d`, and its rank."""
    tensors: dict[str, Tensor] = {}
    for half, a, b, core in (("1", module.w1_a, module.w1_b, module.t1), ("2", module.w2_a, module.w2_b, module.t2)):
        up, down = product_of(a, b, core)
        tensors |= {f"hada_w{half}_a": up.contiguous(), f"hada_w{half}_b": down.contiguous()}
    return tensors, module.rank


def _lokr(module: LokrModule) -> tuple[dict[str, Tensor], int]:
    """Return a LoKr's tensors as peft has them without `decompose_both`, and the rank its configuration must say.

    peft keeps the second part whole where the rank is at least half of its larger side, and factored below.
    """
    first, second = module.parts(module.factors["lokr_w2" if module.w2 is not None else "lokr_w2_a"].dtype)
    (_, rows), (_, columns) = _split_of(module)
    enough = math.ceil(max(rows, columns) / 2)
    tensors = {"lokr_w1": first.contiguous()}
    if module.w2_a is not None and module.w2_b is not None and module.rank is not None and module.rank < enough:
        up, down = product_of(module.w2_a, module.w2_b, module.t2)
        return tensors | {"lokr_w2_a": up.contiguous(), "lokr_w2_b": down.contiguous()}, module.rank
    kernel = module.shape[2:]
    return tensors | {"lokr_w2": second.reshape(rows, columns, *kernel).contiguous()}, enough


def _split_of(module: LokrModule) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return how outputs and inputs are split over the two parts: ((a, b), (c, d)) of an (a b, c d) weight."""
    a = module.w1.shape[0] if module.w1 is not None else module.factors["lokr_w1_a"].shape[0]
    c = module.w1.shape[1] if module.w1 is not None else module.factors["lokr_w1_b"].shape[1]
    return (a, module.shape[0] // a), (c, module.shape[1] // c)


def _common_factor(component: Component, splits: Mapping[str, tuple[tuple[int, int], tuple[int, int]]]) -> int:
    """Return the `decompose_factor` from which peft finds the same splits.

    Raises:
        AtelierError: there is none.
    """
    wanted = {split for pair in splits.values() for split in pair}
    candidates = [-1, *sorted({first for first, _ in wanted})]
    misses = {factor: [split for split in wanted if _peft_split(math.prod(split), factor) != split]
              for factor in candidates}  # fmt: skip
    best = min(candidates, key=lambda factor: len(misses[factor]))
    if misses[best]:
        module = next(name for name, pair in splits.items() if set(pair) & set(misses[best]))
        raise AtelierError(
            f"{component}.{module}: the shapes of its Kronecker parts follow from no decompose_factor that fits all "
            "modules, so peft cannot hold it. Use kohya"
        )
    return best


def _peft_split(size: int, factor: int) -> tuple[int, int]:
    """Return how peft splits a size (`tuners/lokr/layer.py`, `factorization`).

    By the factor where it divides; else into the two nearest to the root, the smaller first and not above the factor.
    """
    if factor > 0 and size % factor == 0:
        return factor, size // factor
    limit = min(math.isqrt(size), size if factor == -1 else factor)
    small = max(divisor for divisor in range(1, limit + 1) if size % divisor == 0)
    return small, size // small
