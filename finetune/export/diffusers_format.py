"""The format of diffusers' `load_lora_weights`: `pytorch_lora_weights.safetensors` with peft's names.

`unet.<path>.lora_A.weight`, `.lora_B.weight` and, for DoRA, `.lora_magnitude_vector.weight`; encoders under
`text_encoder.` and `text_encoder_2.`. peft itself writes the magnitude without its last `.weight` and takes both, but
transformers, which loads the encoders, finds only this one (5.23; it draws the others anew, with a warning).

Names of the encoders' modules always begin with `text_model.`, as every older version of transformers has them:
diffusers takes it off where the installed one (5.6 and later) has dropped it from CLIPTextModel.

The header's `lora_adapter_metadata` holds the LoraConfig of each component. Without it diffusers takes alpha to be the
rank. `target_modules` there are written without `text_model.`: peft matches them at the end of a path, so they fit
CLIPTextModel with and without the prefix.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from finetune.adapters.weights import LoraModule
from finetune.export.check import cast
from finetune.naming.components import COMPONENTS
from finetune.naming.keys import UNetLayout
from finetune.tensors.writing import write_safetensors

WEIGHTS_NAME = "pytorch_lora_weights.safetensors"


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
    """Return the peft LoraConfig arguments that give one component's modules their rank, scale and kind.

    The most frequent rank and alpha stand as `r` and `lora_alpha`, the others as patterns. alpha is scale · rank, so
    rsLoRA needs no switch.
    """
    paths = [module.module.removeprefix("text_model.") for module in modules]
    ranks = {path: module.rank for path, module in zip(paths, modules, strict=True)}
    alphas = {path: module.scale * module.rank for path, module in zip(paths, modules, strict=True)}
    rank = Counter(ranks.values()).most_common(1)[0][0]
    alpha = Counter(alphas.values()).most_common(1)[0][0]
    return {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {path: value for path, value in ranks.items() if value != rank},
        "alpha_pattern": {path: value for path, value in alphas.items() if value != alpha},
        "target_modules": paths,
        "use_dora": modules[0].magnitude is not None,
        "use_rslora": False,
        "lora_dropout": 0.0,
        "bias": "none",
    }


def export_diffusers(
    modules: Sequence[LoraModule],
    folder: Path,
    name: str,
    *,
    precision: str,
    layout: UNetLayout,  # noqa: ARG001 - the exporters' common signature
    metadata: Mapping[str, str],
) -> tuple[Path, ...]:
    """Write `<folder>/<name>-diffusers/pytorch_lora_weights.safetensors`. See `finetune.export.registry.Exporter`."""
    configs: dict[str, Any] = {}
    for component in COMPONENTS:
        own = [module for module in modules if module.component == component]
        if own:
            configs |= {f"{component}.{key}": value for key, value in lora_config(own).items()}
    header = {
        **metadata,
        "format": "pt",
        "modelspec.implementation": "https://github.com/huggingface/diffusers",
        "lora_adapter_metadata": json.dumps(configs, indent=2, sort_keys=True),
    }
    path = folder / f"{name}-diffusers" / WEIGHTS_NAME
    write_safetensors(path, diffusers_state_dict(modules, precision), header)
    return (path,)
