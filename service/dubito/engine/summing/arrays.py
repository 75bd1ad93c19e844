"""What the sums are made of: tensors on a device, or numpy's arrays on the host.

Its job: let the same lines sum either kind. The numbers of a small call are few and its time goes
by the number of operators, of which one of torch's costs as much as three of numpy's; many numbers
are faster in torch, and on a GPU they stay there. The sums are written so that in numpy a row has
the same bits alone and among others: first over the passes, then over the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
import scipy.special
import torch
from torch import Tensor

from dubito.engine.calling.columns import Column
from dubito.engine.kernels.constants import constant

A = TypeVar("A", Tensor, Column)
_FEW = 2**14  # numbers, from which torch is the faster one


def is_small(raw: Tensor) -> bool:
    """Whether numpy sums so many numbers faster than torch."""
    return raw.device.type == "cpu" and raw.numel() < _FEW


def numbers(values: tuple[float, ...], like: A) -> A:
    """A vector of the kind, type and device of another array; not to be written to."""
    if isinstance(like, Tensor):
        return constant(values, like)
    return _on_host(values)


def weighted(values: A, weights: A) -> A:
    """Return weighted sums along the last axis."""
    if isinstance(values, Tensor):
        return values @ weights
    sums: Column = (values * weights).sum(-1)  # a row's bits do not hang on its neighbours
    return sums


def concat(parts: Sequence[A]) -> A:
    """Arrays one after the other along the first axis; one alone is returned as it is."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    return np.concatenate(parts)


def added(total: A | None, part: A) -> A:
    """The sum so far and one more part."""
    return part if total is None else total + part


def entr(probs: A) -> A:
    """-p log p, 0 at p = 0."""
    if isinstance(probs, Tensor):
        of_tensor: Tensor = torch.special.entr(probs)
        return of_tensor
    return scipy.special.entr(probs)


def squared(values: A) -> A:
    """Squares, in the memory of what nothing else reads."""
    values *= values
    return values


def ascending(values: A) -> A:
    """Return the values sorted along the last axis."""
    if isinstance(values, Tensor):
        if values.device.type != "cpu":
            return values.sort(dim=-1).values
        return torch.from_numpy(ascending(values.numpy()))  # many short rows: several times faster
    ordered = np.array(values, order="C")
    ordered.sort(axis=-1)
    return ordered


def last_axis(values: A, axis: int) -> A:
    """A view with that axis at the end."""
    if isinstance(values, Tensor):
        return values.movedim(axis, -1)
    axes = (*range(axis), *range(axis + 1, values.ndim), axis)
    return values.transpose(axes)  # np.moveaxis takes ten times as long


def copied(values: A) -> A:
    """Return the values in memory of their own."""
    return values.clone() if isinstance(values, Tensor) else values.copy()


def not_below_zero(values: A) -> A:
    """Negative numbers made 0, in the memory of what nothing else reads; nan stays."""
    if isinstance(values, Tensor):
        return values.clamp_min_(0)
    return np.maximum(values, 0, out=values)


def taken(values: A, rows: Tensor) -> A:
    """Return entries of the first axis."""
    if isinstance(values, Tensor):
        return values[rows]
    entries: Column = values[rows.numpy()]
    return entries


@lru_cache(maxsize=256)
def _on_host(values: tuple[float, ...]) -> Column:
    made = np.array(values)
    made.setflags(write=False)
    return made
