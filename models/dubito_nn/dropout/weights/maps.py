"""The linear maps whose weights can be masked, applied with other weights than their own."""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor, nn
from torch.nn import functional

LinearMap: TypeAlias = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
LINEAR_MAPS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def check_map(layer: nn.Module) -> LinearMap:
    """Return a layer whose weights can be masked as it is.

    Raises:
        ValueError: It is no linear or convolutional layer.
    """
    if isinstance(layer, LINEAR_MAPS):
        return layer
    raise ValueError(
        f"expected one of {[kind.__name__ for kind in LINEAR_MAPS]}, got "
        f"{type(layer).__name__}: wrap the layer whose weights are to be dropped"
    )


def mapped(layer: LinearMap, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return what the layer would return with that weight and bias."""
    if isinstance(layer, nn.Linear):
        return functional.linear(x, weight, bias)
    convolved: Tensor = layer._conv_forward(x, weight, bias)
    return convolved


def along_units(layer: LinearMap, per_unit: Tensor) -> Tensor:
    """Bring numbers per unit, (B, K) or (K,), to axes that fit the layer's 2-or-more-axes output.

    A convolution holds its units on axis 1, a linear layer on the last.
    """
    if isinstance(layer, nn.Linear):
        return per_unit
    return per_unit.reshape(*per_unit.shape, *[1] * (layer.weight.ndim - 2))
