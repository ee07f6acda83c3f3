"""Every number is looked at, wherever it stands."""

import pytest
import torch

from finetune.tensors.finite import all_finite


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_one_number_that_is_none_is_found_wherever_it_stands(dtype: torch.dtype) -> None:
    tensor = torch.randn(7, 33, 2).to(dtype)
    assert all_finite(tensor)
    for bad in (float("nan"), float("inf"), -float("inf")):
        for place in (0, 100, tensor.numel() - 1):
            spoilt = tensor.clone()
            spoilt.view(-1)[place] = bad
            assert not all_finite(spoilt)
            assert not all_finite(spoilt.transpose(0, 2))


def test_the_smallest_tensors() -> None:
    assert all_finite(torch.empty(0, 4))
    assert all_finite(torch.tensor(1.0))
    assert not all_finite(torch.tensor(float("nan")))
