"""The maximum over windows.

Two Gaussian variables at a time, taken as independent, the result as Gaussian again:

    θ² = v1 + v2,  a = (m1 - m2) / θ,  r = a Φ(a) + φ(a)
    mean     = m1 Φ(a) + m2 Φ(-a) + θ φ(a) = m2 + θ r
    variance = v1 Φ(a) + v2 Φ(-a) + θ² r (a - r)

from max(x, y) = y + max(x - y, 0); the second form does not cancel.

Source: Clark 1961, The greatest of a finite set of random variables, Operations Research 9;
Gast and Roth 2018, arXiv:1805.11327, for pooling.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from dubito.engine.moments.activations import FAR, TINY, standard_moments
from dubito.engine.moments.values import RefusedError, Spread, distinct

_LOWEST = -1e30

Two = tuple[Tensor, Tensor]


def max_pooled(
    x: Spread, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> Spread:
    """Maximum over windows of the last axes.

    Args:
        x: (B, K, ...) with one axis per entry of `kernel` behind the channels.
        kernel: size of a window.
        stride: between windows.
        padding: on both ends.

    Raises:
        RefusedError: elements of a window share noise.
    """
    if x.is_entangled:
        raise RefusedError("parts that depend on the same draws were joined and are mixed now")
    if x.places is not None and distinct(x.places[0]) != x.places[0].numel():
        raise RefusedError("the elements of a window share a draw")
    means, variances = (
        _windows(part, kernel, stride, padding, fill)
        for part, fill in ((x.mean, _LOWEST), (x.variance, 0.0))
    )
    best = means[0], variances[0]
    for other in zip(means[1:], variances[1:], strict=True):
        best = greater(best, other)
    return Spread(*best, x.sites)


def greater(first: Two, second: Two) -> Two:
    """Moments of the larger of two independent Gaussian variables."""
    (m1, v1), (m2, v2) = first, second
    theta = (v1 + v2).sqrt_()
    a = (m1 - m2).div_(theta.clamp_min(TINY)).clamp_(-FAR, FAR)
    left, mean_part = standard_moments(a)
    share = a.sub_(mean_part).mul_(mean_part)
    variance = torch.addcmul(v2, v1 - v2, left).addcmul_(share, theta.square()).clamp_min_(0)
    return torch.maximum(torch.maximum(m1, m2), mean_part.mul_(theta).add_(m2)), variance


def _windows(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], fill: float
) -> list[Tensor]:
    """The entries of all windows, one tensor per place in the window."""
    if any(padding):
        sides = [side for pad in reversed(padding) for side in (pad, pad)]
        x = functional.pad(x, sides, value=fill)
    ends = [size - wide for size, wide in zip(x.shape[-len(kernel) :], kernel, strict=True)]
    parts = []
    for corner in product(*map(range, kernel)):
        part = x  # cut by steps, not unfolded: that would copy against the memory format
        for offset, (start, end, step) in enumerate(zip(corner, ends, stride, strict=True)):
            axis = x.ndim - len(kernel) + offset
            part = part.transpose(0, axis)[start : start + end + 1 : step].transpose(0, axis)
        parts.append(part)
    return parts
