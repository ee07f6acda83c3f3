"""Truncations lose no more than the best one of numpy's in float64 does."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.errors import RecipeError
from finetune.loras.svd import RankRule, decompose_dense, decompose_product, product_norm

Matrix = NDArray[np.float64]


def orthogonal(rows: int, columns: int, seed: int) -> Matrix:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((rows, columns)))[0]


def with_values(values: Matrix, rows: int = 60, columns: int = 40) -> Matrix:
    return (orthogonal(rows, len(values), 0) * values) @ orthogonal(columns, len(values), 1).T


SPECTRA: dict[str, Matrix] = {
    "random": np.linalg.svd(np.random.default_rng(3).standard_normal((60, 40)), compute_uv=False),
    "flat": np.ones(40),
    "steep": np.logspace(0, -6, 40),
    "one step": np.concatenate([np.full(7, 5.0), np.full(33, 0.1)]),
    "rank 5": np.arange(5.0, 0.0, -1.0),
    "tiny": np.linspace(2, 1, 40) * 1e-8,
    "huge": np.linspace(2, 1, 40) * 1e30,
    "zero": np.zeros(4),
}


def best_error(matrix: Matrix, rank: int) -> float:
    return float(np.linalg.norm(np.linalg.svd(matrix, compute_uv=False)[rank:]))


def error_of(matrix: Matrix, factors: tuple[Tensor, Tensor]) -> float:
    up, down = (factor.float().double().numpy() for factor in factors)  # as they are kept
    return float(np.linalg.norm(matrix - up @ down))


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("rank", [1, 5, 8, 39])
@pytest.mark.parametrize("shape", ["tall", "wide"])
def test_a_matrix(spectrum: str, rank: int, shape: str) -> None:
    matrix = with_values(SPECTRA[spectrum]).astype(np.float32).astype(np.float64)
    matrix = matrix if shape == "tall" else matrix.T
    found = decompose_dense(torch.from_numpy(matrix).float())
    error = error_of(matrix, found.factors(rank))
    assert error <= 1.001 * best_error(matrix, rank) + 1e-6 * np.linalg.norm(matrix)
    expected = np.linalg.svd(matrix, compute_uv=False)
    assert np.allclose(found.values.numpy(), expected, rtol=1e-6, atol=3e-8 * expected[0])


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("rank", [1, 5, 8])
def test_a_product(spectrum: str, rank: int) -> None:
    values = SPECTRA[spectrum]
    up = torch.from_numpy(orthogonal(60, len(values), 0) * np.sqrt(values)).float()
    down = torch.from_numpy((orthogonal(40, len(values), 1) * np.sqrt(values)).T).float()
    # A rotation between the factors, so that they are no singular vectors; their product is the same.
    turn = torch.from_numpy(orthogonal(len(values), len(values), 2)).float()
    up, down = up @ turn, turn.T @ down
    matrix = up.double().numpy() @ down.double().numpy()
    found = decompose_product(up, down)
    error = error_of(matrix, found.factors(rank))
    assert error <= 1.001 * best_error(matrix, rank) + 1e-6 * np.linalg.norm(matrix)
    expected = np.linalg.svd(matrix, compute_uv=False)[: len(values)]
    assert np.allclose(found.values.numpy(), expected, rtol=1e-6, atol=1e-12 * expected[0])


def test_factors_that_nearly_cancel() -> None:
    """Two parts a thousand times their sum, as an adapter that began as a part of the base has."""
    generator = torch.Generator().manual_seed(0)
    up, down = torch.randn(60, 8, generator=generator), torch.randn(8, 40, generator=generator)
    moved = up + 1e-3 * torch.randn(60, 8, generator=generator)
    up, down = torch.cat([moved, -up], dim=1), torch.cat([down, down])
    matrix = up.double().numpy() @ down.double().numpy()
    error = error_of(matrix, decompose_product(up, down).factors(4))
    assert error <= 1.001 * best_error(matrix, 4)


def test_more_rank_than_the_weight_has() -> None:
    generator = torch.Generator().manual_seed(0)
    up, down = torch.randn(12, 30, generator=generator), torch.randn(30, 9, generator=generator)
    found = decompose_product(up, down)
    assert len(found.values) == 9
    assert torch.allclose(torch.matmul(*found.factors(9)), up.double() @ down.double(), rtol=0, atol=1e-12)


def test_a_convolutions_kernel_belongs_to_its_inputs() -> None:
    generator = torch.Generator().manual_seed(0)
    up, down = torch.randn(12, 4, 1, 1, generator=generator), torch.randn(4, 5, 3, 3, generator=generator)
    expected = up.flatten(1).double() @ down.flatten(1).double()
    for found in (decompose_product(up, down), decompose_dense(expected.reshape(12, 5, 3, 3))):
        new_up, new_down = found.factors(4)
        assert (new_up.shape, new_down.shape) == ((12, 4), (4, 45))
        assert torch.allclose(new_up @ new_down, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("decompose", [decompose_dense, lambda matrix: decompose_product(matrix, torch.eye(40))])
def test_singular_values_are_split_evenly(decompose: Callable[[Tensor], object]) -> None:
    found = decompose(torch.from_numpy(with_values(SPECTRA["steep"])))
    up, down = found.factors(6)  # type: ignore[attr-defined]
    assert torch.allclose(up.norm(dim=0), down.norm(dim=1), rtol=1e-6)


def test_the_norm_of_a_product() -> None:
    generator = torch.Generator().manual_seed(0)
    up, down = torch.randn(50, 6, 1, 1, generator=generator), torch.randn(6, 7, 3, 3, generator=generator)
    assert product_norm(up, down) == pytest.approx((up.flatten(1) @ down.flatten(1)).norm().item(), rel=1e-6)
    assert product_norm(up * 0, down) == 0


VALUES = torch.tensor([4.0, 2.0, 1.0, 0.5, 0.0], dtype=torch.float64)  # squares 16, 4, 1, 0.25: 21.25 in all


@pytest.mark.parametrize(
    ("rule", "rank"),
    [
        (RankRule(rank=3), 3),
        (RankRule(rank=9), 5),
        (RankRule(energy=0.5), 1),
        (RankRule(energy=20 / 21.25), 2),
        (RankRule(energy=20.01 / 21.25), 3),
        (RankRule(energy=1.0), 4),
        (RankRule(rank=2, energy=1.0), 2),
    ],
)
def test_ranks_are_chosen(rule: RankRule, rank: int) -> None:
    assert rule.choose(VALUES) == rank
    assert rule.choose(VALUES * 1e-30) == rank
    assert RankRule(energy=0.9).choose(VALUES * 0) == 1


@pytest.mark.parametrize(
    ("rank", "energy", "message"),
    [(None, None, "--rank"), (0, None, "1 or more"), (None, 0.0, "above 0"), (None, 1.5, "above 0")],
)
def test_rules_that_hold_nothing(rank: int | None, energy: float | None, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        RankRule(rank, energy)
