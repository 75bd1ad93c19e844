"""Reshaping, cutting and joining: elements move, their moments go with them.

The operator runs on the mean, on the variance and on the places alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dubito.engine.moments.values import (
    Drawn,
    Held,
    Product,
    Random,
    RefusedError,
    Spread,
    spread,
)

SHAPES = frozenset(
    f"aten.{name}"
    for name in (
        *("view.default", "_unsafe_view.default", "reshape.default", "flatten.using_ints"),
        *("unflatten.int", "permute.default", "transpose.int", "t.default", "unsqueeze.default"),
        *("squeeze.default", "squeeze.dim", "squeeze.dims", "select.int", "slice.Tensor"),
        *("narrow.default", "contiguous.default", "clone.default", "alias.default"),
        *("detach.default", "movedim.int", "movedim.intlist", "flip.default"),
        *("split.Tensor", "split_with_sizes.default", "chunk.default", "unbind.int"),
        *("expand.default", "to.dtype", "_to_copy.default"),
    )
)
"""Operators that move the elements of one value."""
JOINTS = {"aten.cat.default": torch.cat, "aten.stack.default": torch.stack}
"""Operators that join values."""

_OF_TYPES = ("aten.to.dtype", "aten._to_copy.default")
Move = Callable[[Tensor], Tensor | tuple[Tensor, ...] | list[Tensor]]


def moved(op: str, x: Random, move: Move) -> Held:
    """The value, or several, behind an operator that moves elements.

    Raises:
        RefusedError: elements are repeated.
    """
    of_places = _same if op in _OF_TYPES else move
    if isinstance(x, Drawn):
        return _moved_draws(x, of_places)
    if isinstance(x, Product):
        return _moved_product(op, x, move, of_places)
    x = x.folded()
    parts = [
        None if part is None else function(part)
        for part, function in (
            (x.mean, move),
            (x.variance, move),
            (x.deviation, move),
            (x.places, of_places),
        )
    ]
    if isinstance(parts[0], Tensor):
        return _checked(x, parts)
    count = len(parts[0])  # type: ignore[arg-type]
    each = zip(*([None] * count if part is None else part for part in parts), strict=True)
    return tuple(_checked(x, list(piece)) for piece in each)


def joined(values: list[object], dim: int, join: Callable[..., Tensor]) -> Spread:
    """Several values as one; those that depend on the same draws may not be mixed later.

    Raises:
        RefusedError: elements of a part share noise.
    """
    parts = [_as_spread(value) for value in values]
    if any(part.places is not None for part in parts):
        raise RefusedError("values whose elements share draws are joined")
    sites = [site for part in parts for site in part.sites]
    is_entangled = len(sites) != len(set(sites)) or any(part.is_entangled for part in parts)
    return Spread(
        join([part.mean for part in parts], dim),
        join([part.variance for part in parts], dim),
        frozenset(sites),
        is_entangled=is_entangled,
    )


def _as_spread(value: object) -> Spread:
    if isinstance(value, Tensor):
        return Spread(value, torch.zeros_like(value), frozenset())
    assert isinstance(value, (Drawn, Product, Spread))
    return spread(value)


def _moved_product(op: str, x: Product, move: Move, of_places: Move) -> Held:
    base: object = moved(op, x.base, move) if isinstance(x.base, Spread) else move(x.base)
    places = None if x.places is None else of_places(x.places)
    if (
        not x.law.is_uniform
        or not isinstance(base, (Tensor, Spread))
        or isinstance(places, list | tuple)
    ):
        return moved(op, x.collapsed(), move)
    if base.shape != x.shape and torch.Size(base.shape).numel() > torch.Size(x.shape).numel():
        raise RefusedError("a random value is repeated")
    return x.with_base(base, places)


def _moved_draws(x: Drawn, move: Move) -> Drawn:
    if x.nodes[0].numel() != 1 or x.weights[0].numel() != 1:
        raise RefusedError("draws of unequal distribution are reshaped before they act on a value")
    places = move(x.numbered())
    if not isinstance(places, Tensor):
        raise RefusedError("draws are cut before they act on a value")
    nodes, weights = (part.reshape(-1, *[1] * places.ndim) for part in (x.nodes, x.weights))
    shape = tuple(places.shape)
    rows_axis = x.rows_axis
    return replace(x, nodes=nodes, weights=weights, shape=shape, rows_axis=rows_axis, places=places)


def _checked(x: Spread, parts: Sequence[object]) -> Spread:
    mean, variance, deviation, places = parts
    assert isinstance(mean, Tensor)
    assert isinstance(variance, Tensor)
    assert deviation is None or isinstance(deviation, Tensor)
    assert places is None or isinstance(places, Tensor)
    if mean.numel() > x.mean.numel():
        raise RefusedError("a random value is repeated")
    joint = x.joint if mean.shape == x.mean.shape else None
    return replace(x, mean=mean, variance=variance, deviation=deviation, places=places, joint=joint)


def _same(x: Tensor) -> Tensor:
    return x
