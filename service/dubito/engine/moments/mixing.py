"""Weighted sums over the elements of a value: linear maps, convolutions, averages.

With weights W and noise that is each element's own:

    mean' = W mean + b,    variance' = W² variance

Elements that share a number (a channel's mask before a convolution, flattened channels before a
linear map) add up their signed deviations first and are squared then:

    variance' = W² variance + Σ_g (Σ_{j in g} W_j deviation_j)²

Where all elements share one number (a path's mask), the result does so too. Where the places of a
result hang on the same draws as their neighbours (after a convolution of such channels), they are
marked with equal `places` and no deviation, and a later sum over them is refused: taken as
independent, their variance would be too small, often many times.

Dimensions: B rows, J inputs and C outputs of a linear map, G groups, K channels.
Source: Wang and Manning 2013, section 2; Gast and Roth 2018, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from dubito.engine.moments.common import MIN_WIDTH, Directions, pairs_of
from dubito.engine.moments.values import RefusedError, Spread, distinct

_MAX_PAIRED = 32  # outputs whose covariance is taken pair by pair
_SHARED = "elements that share a draw are added up, after it was mixed or bent"

Map = Callable[[Tensor], Tensor]


class Weights(Protocol):
    """A linear operator on tensors, and the same with every weight squared."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return W x."""
        ...

    def squared(self, x: Tensor) -> Tensor:
        """Return W² x."""
        ...


def linear(
    x: Spread,
    weight_CJ: Tensor,
    square_CJ: Tensor,
    bias_C: Tensor | None,
    directions: Callable[[], Directions],
) -> Spread:
    """A linear map of the last axis.

    Args:
        x: (B, J), or with further axes between.
        weight_CJ: W.
        square_CJ: W².
        bias_C: b.
        directions: gives the largest directions of W, for hidden layers.

    Raises:
        RefusedError: elements that share noise in a way that cannot be followed.
    """
    _check_parts(x)
    mean = functional.linear(x.mean, weight_CJ, bias_C)
    if x.places is None:
        return _unshared(x, mean, weight_CJ, square_CJ, directions)
    x = x.folded()
    assert x.places is not None
    places, shared = _of_one_row(x), x.places
    if _is_one(places):
        apply, squared = (partial(functional.linear, weight=w) for w in (weight_CJ, square_CJ))
        return _as_one(x, mean, apply, squared)
    lines = places.reshape(-1, places.shape[-1])
    out = _places_of_lines(lines, mean)
    if _is_distinct_in_lines(lines):
        variance = functional.linear(x.total(), square_CJ)
        return Spread(mean, variance, x.sites, None, out)
    if x.deviation is None:
        raise RefusedError(_SHARED)
    size = _block_size(lines)
    sums = _block_sums(x.deviation, weight_CJ, size)
    if sums.shape[-1] == 1:  # each line hangs on one number, and so do its outputs
        variance = functional.linear(x.variance, square_CJ)
        return Spread(mean, variance, x.sites, sums[..., 0], shared[..., :1].expand(mean.shape))
    variance = functional.linear(x.variance, square_CJ) + sums.square().sum(-1)
    of_noise, joint = _joint(x, weight_CJ, None), None
    if of_noise is not None:
        joint = lambda: of_noise() + sums @ sums.mT  # noqa: E731
    return Spread(mean, variance, x.sites, None, out, joint=joint)


def _unshared(
    x: Spread,
    mean: Tensor,
    weight_CJ: Tensor,
    square_CJ: Tensor,
    directions: Callable[[], Directions],
) -> Spread:
    variance = functional.linear(x.variance, square_CJ)
    if mean.ndim == 2 and min(weight_CJ.shape) > MIN_WIDTH:
        variance, common = directions().split(x.variance, x.common, variance)
        return Spread(mean, variance, x.sites, common=common, joint=_joint(x, weight_CJ, None))
    mixed = None
    if x.common is not None:
        mixed = functional.linear(x.common.factors, weight_CJ)
        variance = variance + mixed.square().sum(-2)
    return Spread(mean, variance, x.sites, joint=_joint(x, weight_CJ, mixed))


def convolution(
    x: Spread,
    weights: Weights,
    by_channel: Callable[[Tensor], Iterator[Tensor]],
    bias_C: Tensor | None,
) -> Spread:
    """A convolution of the axes behind the channels.

    Args:
        x: (B, K, ...).
        weights: the convolution without its bias.
        by_channel: the convolution of one channel after the other, each (B, C, ...).
        bias_C: of the outputs.

    Raises:
        RefusedError: elements that share noise in a way that cannot be followed.
    """
    _check_parts(x)
    mean = weights(x.mean)
    if bias_C is not None:
        mean = mean + bias_C.reshape(-1, *[1] * (mean.ndim - 2))
    if x.places is None:
        return Spread(mean, weights.squared(x.variance), x.sites)
    places = _of_one_row(x)
    if _is_one(places):
        return _as_one(x, mean, weights, weights.squared)
    numbers = places.reshape(len(places), -1)
    channel = numbers[:, 0]
    is_tied = bool((numbers == channel[:, None]).all()) and distinct(channel) == len(channel)
    if not is_tied or x.deviation is None:
        raise RefusedError(_SHARED)
    variance = weights.squared(x.variance) if x.variance.any() else torch.zeros_like(mean)
    for part in by_channel(x.deviation):
        variance.addcmul_(part, part)
    numbers = torch.arange(mean.shape[1], dtype=torch.int32, device=mean.device)
    out = numbers.reshape(-1, *[1] * (mean.ndim - 2)).expand(mean.shape)
    return Spread(mean, variance, x.sites, None, out)


def averaged(x: Spread, weights: Weights, dims: tuple[int, ...]) -> Spread:
    """A mean, a sum or a pooling over some axes.

    Args:
        x: the value.
        weights: the operator.
        dims: axes that it runs over.

    Raises:
        RefusedError: elements that share noise in a way that cannot be followed.
    """
    _check_parts(x)
    mean = weights(x.mean)
    if x.places is None:
        return Spread(mean, weights.squared(x.variance), x.sites)
    places = x.places
    first = places
    for dim in dims:
        first = first.narrow(dim, 0, 1)
    if not torch.equal(first.expand(places.shape), places):
        if _is_distinct(_of_one_row(x)):
            return Spread(mean, weights.squared(x.total()), x.sites)
        raise RefusedError(_SHARED)
    if x.deviation is None:
        raise RefusedError(_SHARED)
    if mean.ndim != first.ndim:
        first = first.squeeze(dims)
    return Spread(
        mean,
        weights.squared(x.variance),
        x.sites,
        weights(x.deviation),
        first.expand(mean.shape),
    )


def _check_parts(x: Spread) -> None:
    if x.is_entangled:
        raise RefusedError("parts that depend on the same draws were joined and are mixed now")


def _joint(x: Spread, weight_CJ: Tensor, mixed_BRC: Tensor | None) -> Callable[[], Tensor] | None:
    """W diag(v) Wᵀ + W Fᵀ F Wᵀ; for a few outputs v times W_c ⊙ W_p of all pairs (c, p)."""
    if x.mean.ndim != 2:
        return None
    variance_BJ, count, common = x.variance, len(weight_CJ), x.common

    def plain() -> Tensor:
        return (variance_BJ.unsqueeze(1) * weight_CJ) @ weight_CJ.T

    def paired() -> Tensor:
        first, second, square = pairs_of(count)
        return functional.linear(variance_BJ, weight_CJ[first] * weight_CJ[second])[:, square]

    def both() -> Tensor:
        covariance_BCC = paired() if count <= _MAX_PAIRED else plain()
        if common is None:
            return covariance_BCC
        factors_BRC = mixed_BRC
        if factors_BRC is None:
            factors_BRC = functional.linear(common.factors, weight_CJ)
        return covariance_BCC + factors_BRC.mT @ factors_BRC

    return both


def _as_one(x: Spread, mean: Tensor, apply: Map, squared: Map) -> Spread:
    if x.deviation is None:
        raise RefusedError(_SHARED)
    places = torch.zeros(1, dtype=torch.int32, device=mean.device).expand(mean.shape)
    deviation = apply(x.deviation)
    return Spread(mean, squared(x.variance), x.sites, deviation, places)


def _of_one_row(x: Spread) -> Tensor:
    """`places` of the first row; they are the same in all."""
    assert x.places is not None
    return x.places[0]


def _is_one(places: Tensor) -> bool:
    return bool((places == places.flatten()[0]).all())


def _is_distinct(places: Tensor) -> bool:
    return distinct(places) == places.numel()


def _is_distinct_in_lines(lines: Tensor) -> bool:
    ordered = lines.sort(-1).values
    return bool((ordered[:, 1:] != ordered[:, :-1]).all())


def _places_of_lines(lines: Tensor, mean: Tensor) -> Tensor | None:
    """Return None where no two lines share a number, else marks that all lines have in common."""
    sizes = sum(distinct(line) for line in lines)
    if sizes == distinct(lines):
        return None
    numbers = torch.arange(mean.shape[-1], dtype=torch.int32, device=mean.device)
    return numbers.expand(mean.shape)


def _block_size(lines: Tensor) -> int:
    """Length of the runs of equal numbers, where all are as long and in the same places."""
    count = distinct(lines[0])
    size, rest = divmod(lines.shape[-1], count)
    if not rest:
        blocks = lines.reshape(len(lines), count, size)
        starts = blocks[:, :, :1]
        if bool((blocks == starts).all()) and _is_distinct_in_lines(starts[:, :, 0]):
            return size
    raise RefusedError("elements that share draws are not side by side")


def _block_sums(x: Tensor, weight_CJ: Tensor, size: int) -> Tensor:
    """Σ_{j in g} W_cj x_j for every block g: (..., J) -> (..., C, G)."""
    blocks = x.reshape(*x.shape[:-1], -1, size)
    return torch.einsum("...gs,cgs->...cg", blocks, weight_CJ.reshape(len(weight_CJ), -1, size))
