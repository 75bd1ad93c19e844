"""Max-pooling by slices, against torch's own operator."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from dubito.engine.kernels.pooling import max_pool


@pytest.mark.parametrize("shape", [(2, 3, 9, 8), (1, 2, 4, 4), (3, 5, 7), (2, 4, 1, 1)])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "ceil_mode"),
    [
        ((2, 2), (), (0, 0), (1, 1), False),
        ((1, 1), (), (0, 0), (1, 1), False),
        ((3, 2), (), (0,), (1,), False),
        ((2,), (2,), (0,), (1,), False),
        ((1, 2), (1, 2), (0, 0), (1, 1), False),
        ((3, 3), (2, 2), (1, 1), (1, 1), False),
        ((2, 2), (2, 2), (0, 0), (1, 1), True),
        ((2, 2), (), (0, 0), (2, 2), False),
        ((5, 5), (), (2, 2), (1, 1), False),
    ],
)
@pytest.mark.parametrize("is_last", [False, True])
def test_slices_give_the_bits_of_torch(
    shape: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    ceil_mode: bool,
    is_last: bool,
) -> None:
    image = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    image.view(-1)[:3] = torch.tensor([float("nan"), float("inf"), -float("inf")])[: image.numel()]
    if is_last and image.ndim == 4:
        image = image.contiguous(memory_format=torch.channels_last)
    given = (kernel, stride, padding, dilation, ceil_mode)
    try:
        wanted = torch.ops.aten.max_pool2d(image, *given)
    except RuntimeError:
        with pytest.raises(RuntimeError):
            max_pool(image, *given)
        return
    torch.testing.assert_close(max_pool(image, *given), wanted, rtol=0, atol=0, equal_nan=True)


def test_the_stride_is_the_window_where_none_is_given() -> None:
    image = torch.arange(16.0).view(1, 1, 4, 4)
    assert torch.equal(max_pool(image, (2, 2)), functional.max_pool2d(image, 2))
