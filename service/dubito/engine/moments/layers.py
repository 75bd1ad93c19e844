"""The rule of every operator that takes a random value and is no sum or product of two.

Flow: a `Call` (operator, bound arguments) → its rule → moments. The last name in every rule is
found in `LAYERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor

from dubito.engine.moments import mixing
from dubito.engine.moments.activations import ACTIVATIONS, HOMOGENEOUS, activated
from dubito.engine.moments.arithmetic import scaled, shifted
from dubito.engine.moments.common import Directions
from dubito.engine.moments.maxima import max_pooled
from dubito.engine.moments.shapes import JOINTS, SHAPES, joined, moved
from dubito.engine.moments.values import (
    Drawn,
    Held,
    NodeLaw,
    Product,
    RefusedError,
    Spread,
    spread,
    standing,
    with_common,
)
from dubito_nn.operators import resolve


@dataclass(frozen=True)
class Call:
    """An operator and what it is called with.

    Args:
        op: its name.
        args: bound positional arguments.
        kwargs: bound named arguments.
        squared: gives the argument at a position, a weight, squared.
        directions: gives the largest directions of the matrix (C, J) at a position.
    """

    op: str
    args: Sequence[object]
    kwargs: Mapping[str, object]
    squared: Callable[[int], Tensor]
    directions: Callable[[int, bool], Directions]

    def x(self) -> Drawn | Product | Spread:
        """The first argument, which must be the random one.

        Raises:
            RefusedError: another one is random.
        """
        first, *others = self.args
        if not isinstance(first, (Drawn, Product, Spread)) or any(
            isinstance(other, (Drawn, Product, Spread)) for other in others
        ):
            raise RefusedError("a weight or another argument is random")
        return first

    def named(self, *defaults: tuple[str, object]) -> list[object]:
        """Arguments behind the first, by position or name."""
        args = list(self.args[1:])
        return [
            args[at] if at < len(args) else self.kwargs.get(name, default)
            for at, (name, default) in enumerate(defaults)
        ]


@dataclass(frozen=True)
class _Convolution:
    """A convolution without bias; the kernel is its second argument."""

    call: Call

    def __call__(self, x: Tensor) -> Tensor:
        return self._run(x, cast(Tensor, self.call.args[1]))

    def squared(self, x: Tensor) -> Tensor:
        return self._run(x, self.call.squared(1))

    def _run(self, x: Tensor, kernel: Tensor) -> Tensor:
        return _tensor(
            resolve(self.call.op)(x, kernel, None, *self.call.args[3:], **self.call.kwargs)
        )

    def by_channel(self, x: Tensor) -> Iterator[Tensor]:
        """One input channel after the other: (B, K, ...) -> K times (B, C, ...)."""
        kernel, rest = cast(Tensor, self.call.args[1]), self.call.args[3:]
        is_transposed = self.call.op == "aten.convolution.default" and rest[3]
        if is_transposed or kernel.shape[1] != x.shape[1]:
            raise RefusedError("channels that share draws meet a grouped or transposed convolution")
        for channel in range(x.shape[1]):
            yield self._run(x[:, channel : channel + 1], kernel[:, channel : channel + 1])


@dataclass(frozen=True)
class _Average:
    """An average over windows of `count` elements."""

    run: Callable[[Tensor], Tensor]
    count: float

    def __call__(self, x: Tensor) -> Tensor:
        return self.run(x)

    def squared(self, x: Tensor) -> Tensor:
        return self.run(x) / self.count


def _linear(call: Call) -> Held:
    weight, bias = call.named(("weight", None), ("bias", None))
    bias = None if bias is None else _tensor(bias)
    directions = partial(call.directions, 1, False)
    return mixing.linear(with_common(call.x()), _tensor(weight), call.squared(1), bias, directions)


def _matmul(call: Call) -> Held:
    weight = call.args[1]
    x = with_common(call.x())
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        raise RefusedError("a product with other than a matrix of weights")
    directions = partial(call.directions, 1, True)
    return mixing.linear(x, weight.t(), call.squared(1).t(), None, directions)


def _addmm(call: Call) -> Held:
    bias, x, weight = call.args[:3]
    if call.kwargs or not isinstance(x, (Drawn, Product, Spread)):
        raise RefusedError("a weight or another argument is random")
    directions = partial(call.directions, 2, True)
    return mixing.linear(
        with_common(x), _tensor(weight).t(), call.squared(2).t(), _tensor(bias), directions
    )


def _convolve(call: Call) -> Held:
    x = spread(call.x())
    weights = _Convolution(call)
    bias = call.args[2] if len(call.args) > 2 else None
    return mixing.convolution(x, weights, weights.by_channel, cast("Tensor | None", bias))


def _batch_norm(call: Call) -> Held:
    names = ("weight", "bias", "running_mean", "running_var")
    gain, bias, mean, variance = call.named(*((name, None) for name in names))
    eps = cast(float, call.args[7])
    x = call.x()
    x = standing(x) if isinstance(x, Drawn) else x
    each = [1, -1, *[1] * (len(x.shape) - 2)]
    scale = (_tensor(variance) + eps).rsqrt()
    scale = scale if gain is None else scale * _tensor(gain)
    shift = -_tensor(mean) * scale
    shift = shift if bias is None else shift + _tensor(bias)
    return shifted(spread(scaled(x, scale.reshape(each))), shift.reshape(each))


def _activate(call: Call) -> Held:
    """Exact behind a mask that leaves nothing or one multiple of x; else that of a Gaussian."""
    x = call.x()
    if isinstance(x, Product):
        if call.op in HOMOGENEOUS and x.law.is_scale:
            return replace(x, base=_pointwise(call, x.base))
        if x.law.is_switch:
            return _switched(call, x)
    return activated(call.op, with_common(x), tuple(call.args[1:]), call.kwargs)


def _switched(call: Call, x: Product) -> Product:
    """φ(x f + g) = φ(g₀) + ω (φ(x f₁ + g₁) - φ(g₀)) for ω in {0, 1} and f₀ = 0."""
    kind = x.base.mean.dtype if isinstance(x.base, Spread) else x.base.dtype
    dropped = _tensor(resolve(call.op)(x.law.offset[0].to(kind), *call.args[1:], **call.kwargs))
    passed = shifted_base(x.base, x.law.factor[1].to(kind), x.law.offset[1].to(kind))
    base = _pointwise(call, passed)
    base = base - dropped if isinstance(base, Tensor) else replace(base, mean=base.mean - dropped)
    ones = torch.ones_like(x.law.factor)
    factor = torch.cat([torch.zeros_like(ones[:1]), ones[1:]])
    offset = torch.stack([dropped, dropped]).double()
    return replace(x, base=base, law=NodeLaw(factor, offset, x.law.weights))


def shifted_base(base: Tensor | Spread, factor: Tensor, offset: Tensor) -> Tensor | Spread:
    """A value times f plus g, with numbers f and g."""
    if isinstance(base, Tensor):
        return base * factor + offset
    grown = shifted(spread(scaled(base, factor)), offset)
    assert isinstance(grown, Spread)
    return grown


def _pointwise(call: Call, base: Tensor | Spread) -> Tensor | Spread:
    if isinstance(base, Tensor):
        return _tensor(resolve(call.op)(base, *call.args[1:], **call.kwargs))
    return activated(call.op, base, tuple(call.args[1:]), call.kwargs)


def _average_pool(call: Call) -> Held:
    kernel, _, padding, ceil, include, divisor = call.named(
        ("kernel_size", ()),
        ("stride", ()),
        ("padding", (0,)),
        ("ceil_mode", False),
        ("count_include_pad", True),
        ("divisor_override", None),
    )
    sizes = _sizes(kernel, 2 if "2d" in call.op else 1)
    if ceil or divisor is not None or (any(_sizes(padding, 1)) and not include):
        raise RefusedError("windows of unequal weight")
    return _pooled(call, torch.Size(sizes).numel(), len(sizes))


def _adaptive_pool(call: Call) -> Held:
    ndim = 2 if "2d" in call.op else 1
    wanted = _sizes(call.args[1], ndim)
    have = call.x().shape[-ndim:]
    if any(size % target for size, target in zip(have, wanted, strict=True)):
        raise RefusedError("windows of unequal weight")
    return _pooled(call, torch.Size(have).numel() // torch.Size(wanted).numel(), ndim)


def _pooled(call: Call, count: int, ndim: int) -> Held:
    def run(x: Tensor) -> Tensor:
        return _tensor(resolve(call.op)(x, *call.args[1:], **call.kwargs))

    x = spread(call.x())
    axes = range(len(x.shape) - ndim, len(x.shape))
    return mixing.averaged(x, _Average(run, count), tuple(axes))


def _reduce(call: Call) -> Held:
    """Mean or sum over axes."""
    x = spread(call.x())
    dims, keep, dtype = call.named(("dim", None), ("keepdim", False), ("dtype", None))
    if dims is None or dtype is not None or call.kwargs.get("dtype") is not None:
        raise RefusedError("a sum over all axes or of another type")
    axes = tuple(dim % len(x.shape) for dim in cast("list[int]", dims))
    count = torch.Size([x.shape[axis] for axis in axes]).numel()
    is_mean = "mean" in call.op
    function = torch.mean if is_mean else torch.sum
    weights = _Average(lambda t: function(t, axes, keepdim=bool(keep)), count if is_mean else 1.0)
    return mixing.averaged(x, weights, axes)


def _max_pool(call: Call) -> Held:
    kernel, stride, padding, dilation, ceil = call.named(
        ("kernel_size", ()), ("stride", ()), ("padding", 0), ("dilation", 1), ("ceil_mode", False)
    )
    ndim = 2 if "2d" in call.op else 1
    sizes, pads = _sizes(kernel, ndim), _sizes(padding, ndim)
    steps = _sizes(stride, ndim) if stride else sizes
    x = call.x()
    if isinstance(x, Product) and x.law.is_scale and x.places is not None:
        base = _max_pool_of_base(call, x)
        if base is not None:
            return base
    if ceil or set(_sizes(dilation, ndim)) != {1}:
        raise RefusedError("windows with holes, or cut at the end")
    return max_pooled(spread(x), sizes, steps, pads)


def _max_pool_of_base(call: Call, x: Product) -> Product | None:
    """max(f x) = f max(x) where all of a channel share f ≥ 0 and x is known."""
    assert x.places is not None
    if not isinstance(x.base, Tensor) or not x.law.is_uniform:
        return None
    channels = x.places.flatten(2)
    if not bool((channels == channels[:, :, :1]).all()):
        return None
    base = _tensor(resolve(call.op)(x.base, *call.args[1:], **call.kwargs))
    first = channels[:, :, 0].reshape(*channels.shape[:2], *[1] * (base.ndim - 2))
    return x.with_base(base, first.expand(base.shape))


def _move(call: Call) -> Held:
    def run(x: Tensor) -> Tensor | tuple[Tensor, ...]:
        return resolve(call.op)(x, *call.args[1:], **call.kwargs)  # type: ignore[return-value]

    return moved(call.op, call.x(), run)


def _join(call: Call) -> Held:
    values = call.args[0]
    assert isinstance(values, list)
    (dim,) = call.named(("dim", 0))
    return joined(values, cast(int, dim), JOINTS[call.op])


def _size(call: Call) -> Held:
    return call.x().shape[cast(int, call.args[1])]


def _item(call: Call) -> Held:
    parts, position = call.args
    return cast("tuple[Spread, ...]", parts)[cast(int, position)]


def _sizes(value: object, ndim: int) -> list[int]:
    sizes = list(value) if isinstance(value, (tuple, list)) else [cast(int, value)]
    return sizes * ndim if len(sizes) == 1 else sizes


def _tensor(value: object) -> Tensor:
    if not isinstance(value, Tensor):
        raise RefusedError("a weight or another argument is random")
    return value


def _table(names: str, rule: Callable[[Call], Held]) -> dict[str, Callable[[Call], Held]]:
    return {f"aten.{name if '.' in name else name + '.default'}": rule for name in names.split()}


LAYERS: dict[str, Callable[[Call], Held]] = {
    **_table("linear", _linear),
    **_table("matmul mm", _matmul),
    **_table("addmm", _addmm),
    **_table("conv1d conv2d conv1d.padding conv2d.padding convolution", _convolve),
    **_table("batch_norm", _batch_norm),
    **dict.fromkeys(ACTIVATIONS, _activate),
    **_table("avg_pool1d avg_pool2d", _average_pool),
    **_table("adaptive_avg_pool1d adaptive_avg_pool2d _adaptive_avg_pool2d", _adaptive_pool),
    **_table("mean.dim sum.dim_IntList", _reduce),
    **_table("max_pool1d max_pool2d", _max_pool),
    **dict.fromkeys(SHAPES, _move),
    **dict.fromkeys(JOINTS, _join),
    **_table("sym_size.int", _size),
    "operator.getitem": _item,
}
"""The rule of every operator that is known, by its name."""
