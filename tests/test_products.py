"""Linear maps by either library."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from dubito.engine.kernels import products


@pytest.mark.parametrize("shape", [(1,), (7,), (300,), (4, 9), (3, 5, 6)])
@pytest.mark.parametrize(("into", "out"), [(3, 2), (64, 32), (1024, 520), (509, 521)])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("is_laid_out", [True, False])
def test_it_is_the_linear_map_of_torch(
    shape: tuple[int, ...], into: int, out: int, with_bias: bool, is_laid_out: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(*shape, into, generator=generator)
    weight = torch.randn(out, into, generator=generator) / into**0.5
    bias = torch.randn(out, generator=generator) if with_bias else None
    used = products.laid_out(weight) if is_laid_out else weight
    expected = functional.linear(rows, weight, bias)
    torch.testing.assert_close(products.linear(rows, used, bias), expected, atol=1e-4, rtol=1e-4)


def test_rows_that_do_not_lie_together_are_taken_as_they_are() -> None:
    rows, weight = torch.randn(64, 40, 128).transpose(0, 1), torch.randn(256, 128) / 11
    expected = functional.linear(rows, weight)
    torch.testing.assert_close(products.linear(rows, weight), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_keep_their_type(dtype: torch.dtype) -> None:
    rows, weight = torch.randn(64, 256, dtype=dtype), torch.randn(256, 256, dtype=dtype)
    assert products.linear(rows, products.laid_out(weight)).dtype == dtype


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("rows", [1, 50, 130])
def test_onednn_answers_as_mkl_where_it_is_not_the_faster_one_too(rows: int) -> None:
    made, weight = torch.randn(rows, 300), torch.randn(70, 300) / 17
    expected = functional.linear(made, weight)
    torch.testing.assert_close(products._onednn(made, weight, None), expected, atol=1e-4, rtol=1e-4)
