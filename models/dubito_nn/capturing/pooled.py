"""Fractional max-pooling, whose kernel a bundle may not name, by gathering windows.

    out[i] = max x[s_i : s_i + k],  s_i = ⌊(i + u) a⌋ - ⌊u a⌋,  a = (n - k) / (m - 1)

along each axis, of n numbers into m, the last window at the end, u being one uniform number per
row, channel and axis.

Source: Graham 2014, arXiv:1412.6071, as torch computes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

_ORDER = {2: (1, 0), 3: (0, 1, 2)}  # of the numbers of an axis: torch has width first in two


Sizes: TypeAlias = "int | Sequence[int]"
Ratios: TypeAlias = "float | Sequence[float]"


def fractional_pool(
    num_axes: int,
    is_pair: bool,
    input: Tensor,
    kernel_size: Sizes,
    output_size: Sizes | None = None,
    output_ratio: Ratios | None = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """What `torch.nn.functional.fractional_max_pool2d` and `3d` return.

    Args:
        num_axes: of a map: 2 or 3.
        is_pair: whether both results are returned, whatever `return_indices` says.
        input: (..., H, W) or (..., D, H, W).
        kernel_size: of a window.
        output_size: number of windows along each axis.
        output_ratio: the same as a share of the numbers, where it is not given.
        return_indices: whether to return where the greatest numbers lie, too.
        _random_samples: (rows, channels, axes) uniform numbers; drawn where not given.
    """
    first = input.dim() - num_axes
    kernel, size = _each(kernel_size, num_axes), _each(output_size, num_axes)
    if size is None:
        ratio = _each(output_ratio, num_axes)
        assert ratio is not None
        lengths = input.shape[first:]
        size = tuple(int(n * share) for n, share in zip(lengths, ratio, strict=True))
    if _random_samples is None:
        rows = input.shape[0] if first == 2 else 1
        shape = (rows, input.shape[first - 1], num_axes)
        _random_samples = torch.rand(shape, dtype=input.dtype, device=input.device)
    assert kernel is not None
    made = _gathered(input, kernel, size, _random_samples)
    return made if is_pair or return_indices else made[0]


def _each(given: Any, num_axes: int) -> tuple[Any, ...] | None:
    """One number for each axis."""
    if given is None or not isinstance(given, (int, float)):
        return given if given is None else tuple(given)
    return (given,) * num_axes


def _gathered(
    x: Tensor, kernel: Sequence[int], size: Sequence[int], samples: Tensor
) -> tuple[Tensor, Tensor]:
    """The greatest number of each window, and where it lies in its map.

    Args:
        x: maps, on the last axes.
        kernel: size of a window along each axis.
        size: number of windows along each axis.
        samples: (rows, channels, axes) uniform numbers.
    """
    num_axes = len(kernel)
    first = x.dim() - num_axes
    samples = samples.reshape(*x.shape[:first], num_axes)
    plane = torch.arange(x.shape[first:].numel(), device=x.device).view(x.shape[first:])
    found, places = x, plane.expand(x.shape)
    for axis in range(num_axes):
        uniform = samples[..., _ORDER[num_axes][axis]].unsqueeze(-1)
        starts = _starts(uniform, x.shape[first + axis], size[axis], kernel[axis])
        inside = starts.unsqueeze(-1) + torch.arange(kernel[axis], device=x.device)
        index = inside.flatten(-2)
        for other in range(num_axes):
            index = index if other == axis else index.unsqueeze(first + other)
        shape = list(found.shape)
        shape[first + axis] = size[axis] * kernel[axis]
        index = index.expand(shape)
        found, places = (torch.gather(part, first + axis, index) for part in (found, places))
    windows, held = (_windows(part, kernel, size, first) for part in (found, places))
    most, at = windows.max(-1)
    return most, torch.gather(held, -1, at.unsqueeze(-1)).squeeze(-1)


def _starts(uniform: Tensor, length: int, count: int, kernel: int) -> Tensor:
    """(..., count) where windows begin; uniform is (..., 1)."""
    last = torch.full_like(uniform, length - kernel, dtype=torch.int64)
    if count == 1:
        return last
    rate = (length - kernel) / (count - 1)
    steps = torch.arange(count - 1, device=uniform.device, dtype=uniform.dtype)
    starts = ((steps + uniform) * rate).floor() - (uniform * rate).floor()
    return torch.cat([starts.long(), last], dim=-1)


def _windows(x: Tensor, kernel: Sequence[int], size: Sequence[int], first: int) -> Tensor:
    """(..., m1 k1, m2 k2) → (..., m1, m2, k1 k2)."""
    parts = [part for pair in zip(size, kernel, strict=True) for part in pair]
    whole = x.reshape(*x.shape[:first], *parts)
    order = [first + 2 * axis for axis in range(len(kernel))]
    inner = [axis + 1 for axis in order]
    return whole.permute(*range(first), *order, *inner).flatten(-len(kernel))
