"""LoHa, LoKr and whole changes as plain LoRA, exactly: the same change from two factors of a larger rank.

- LoHa: row i of (A1 B1) ⊙ (A2 B2) is the sum over pairs of ranks, so the factors are the row-wise product of A1 and A2
  and the column-wise one of B1 and B2 (Khatri and Rao; Liu and Trenkler 2008, "Hadamard, Khatri-Rao, Kronecker and
  other matrix products", theorem 2): rank², unless the weight itself has less.
- LoKr: kron(w1, up down) = kron(w1, up) kron(I, down), and the identity may stand on the other side: the smaller
  side of w1 times the rank of w2.
- A whole change: itself and an identity.

Whatever would be larger than the weight's smaller side becomes that side.
"""

import torch
from torch import Tensor

from finetune.adapters.weights import AdaptedModule, LohaModule, LokrModule, LoraModule, product_of


def exact_lora(module: AdaptedModule) -> LoraModule:
    """Return the same change as a plain LoRA, float32; one that is plain as it is. The magnitude stays, as ΔW does."""
    if isinstance(module, LoraModule):
        return module
    up, down = _factors(module)
    if up.shape[1] > min(up.shape[0], down.shape[1]):
        up, down = _whole(up @ down)
    rank, kernel = up.shape[1], module.shape[2:]
    return LoraModule(
        module.component,
        module.module,
        down=down.float().reshape(rank, *module.shape[1:]).contiguous(),
        up=up.float().reshape(-1, rank, *[1] * len(kernel)).contiguous(),
        scale=module.scale,
        magnitude=module.magnitude,
        magnitude_axis=module.magnitude_axis,
    )


def _factors(module: AdaptedModule) -> tuple[Tensor, Tensor]:
    """Return (out, rank) and (rank, in · height · width) whose product times the scale is the change, float64."""
    if isinstance(module, LohaModule):
        (up_1, down_1), (up_2, down_2) = module.halves()
        if module.rank**2 > min(up_1.shape[0], down_1.shape[1]):
            return _whole((up_1 @ down_1) * (up_2 @ down_2))
        up = torch.einsum("or,os->ors", up_1, up_2).flatten(1)
        down = torch.einsum("ri,si->rsi", down_1, down_2).flatten(0, 1)
        return up, down
    if isinstance(module, LokrModule):
        first, second = module.parts()
        if module.w2_a is not None and module.w2_b is not None:
            up, down = product_of(module.w2_a.double(), module.w2_b.double(), module.t2)
        else:
            up, down = _whole(second)
        rows, columns = first.shape
        if rows < columns:
            return torch.kron(torch.eye(rows, dtype=up.dtype), up), torch.kron(first, down)
        return torch.kron(first, up), torch.kron(torch.eye(columns, dtype=up.dtype), down)
    return _whole(module.factors["diff"].double().flatten(1))


def _whole(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return a matrix as a product with the identity on its smaller side."""
    rows, columns = matrix.shape
    if rows <= columns:
        return torch.eye(rows, dtype=matrix.dtype), matrix
    return matrix, torch.eye(columns, dtype=matrix.dtype)
