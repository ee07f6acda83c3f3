"""Make sure that trained modules are fit to be written: none twice, names as promised, every number finite.

Run before anything is written, so that a bad adapter makes no file rather than a broken one.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from finetune.adapters.weights import AdaptedModule
from finetune.errors import AtelierError
from finetune.naming.components import Component
from finetune.tensors.finite import all_finite

PRECISIONS: dict[str, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def check_modules(modules: Sequence[AdaptedModule], expected: Mapping[Component, int] | None = None) -> None:
    """Assert our own promises about `modules`, and refuse what a run may have spoiled.

    Args:
        modules: what is to be exported.
        expected: how many modules each component was trained on, where the caller knows; 560, 722 or 788 on the real
            U-Net, 72 and 192 on the encoders.

    Raises:
        AtelierError: nothing to export, or a tensor is not finite.
    """
    if not modules:
        raise AtelierError("there is no trained module to export")
    names = Counter((module.component, module.module) for module in modules)
    assert max(names.values()) == 1, f"a module stands twice: {names.most_common(1)}"
    if expected is not None:
        found = Counter(module.component for module in modules)
        wanted = {component: count for component, count in expected.items() if count}
        assert dict(found) == wanted, f"expected {wanted} modules, found {dict(found)}"
    for component in {module.component for module in modules}:
        dora = {module.magnitude is not None for module in modules if module.component == component}
        assert len(dora) == 1, f"{component}: DoRA on some modules only"
    for module in modules:
        check_module(module)


def check_module(module: AdaptedModule) -> None:
    """Assert that a module's path is one of ours, and refuse it when a number is not finite.

    Raises:
        AtelierError: a tensor is not finite.
    """
    is_text = module.component != "unet"
    has_front = module.module.startswith("text_model.") or module.module == "text_projection"
    assert not is_text or has_front, f"{module.module}: lacks text_model."
    for tensor in (*module.factors.values(), *(() if module.magnitude is None else (module.magnitude,))):
        if not all_finite(tensor):
            raise AtelierError(f"{module.component}.{module.module}: holds numbers that are not finite")


def cast(tensor: Tensor, precision: str, name: str) -> Tensor:
    """Return a contiguous CPU copy of `tensor` in the precision of the file.

    Raises:
        AtelierError: the precision is unknown, or too narrow for the values: one overflows, or every one vanishes.
    """
    if precision not in PRECISIONS:
        raise AtelierError(f"unknown export.precision {precision!r}. Known: {', '.join(PRECISIONS)}")
    result = tensor.detach().to(device="cpu", dtype=PRECISIONS[precision], copy=True).contiguous()
    if not all_finite(result):
        raise AtelierError(f"{name}: too large for {precision}. Export with export.precision=bf16 or fp32.")
    if tensor.any() and not result.any():
        raise AtelierError(f"{name}: too small for {precision}: all of it would become zero. Export with fp32.")
    return result
