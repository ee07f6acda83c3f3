"""Kohya's format in the original layout: the one ComfyUI, A1111, Forge, InvokeAI, kohya and diffusers all read.

For each module `<stem>.lora_down.weight`, `<stem>.lora_up.weight`, `<stem>.alpha` (0-dim), and `<stem>.dora_scale` for
DoRA. Readers multiply by alpha / rank, so alpha is written as scale · rank, which is also right for rsLoRA; it and the
DoRA magnitudes stay float32 in every precision, since a rounded alpha would change every weight.

DoRA's magnitude is peft's: one for each output, the norm of a row of W + ΔW. LyCORIS with `wd_on_output`
holds that as (out, 1) for a Linear and (out, 1, 1, 1) for a convolution, and so do we. What readers make of it, as far
as their source tells:

- LyCORIS (`lycoris/modules/locon.py`, `apply_weight_decompose`): exactly this.
- ComfyUI (`comfy/weight_adapter/base.py`, `weight_decompose`, 0.3.77) and Forge, which follows it: they know the axis
  by `dora_scale.shape[0]`, but divide by the norm of W, not of W + ΔW; a row comes out wrong by the ratio of the
  two.
- A1111 and forks of its `extensions-builtin/Lora/network.py` (`apply_weight_decompose`): norms of columns only, which
  does not fit.
- diffusers (`StableDiffusionXLLoraLoaderMixin.lora_state_dict`) leaves every `dora_scale` out with a warning, and so
  reads plain LoRA: use its own format there. (measured on 0.42.1)

diffusers 0.42.1 also cannot read an adapter of the refiner with convolutions in this layout: it takes input block 10
for block 1, and knows no upsampler at the second place. Attention alone loads, and its own format loads everything.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from finetune.adapters.weights import LoraModule
from finetune.export.check import cast
from finetune.export.metadata import with_hashes
from finetune.naming.keys import UNetLayout, kohya_stem
from finetune.tensors.writing import write_safetensors


def kohya_state_dict(modules: Sequence[LoraModule], precision: str, layout: UNetLayout) -> dict[str, Tensor]:
    """Return the tensors of a kohya file, by name.

    Raises:
        AtelierError: a module has no name in the original layout, or its values do not fit the precision.
    """
    tensors: dict[str, Tensor] = {}
    for module in modules:
        own = kohya_tensors(module, precision, layout)
        assert not own.keys() & tensors.keys(), f"two modules have one stem: {module.module}"
        tensors |= own
    return tensors


def kohya_tensors(module: LoraModule, precision: str, layout: UNetLayout) -> dict[str, Tensor]:
    """Return one module's tensors under their names in a kohya file; errors as `kohya_state_dict`'s."""
    stem = kohya_stem(module.component, module.module, layout)
    tensors = {
        f"{stem}.lora_down.weight": cast(module.down, precision, stem),
        f"{stem}.lora_up.weight": cast(module.up, precision, stem),
        f"{stem}.alpha": torch.tensor(module.scale * module.rank, dtype=torch.float32),
    }
    if module.magnitude is not None:
        shape = (-1, *[1] * (module.down.dim() - 1))
        tensors[f"{stem}.dora_scale"] = cast(module.magnitude, "fp32", stem).reshape(shape)
    return tensors


def export_kohya(
    modules: Sequence[LoraModule],
    folder: Path,
    name: str,
    *,
    precision: str,
    layout: UNetLayout,
    metadata: Mapping[str, str],
) -> tuple[Path, ...]:
    """Write `<folder>/<name>.safetensors`. See `finetune.export.registry.Exporter` for the arguments."""
    tensors = kohya_state_dict(modules, precision, layout)
    path = folder / f"{name}.safetensors"
    write_safetensors(path, tensors, with_hashes(tensors, metadata))
    return (path,)
