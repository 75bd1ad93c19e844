"""Write calls that no bundle may hold as others that mean the same, while a network is recorded.

Its job: stand in for functions of torch whose own steps check values, or take the number of rows
for a number of their own.

    embedding_bag(ids, table)     the sum, mean or maximum of table[ids] over each row's ids
    inv, solve, cholesky          the same without torch's look at whether the matrix is singular
    multi_dot([a, b, c])          (a b) c, from the left
    take_along_dim(x, i, axis)    gather
    cdist(x, y) of matrices       of a batch of one-row matrices
    grouped_mm(x, W, offs=ends)   a stand-in, for any type of numbers
    fractional_max_pool2d(x, ...) windows that are gathered, and their maxima
    x.data                        x.detach(), whose writes the recorder sees
    law.sample((x.shape[0],))     with the rows in the shape as a symbol
    rate.new(x.shape)             new_empty, whatever sizes are symbols
    self.inner.to(x.device)       self.inner, which is there already
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial, reduce
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from dubito_nn.capturing.opaque import grouped_mm
from dubito_nn.capturing.pooled import fractional_pool

Call = Callable[..., object]


class Respelled(TorchFunctionMode):
    """While active, the functions of `_SPELLINGS` are called in the way that can be recorded."""

    def __torch_function__(
        self,
        func: Call,
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Call the stand-in of a function, where it has one for such arguments."""
        spelling = _SPELLINGS.get(func)
        if spelling is not None:
            result = spelling(*args, **(kwargs or {}))
            if result is not None:
                return result
        return func(*args, **(kwargs or {}))


@contextmanager
def sampled_by_rows() -> Iterator[None]:
    """While active, `torch.distributions` takes the number of rows for a sample's shape."""
    whole: Callable[..., Any] = Distribution._extended_shape

    def extended(self: Distribution, sample_shape: Sequence[Any] = ()) -> Sequence[Any]:
        if any(isinstance(size, torch.SymInt) for size in sample_shape):
            return (*sample_shape, *self._batch_shape, *self._event_shape)
        return whole(self, sample_shape)  # type: ignore[no-any-return]

    with patch.object(Distribution, "_extended_shape", extended):
        yield


@contextmanager
def moved_nowhere() -> Iterator[None]:
    """While active, modules that are moved to where they are, the CPU, stay as they are."""
    to: Callable[..., Any] = nn.Module.to

    def stayed(self: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        held = {p.dtype for p in self.parameters() if p.is_floating_point()}
        is_there = device is None or device.type == "cpu"
        if is_there and (dtype is None or held <= {dtype}):
            return self
        return to(self, *args, **kwargs)  # type: ignore[no-any-return]

    with patch.object(nn.Module, "to", stayed):
        yield


def _new(tensor: Tensor, *args: Any, **kwargs: Any) -> object:
    sizes = args[0] if len(args) == 1 and not kwargs else None
    is_sized = isinstance(sizes, (tuple, list)) and any(isinstance(n, torch.SymInt) for n in sizes)
    return tensor.new_empty(sizes) if is_sized else None  # type: ignore[arg-type]


def _embedding_bag(*args: object, **kwargs: object) -> object:
    bound = inspect.signature(functional.embedding_bag).bind(*args, **kwargs)
    bound.apply_defaults()
    given: dict[str, Any] = bound.arguments
    ids, table, mode = (given[name] for name in ("input", "weight", "mode"))
    if ids.dim() != 2 or given["max_norm"] is not None:
        return None
    found = functional.embedding(ids, table)
    if given["per_sample_weights"] is not None:
        found = found * given["per_sample_weights"].unsqueeze(2)
    if given["padding_idx"] is None:
        if mode == "max":
            return found.amax(1)
        return found.sum(1) if mode == "sum" else found.mean(1)
    kept = (ids != given["padding_idx"] % table.shape[0]).unsqueeze(2)
    if mode == "max":
        lowest = found.masked_fill(~kept, -torch.inf).amax(1)
        return lowest.masked_fill(~kept.any(1), 0.0)
    total = (found * kept).sum(1)
    return total if mode == "sum" else total / kept.sum(1).clamp(min=1)


def _inverse(A: Tensor, *, out: None = None) -> object:
    return torch.linalg.inv_ex(A)[0]


def _solve(A: Tensor, B: Tensor, *, left: bool = True, out: None = None) -> object:
    return torch.linalg.solve_ex(A, B, left=left)[0]


def _cholesky(A: Tensor, upper: bool = False, *, out: None = None) -> object:
    return torch.linalg.cholesky_ex(A, upper=upper)[0]


def _multi_dot(tensors: Sequence[Tensor], *, out: None = None) -> object:
    return reduce(torch.matmul, tensors)


def _take_along_dim(
    input: Tensor,
    indices: Tensor,
    dim: int | None = None,
    *,
    out: None = None,
) -> Tensor | None:
    same = dim is not None and input.dim() == indices.dim()
    if not same or any(
        isinstance(size, int) and size == 1 and axis != dim % input.dim()  # type: ignore[operator]
        for tensor in (input, indices)
        for axis, size in enumerate(tensor.shape)
    ):
        return None  # axes that are repeated
    return torch.gather(input, dim, indices)  # type: ignore[arg-type]


def _cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: Any = None) -> Tensor | None:
    if x1.dim() != 2 or x2.dim() != 2:
        return None
    return torch.cdist(x1.unsqueeze(1), x2.unsqueeze(0), p).squeeze(1)


_SPELLINGS: dict[object, Call] = {
    functional.embedding_bag: _embedding_bag,
    **dict.fromkeys((torch.linalg.inv, torch.inverse, Tensor.inverse), _inverse),
    torch.linalg.solve: _solve,
    **dict.fromkeys((torch.linalg.cholesky, torch.cholesky, Tensor.cholesky), _cholesky),
    torch.linalg.multi_dot: _multi_dot,
    **dict.fromkeys((torch.take_along_dim, Tensor.take_along_dim), _take_along_dim),
    torch.cdist: _cdist,
    functional.fractional_max_pool2d: partial(fractional_pool, 2, False),
    functional.fractional_max_pool3d: partial(fractional_pool, 3, False),
    functional.fractional_max_pool2d_with_indices: partial(fractional_pool, 2, True),
    functional.fractional_max_pool3d_with_indices: partial(fractional_pool, 3, True),
    torch._grouped_mm: grouped_mm,
    Tensor.new: _new,
    Tensor.data.__get__: Tensor.detach,  # type: ignore[attr-defined]
}
