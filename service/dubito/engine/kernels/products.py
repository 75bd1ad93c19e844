"""Linear maps by the faster of torch's two libraries.

Its job: on a CPU torch multiplies float32 matrices with MKL. On processors of other makers MKL
leaves the wide vector units idle; oneDNN, which torch carries for its convolutions, does not, and
is more than twice as fast there. Which one is faster is measured once per process; where they are
about equal, or a product is small, it is torch's usual one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from dubito.engine.kernels.pooling import MAX_POOL, max_pool
from dubito_nn import Program
from dubito_nn.program import Node, SiteSource, Value, bind, step

_LEAST = 2**19  # multiply-adds from which the call of oneDNN is worth its overhead
_FEW_ROWS, _LAID_OUT_FOR = 8, 64  # rows
_MARGIN = 1.2
_TRIAL, _TURNS = (128, 512, 512), 15


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Rows · weightᵀ + bias, as `torch.nn.functional.linear`."""
    if weight.is_mkldnn:
        return _onednn(rows.contiguous(), weight, bias)
    fits = (
        rows.device.type == "cpu"
        and rows.dtype == weight.dtype == torch.float32
        and weight.ndim == 2
        and rows.numel() * weight.shape[0] >= _LEAST
        and (bias is None or bias.ndim == 1)
    )
    if fits and has_fast_onednn():
        return _onednn(rows.contiguous(), weight, bias)
    # a transposed sequence would become one product per step
    return functional.linear(rows.contiguous() if rows.ndim > 2 else rows, weight, bias)


_OWN: Mapping[str, Callable[..., Tensor]] = {"aten.linear.default": linear, MAX_POOL: max_pool}


def laid_out(weight: Tensor) -> Tensor:
    """A weight in the order in which oneDNN reads it, where that is the faster library."""
    large = weight.numel() * _FEW_ROWS >= _LEAST and weight.dtype == torch.float32
    if weight.device.type != "cpu" or not large or not has_fast_onednn():
        return weight
    ordered: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _LAID_OUT_FOR)
    return ordered


def compute(
    node: Node,
    values: Mapping[str, Value],
    inputs: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    draws: SiteSource | None,
    device: torch.device,
) -> Value:
    """The value of one node, as `dubito_nn.program.step`."""
    replacement = _OWN.get(node.op)
    if replacement is None:
        return step(node, values, inputs, weights, draws, device)
    operands = [bind(argument, values, device) for argument in node.args]
    return replacement(*operands, **node.kwargs)


Compute: TypeAlias = Callable[
    [
        Node,
        Mapping[str, Value],
        Mapping[str, Tensor],
        Mapping[str, Tensor],
        "SiteSource | None",
        torch.device,
    ],
    Value,
]
"""What computes a node: `compute`, or `Lowered` of `lowered.py`."""


def run(
    program: Program,
    inputs: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    device: torch.device,
    by: Compute = compute,
) -> Tensor:
    """The declared output of a program without draws."""
    return outputs_of(program, inputs, weights, device, by)["output"]


def outputs_of(
    program: Program,
    inputs: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    device: torch.device,
    by: Compute = compute,
) -> dict[str, Tensor]:
    """All outputs of a program without draws, by name."""
    values: dict[str, Value] = {}
    dying = program.last_uses
    for position, node in enumerate(program.nodes):
        values[node.name] = by(node, values, inputs, weights, None, device)
        for name in dying.get(position, ()):
            del values[name]
    made = {key: values[name] for key, name in program.outputs.items()}
    assert all(isinstance(value, Tensor) for value in made.values())
    if by is not compute:  # figures are made of float32
        return {key: value.float() for key, value in made.items()}  # type: ignore[union-attr]
    return made  # type: ignore[return-value]


@cache
def has_fast_onednn() -> bool:
    """Whether oneDNN is clearly the faster one here; measured at the first call."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    count, into, out = _TRIAL
    generator = torch.Generator().manual_seed(0)
    rows, weight = (torch.randn(n, into, generator=generator) for n in (count, out))
    bias = torch.zeros(out)
    try:
        _onednn(rows, weight, bias)
    except (RuntimeError, AttributeError):
        return False
    calls = (lambda: functional.linear(rows, weight, bias), lambda: _onednn(rows, weight, bias))
    turns = [[_seconds(call) for call in calls] for _ in range(_TURNS)]  # in turn, or noise decides
    usual, onednn = (min(turn[at] for turn in turns) for at in (0, 1))
    return usual > _MARGIN * onednn


def _onednn(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The operator that torch's own compiler calls for a linear map on a CPU."""
    made: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return made


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
