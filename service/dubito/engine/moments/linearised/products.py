"""Linear maps that are differentiated by what goes in, by the faster of torch's two libraries.

torch differentiates products with MKL; where oneDNN is the faster one (`engine/kernels/products`)
it multiplies with the transposed matrix too, which is laid out once:

    y = x Wᵀ + b,   ∂L/∂x = ∂L/∂y W
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dubito.engine.kernels.products import linear


def differentiable(rows: Tensor, weight: Tensor, bias: Tensor | None, transposed: Tensor) -> Tensor:
    """Rows · weightᵀ + bias.

    Args:
        rows: (..., J), to be differentiated by.
        weight: (C, J).
        bias: (C,), or None.
        transposed: (J, C), the weight once more.
    """
    made: Tensor = _Product.apply(rows, weight, bias, transposed)  # type: ignore[no-untyped-call]
    return made


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, transposed: Tensor
    ) -> Tensor:
        ctx.transposed = transposed
        return linear(rows, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return linear(gradients[0], ctx.transposed), None, None, None
