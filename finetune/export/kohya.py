"""Kohya's format in the original layout: the one ComfyUI, A1111, Forge, InvokeAI, kohya and diffusers all read.

For each module `<stem>.lora_down.weight`, `<stem>.lora_up.weight`, `<stem>.alpha` (0-dim), and `<stem>.dora_scale` for
DoRA. LoHa, LoKr and whole changes have the parts that LyCORIS names: `hada_w1_a` …, `lokr_w1` …, `diff` (`weight_list`
of its `modules/loha.py`, `lokr.py`, `full.py`). Readers multiply by alpha / rank, so alpha is written as scale · rank,
which is also right for rsLoRA; it and the DoRA magnitudes stay float32 in every precision, since a rounded alpha would
change every weight.

All LoRAs of a component have one alpha, whatever their ranks: where a module's is another, the factor between them
becomes part of one of its factors. diffusers 0.42.1 drops the alphas of attentions that differ from the most frequent
one (`utils/peft_utils.py`, `get_peft_kwargs`: the patterns it makes of them fit no module), and such a module then acts
too strong or too weak, with a warning of patterns that fit nothing. (measured)

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

With diffusers' underscored names in place of the original ones (`kohya-diffusers`) it is what OneTrainer calls its
legacy format.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from finetune.adapters.weights import AdaptedModule, FullModule, LohaModule, LokrModule, LoraModule
from finetune.errors import AtelierError
from finetune.export.check import cast, check_module
from finetune.export.metadata import DIFFUSERS_IMPLEMENTATION, ORIGINAL_IMPLEMENTATION
from finetune.export.summary import NetworkSummary
from finetune.naming.components import Component
from finetune.naming.keys import STEM_PREFIXES, UNetLayout, kohya_stem
from finetune.tensors.spool import spooled_file

Names = Literal["original", "diffusers"]
"""Whose names the U-Net's modules have."""


def kohya_state_dict(modules: Sequence[AdaptedModule], precision: str, layout: UNetLayout) -> dict[str, Tensor]:
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


def kohya_tensors(
    module: AdaptedModule, precision: str, layout: UNetLayout, names: Names = "original"
) -> dict[str, Tensor]:
    """Return one module's tensors under their names in a kohya file.

    Raises:
        AtelierError: the module has no name in the original layout, its values do not fit the precision, or its kind
            has no place for what it holds.
    """
    stem = module_stem(module, layout, names)
    written = _with_plain_scale(module)
    tensors = {f"{stem}.{_part(name)}": cast(tensor, precision, stem) for name, tensor in written.factors.items()}
    if module.kind != "full":
        rank = written.rank or 1
        tensors[f"{stem}.alpha"] = torch.tensor(written.scale * rank, dtype=torch.float32)
    if module.magnitude is not None:
        if module.kind == "full":
            raise AtelierError(f"{stem}: a whole change with DoRA has no place in kohya's format")
        ones = (1,) * (len(module.shape) - 2)
        shape = (-1, 1, *ones) if module.magnitude_axis == 0 else (1, -1, *ones)
        tensors[f"{stem}.dora_scale"] = cast(module.magnitude, "fp32", stem).reshape(shape)
    return tensors


def module_stem(module: AdaptedModule, layout: UNetLayout, names: Names) -> str:
    """Return the stem of a module's tensors. Raises AtelierError where the original layout has no such module."""
    if names == "diffusers" and module.component == "unet":
        return STEM_PREFIXES["unet"] + module.module.replace(".", "_")
    return kohya_stem(module.component, module.module, layout)


def write_kohya(
    modules: Iterable[AdaptedModule],
    path: Path,
    *,
    precision: str,
    layout: UNetLayout,
    metadata: Mapping[str, str],
    names: Names = "original",
) -> tuple[Path, ...]:
    """Write one `.safetensors` file, module by module. See `finetune.export.registry.Writer` for the arguments."""
    summary = NetworkSummary()
    alphas: dict[Component, float] = {}
    with spooled_file(path) as spool:
        for given in modules:
            check_module(given)
            module = _with_plain_scale(given)
            if isinstance(module, LoraModule):
                alpha = alphas.setdefault(module.component, module.scale * module.rank)
                module = _with_alpha(module, alpha)
            summary.add(module)
            for name, tensor in kohya_tensors(module, precision, layout, names).items():
                spool.add(name, tensor)
        strings = {**metadata, **summary.metadata()}
        if "modelspec.sai_model_spec" in strings:
            is_original = names == "original"
            strings["modelspec.implementation"] = ORIGINAL_IMPLEMENTATION if is_original else DIFFUSERS_IMPLEMENTATION
        spool.finish(strings, with_hashes=True)
    return (path,)


def write_kohya_diffusers(
    modules: Iterable[AdaptedModule], path: Path, *, precision: str, layout: UNetLayout, metadata: Mapping[str, str]
) -> tuple[Path, ...]:
    """Write the same with diffusers' names of the U-Net's modules."""
    return write_kohya(modules, path, precision=precision, layout=layout, metadata=metadata, names="diffusers")


def _part(name: str) -> str:
    return f"{name}.weight" if name.startswith("lora_") else name


def _with_alpha(module: LoraModule, alpha: float) -> LoraModule:
    """Return the same change with this alpha; what it differed by becomes part of a factor.

    Where the alphas are powers of two apart, as they mostly are, not a bit is lost. The factor of larger numbers takes
    what makes it smaller, and the other one what makes it larger, so that neither leaves the range of half precision.
    """
    ratio = module.scale * module.rank / alpha
    if ratio == 1.0:
        return module
    scale = alpha / module.rank
    has_larger_up = bool(module.up.abs().max() >= module.down.abs().max())
    if has_larger_up == (abs(ratio) < 1):
        return replace(module, up=module.up * ratio, scale=scale)
    return replace(module, down=module.down * ratio, scale=scale)


def _with_plain_scale(module: AdaptedModule) -> AdaptedModule:
    """Return the same change with a scale that every reader takes from the file as it is meant.

    Where nothing is factored readers take 1, so the scale becomes a part of the first factor; and an alpha of 0 is the
    rank to some of them, so a change of strength 0 has a factor of zeros instead.
    """
    if module.scale == 1.0 or (module.rank is not None and module.scale != 0.0):
        return module
    match module:
        case LoraModule():
            return replace(module, up=module.up * module.scale, scale=1.0)
        case LohaModule():
            return replace(module, w1_a=module.w1_a * module.scale, scale=1.0)
        case LokrModule(w1=None):
            assert module.w1_a is not None
            return replace(module, w1_a=module.w1_a * module.scale, scale=1.0)
        case LokrModule():
            assert module.w1 is not None
            return replace(module, w1=module.w1 * module.scale, scale=1.0)
        case FullModule():
            return replace(module, diff=module.diff * module.scale, scale=1.0)
    raise AssertionError(f"{module.kind} is no kind that is known here")
