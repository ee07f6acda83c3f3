"""The format of diffusers' `load_lora_weights`: `pytorch_lora_weights.safetensors` with peft's names.

`unet.<path>.lora_A.weight`, `.lora_B.weight` and, for DoRA, `.lora_magnitude_vector.weight`; encoders under
`text_encoder.` and `text_encoder_2.`. peft itself writes the magnitude without its last `.weight` and takes both, but
transformers, which loads the encoders, finds only this one (5.23; it draws the others anew, with a warning).

Names of the encoders' modules always begin with `text_model.`, as every older version of transformers has them:
diffusers takes it off where the installed one (5.6 and later) has dropped it from CLIPTextModel.

The header's `lora_adapter_metadata` holds the LoraConfig of each component. Without it diffusers takes alpha to be the
rank. `target_modules` there are written without `text_model.`: peft matches them at the end of a path, so they fit
CLIPTextModel with and without the prefix.

Only LoRA and DoRA have a place here: diffusers has no name for the parts of LoHa and LoKr, nor for norms of columns.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from finetune.adapters.weights import AdaptedModule, LoraModule
from finetune.errors import AtelierError
from finetune.export.check import cast, check_module
from finetune.export.metadata import DIFFUSERS_IMPLEMENTATION
from finetune.export.summary import NetworkSummary
from finetune.naming.components import COMPONENTS, Component
from finetune.naming.keys import UNetLayout
from finetune.tensors.spool import spooled_file

WEIGHTS_NAME = "pytorch_lora_weights.safetensors"


@dataclass
class ComponentConfig:
    """The peft configuration of one component, gathered while its modules are written.

    Attributes:
        ranks, alphas: by path, without `text_model.`.
        has_dora: whether its modules have magnitudes; None before the first one.
    """

    ranks: dict[str, int] = field(default_factory=dict)
    alphas: dict[str, float] = field(default_factory=dict)
    has_dora: bool | None = None

    def add(self, module: AdaptedModule, rank: int, alpha: float) -> None:
        """Take one more module into account.

        Raises:
            AtelierError: some modules have DoRA's magnitude and some have none.
        """
        path = module.module.removeprefix("text_model.")
        self.ranks[path], self.alphas[path] = rank, alpha
        dora = module.magnitude is not None
        if self.has_dora not in (None, dora):
            raise AtelierError(
                f"{module.component}: DoRA on some of its modules only, which a configuration of peft does not hold. "
                "Export kohya"
            )
        self.has_dora = dora

    def settings(self, alpha_name: str = "lora_alpha") -> dict[str, Any]:
        """Return rank, alpha and targets. The most frequent rank and alpha stand alone, the others as patterns."""
        rank = Counter(self.ranks.values()).most_common(1)[0][0]
        alpha = Counter(self.alphas.values()).most_common(1)[0][0]
        return {
            "r": rank,
            alpha_name: alpha,
            "rank_pattern": {path: value for path, value in self.ranks.items() if value != rank},
            "alpha_pattern": {path: value for path, value in self.alphas.items() if value != alpha},
            "target_modules": list(self.ranks),
        }

    def lora_settings(self) -> dict[str, Any]:
        """Return the arguments of peft's LoraConfig. alpha is scale · rank, so rsLoRA needs no switch."""
        return {
            **self.settings(),
            "use_dora": bool(self.has_dora),
            "use_rslora": False,
            "lora_dropout": 0.0,
            "bias": "none",
        }


def diffusers_state_dict(modules: Sequence[LoraModule], precision: str) -> dict[str, Tensor]:
    """Return the tensors of the file, by name. Raises AtelierError when values do not fit the precision."""
    tensors: dict[str, Tensor] = {}
    for module in modules:
        path = f"{module.component}.{module.module}"
        tensors |= {f"{path}.{name}": tensor for name, tensor in peft_tensors(module, precision).items()}
    return tensors


def peft_tensors(module: LoraModule, precision: str) -> dict[str, Tensor]:
    """Return one module's tensors under peft's names; the magnitude in peft's shape, (out,) or (1, out, 1, 1)."""
    tensors = {
        "lora_A.weight": cast(module.down, precision, module.module),
        "lora_B.weight": cast(module.up, precision, module.module),
    }
    if module.magnitude is not None:
        shape = (-1,) if module.down.dim() == 2 else (1, -1, *[1] * (module.down.dim() - 2))
        tensors["lora_magnitude_vector.weight"] = cast(module.magnitude, "fp32", module.module).reshape(shape)
    return tensors


def lora_config(modules: Sequence[LoraModule]) -> dict[str, Any]:
    """Return the peft LoraConfig arguments that give one component's modules their rank, scale and kind."""
    config = ComponentConfig()
    for module in modules:
        config.add(module, module.rank, module.scale * module.rank)
    return config.lora_settings()


def as_peft_lora(module: AdaptedModule, format_name: str) -> LoraModule:
    """Return a module that peft's LoRA can hold.

    Raises:
        AtelierError: it is of another kind, or its magnitude holds norms of columns.
    """
    name = f"{module.component}.{module.module}"
    if not isinstance(module, LoraModule):
        raise AtelierError(
            f"{name} is a {module.kind}, which the format {format_name} cannot hold. Use kohya, or make a plain LoRA "
            "of it: atelier lora convert --as-lora exact (or --as-lora RANK)"
        )
    if module.magnitude is not None and module.magnitude_axis != 0:
        raise AtelierError(
            f"{name}: its DoRA magnitude holds norms of columns (wd_on_output=False), which peft and diffusers do not "
            "know. Use kohya"
        )
    return module


def write_diffusers(
    modules: Iterable[AdaptedModule],
    path: Path,
    *,
    precision: str,
    layout: UNetLayout,  # noqa: ARG001 - the writers' common signature
    metadata: Mapping[str, str],
) -> tuple[Path, ...]:
    """Write one `.safetensors` file, module by module. See `finetune.export.registry.Writer` for the arguments."""
    configs: dict[Component, ComponentConfig] = {}
    summary = NetworkSummary()
    with spooled_file(path) as spool:
        for given in modules:
            check_module(given)
            module = as_peft_lora(given, "diffusers")
            configs.setdefault(module.component, ComponentConfig()).add(module, module.rank, module.scale * module.rank)
            summary.add(module)
            for name, tensor in diffusers_state_dict([module], precision).items():
                spool.add(name, tensor)
        spool.finish(_strings(configs, {**metadata, **summary.metadata()}))
    return (path,)


def _strings(configs: Mapping[Component, ComponentConfig], metadata: Mapping[str, str]) -> dict[str, str]:
    settings = {
        f"{component}.{key}": value
        for component in COMPONENTS
        if component in configs
        for key, value in configs[component].lora_settings().items()
    }
    return {
        **metadata,
        "format": "pt",
        "modelspec.implementation": DIFFUSERS_IMPLEMENTATION,
        "lora_adapter_metadata": json.dumps(settings, indent=2, sort_keys=True),
    }
