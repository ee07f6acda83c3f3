"""Best low-rank approximations of a change of weights: of a product of two factors, and of a whole matrix.

Both begin with exact decompositions, none with random projections, so a truncation loses what the best one loses
(Eckart and Young 1936, Psychometrika 1, 211-218) up to rounding. Everything is computed in float64: factors may cancel
each other (the two parts of a PiSSA adapter do), and squares of tiny or huge float32 numbers are still numbers.
Nothing here knows of files.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from finetune.errors import RecipeError


class Decomposition(Protocol):
    """A matrix (out, in) as a sum of rank-one parts, the largest first."""

    @property
    def values(self) -> Tensor:
        """The singular values, float64, falling."""

    def factors(self, rank: int) -> tuple[Tensor, Tensor]:
        """Return the best approximation of a rank as up (out, rank) and down (rank, in), float64.

        Each singular value is split evenly over both, as its square root: then neither leaves the range of fp16 before
        the other does.
        """


@dataclass(frozen=True)
class _Whole:
    """U diag(values) V with all three at hand."""

    left: Tensor  # (out, k)
    values: Tensor  # (k,)
    right: Tensor  # (k, in)

    def factors(self, rank: int) -> tuple[Tensor, Tensor]:
        root = self.values[:rank].sqrt()
        return self.left[:, :rank] * root, root[:, None] * self.right[:rank]


@dataclass(frozen=True)
class _Projected:
    """A matrix with the orthogonal axes of one of its sides; its approximations are projections onto the first axes."""

    matrix: Tensor  # (out, in)
    values: Tensor  # (k,)
    axes: Tensor  # (in, k), or (out, k)
    of_inputs: bool

    def factors(self, rank: int) -> tuple[Tensor, Tensor]:
        axes = self.axes[:, :rank]
        projected = self.matrix @ axes if self.of_inputs else self.matrix.T @ axes
        # Their own lengths split them; the product is the projection whichever way it is split.
        lengths = projected.norm(dim=0)
        root = lengths.sqrt()
        projected = projected / torch.where(root > 0, root, 1.0)
        scaled = (axes * root).T
        return (projected, scaled) if self.of_inputs else (scaled.T, projected.T)


@dataclass(frozen=True)
class RankRule:
    """How the rank of an approximation is chosen, module by module.

    Attributes:
        rank: the rank itself, or the largest one beside `energy`; None for no limit.
        energy: the share of the squared singular values that must be kept, above 0 and at most 1; None takes `rank`.
    """

    rank: int | None = None
    energy: float | None = None

    def __post_init__(self) -> None:
        if self.rank is None and self.energy is None:
            raise RecipeError("no rank is given. Add --rank R, or --energy E with the share of the change to keep")
        if self.rank is not None and self.rank < 1:
            raise RecipeError(f"a rank of {self.rank} holds nothing; it needs a whole number of 1 or more")
        if self.energy is not None and not 0 < self.energy <= 1:
            raise RecipeError(f"energy {self.energy:g} is no share; it needs a number above 0 and up to 1, as 0.98")

    def choose(self, values: Tensor) -> int:
        """Return the rank for a matrix of these singular values, at least 1."""
        limit = len(values) if self.rank is None else min(self.rank, len(values))
        if self.energy is None:
            return limit
        kept = (values / max(values[0].item(), 1e-300)).square().cumsum(0)
        enough = int((kept < self.energy * kept[-1]).sum()) + 1
        return max(1, min(limit, enough))


def decompose_product(up: Tensor, down: Tensor) -> Decomposition:
    """Decompose `up @ down` without forming it: QR of both factors, then the small core between them.

    Args:
        up: (out, rank), or (out, rank, 1, 1) of a convolution.
        down: (rank, in), or (rank, in, height, width): the inputs and the kernel are one axis.
    """
    left, left_core = torch.linalg.qr(up.flatten(1).double())
    right, right_core = torch.linalg.qr(down.flatten(1).double().T)
    turn, values, turn_right = torch.linalg.svd(left_core @ right_core.T, full_matrices=False)
    return _Whole(left @ turn, values, turn_right @ right.T)


def decompose_dense(matrix: Tensor) -> Decomposition:
    """Decompose a matrix (out, in[, height, width]), by the eigenvectors of the smaller of its two Gram matrices.

    Squaring costs singular values below 1e-8 of the largest; they are below the rounding of float32 weights. An
    approximation is an orthogonal projection of the matrix itself, so its error exceeds the least possible one by
    rounding alone. Several times faster than a full SVD on weights of SDXL.
    """
    flat = matrix.flatten(1).double()
    of_inputs = flat.shape[1] <= flat.shape[0]
    largest = flat.abs().max().item()
    scaled = flat / largest if largest > 0 else flat
    squares, axes = torch.linalg.eigh(scaled.T @ scaled if of_inputs else scaled @ scaled.T)
    values = squares.clamp(min=0).sqrt().flip(0) * largest
    return _Projected(flat, values, axes.flip(1), of_inputs)


def product_norm(up: Tensor, down: Tensor) -> float:
    """Return the Frobenius norm of `up @ down` without forming it: the sum of (upᵀ up) ⊙ (down downᵀ), rooted."""
    first, second = up.flatten(1).double(), down.flatten(1).double()
    return max(((first.T @ first) * (second @ second.T)).sum().item(), 0.0) ** 0.5
