"""Sums and products of random values.

    x + c, x · c          exact
    x + y, x and y independent    Var = Var x + Var y
    x · y, x and y independent    Var = vx vy + mx² vy + my² vx, by way of E f² and E f for draws
    a value and draws of its own site again    functions of the same ω: exact as long as they are
                                               of the form x f(ω) + g(ω)

Two values that depend on the same draws are refused: their covariance is not known.

Source: Goodman 1960, On the exact variance of products, JASA 55.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from dubito.engine.moments.values import (
    Drawn,
    NodeLaw,
    Product,
    Random,
    RefusedError,
    Spread,
    sites_of,
    spread,
    with_common,
    without_joint,
)
from dubito_nn.operators import resolve

MAX_DRAWN = 4_000_000  # numbers that a function of the draws alone may take

ARITHMETIC = frozenset(
    f"aten.{name}.{kind}"
    for name in ("add", "sub", "mul", "div", "rsub")
    for kind in ("Tensor", "Scalar")
) | {"aten.neg.default"}
_OF_DRAWS = frozenset(
    f"aten.{name}"
    for name in (
        *("log.default", "log1p.default", "exp.default", "expm1.default", "sigmoid.default"),
        *("logit.default", "sqrt.default", "rsqrt.default", "square.default", "tanh.default"),
        *("reciprocal.default", "erf.default", "abs.default", "pow.Tensor_Scalar"),
        *("clamp.default", "clamp_min.default", "clamp_max.default", "softplus.default"),
        *("_to_copy.default", "to.dtype", "clone.default", "detach.default", "alias.default"),
        *("logical_not.default", "bitwise_not.default"),
    )
)
_THRESHOLDS = {
    f"aten.{name}.{kind}": name
    for name in ("lt", "le", "gt", "ge")
    for kind in ("Tensor", "Scalar")
}
ON_DRAWS = ARITHMETIC | _OF_DRAWS | frozenset(_THRESHOLDS)
"""Operators that a function of the draws alone may pass through."""

Arguments = list[object]


def of_draws(op: str, args: Arguments, kwargs: Mapping[str, object]) -> Drawn:
    """A pointwise operator on draws and constants.

    Raises:
        RefusedError: draws of two sites, or too many numbers.
    """
    drawn = [arg for arg in args if isinstance(arg, Drawn)]
    first = drawn[0]
    if len({draws.site for draws in drawn}) > 1:
        raise RefusedError("draws of two sites meet before they act on a value")
    if len(drawn) == 2 and not _same_places(*drawn):
        raise RefusedError("draws of one site meet at different places")
    if op in _THRESHOLDS and not (first.is_raw and len(drawn) == 1 and len(first.nodes) > 2):
        raise RefusedError("a threshold on something other than a uniform draw")
    ndim = max(_ndim(arg) for arg in args)
    shape = np.broadcast_shapes(*(_shape(arg) for arg in args))
    places = first.places if shape == first.shape else first.places_in(shape)
    if op in _THRESHOLDS:
        nodes, weights = _threshold(_THRESHOLDS[op], first, args)
        return Drawn(first.site, nodes, weights, shape, first.rows_axis, places)
    on_nodes = [_behind_nodes(arg.nodes, ndim) if isinstance(arg, Drawn) else arg for arg in args]
    result = resolve(op)(*on_nodes, **kwargs)
    assert isinstance(result, Tensor)
    if result.numel() > MAX_DRAWN:
        raise RefusedError(f"a function of draws takes {result.numel()} numbers, over {MAX_DRAWN}")
    weights = _behind_nodes(first.weights, ndim)
    return Drawn(first.site, result, weights, shape, first.rows_axis, places)


def _threshold(name: str, drawn: Drawn, args: Arguments) -> tuple[Tensor, Tensor]:
    """1[ω < p] of a uniform ω: Bernoulli(p), exactly."""
    is_left = isinstance(args[0], Drawn)
    bound = torch.as_tensor(args[1 if is_left else 0], device=drawn.nodes.device)
    below = (name in ("lt", "le")) == is_left
    share = bound.double().clamp(0, 1)
    true = share if below else 1 - share
    ndim = max(len(drawn.shape), bound.ndim)
    nodes = torch.tensor([False, True], device=bound.device).reshape(2, *[1] * ndim)
    weights = torch.stack([1 - true, true])
    return nodes, _behind_nodes(weights, ndim)


def scaled(x: Product | Spread, factor: Tensor | float) -> Product | Spread:
    """A value times what depends on no draw.

    Raises:
        RefusedError: the value would be repeated.
    """
    _check_kept(x, factor)
    if isinstance(x, Product):
        if isinstance(factor, Tensor) and factor.numel() > 1:
            if x.law.has_offset:
                return scaled(x.collapsed(), factor)
            base = scaled(x.base, factor) if isinstance(x.base, Spread) else x.base * factor
            assert not isinstance(base, Product)
            return replace(x, base=base)
        number = _number(factor)
        return replace(x, law=NodeLaw(x.law.factor * number, x.law.offset * number, x.law.weights))
    joint, before = None, x.joint
    if before is not None:
        each = torch.as_tensor(factor, device=x.mean.device).expand(x.shape)
        joint = lambda: before() * each.unsqueeze(-1) * each.unsqueeze(-2)  # noqa: E731
    return replace(
        x,
        mean=x.mean * factor,
        variance=x.variance * (factor * factor),
        deviation=None if x.deviation is None else x.deviation * factor,
        common=None if x.common is None else x.common.scaled(factor),
        joint=joint,
    )


def shifted(x: Product | Spread, by: Tensor | float) -> Product | Spread:
    """A value plus what depends on no draw.

    Raises:
        RefusedError: the value would be repeated.
    """
    _check_kept(x, by)
    if isinstance(x, Product):
        if not isinstance(by, Tensor) or by.numel() == 1:
            return replace(x, law=replace(x.law, offset=x.law.offset + _number(by)))
        x = x.collapsed()
    return replace(x, mean=x.mean + by)


def multiplied(x: Random, drawn: Drawn) -> Product:
    """A value times draws.

    Raises:
        RefusedError: the value depends on the same draws in another way.
    """
    if isinstance(x, Product) and x.site == drawn.site:
        if not _equal(x.places, drawn.places_in(x.shape)):
            raise RefusedError("draws of one site meet at different places")
        nodes = _behind_nodes(drawn.nodes, len(x.shape))
        law = NodeLaw(x.law.factor * nodes, x.law.offset * nodes, x.law.weights)
        return replace(x, law=law)
    base = with_common(x)
    if drawn.site in base.sites:
        raise RefusedError("the same draws are used twice on one path")
    return product(base, drawn)


def product(base: Tensor | Spread, drawn: Drawn) -> Product:
    """A value that does not depend on the draws, times them."""
    shape = np.broadcast_shapes(base.shape, drawn.shape)
    if isinstance(base, Tensor):
        base = base.expand(shape)
    elif base.shape != shape:
        raise RefusedError("draws of more numbers than the value that they act on")
    law = drawn.law
    if len(drawn.shape) != len(shape):
        nodes, weights = (_behind_nodes(part, len(shape)) for part in (law.factor, law.weights))
        law = NodeLaw(nodes, torch.zeros_like(nodes), weights)
    base = without_joint(base) if isinstance(base, Spread) and base.joint else base
    return Product(base, drawn.site, law, drawn.places_in(shape))


def added(x: Tensor | Spread | Product, drawn: Drawn) -> Random:
    """Return a value plus draws."""
    if isinstance(x, Product) and x.site == drawn.site:
        if not _equal(x.places, drawn.places_in(x.shape)):
            raise RefusedError("draws of one site meet at different places")
        nodes = _behind_nodes(drawn.nodes, len(x.shape)).double()
        return replace(x, law=replace(x.law, offset=x.law.offset + nodes))
    base = x if isinstance(x, Tensor) else spread(x)
    if isinstance(base, Spread) and drawn.site in base.sites:
        raise RefusedError("the same draws are used twice on one path")
    alone = product(base, drawn)
    law = NodeLaw(torch.ones_like(alone.law.factor), alone.law.factor, alone.law.weights)
    return replace(alone, law=law)


def summed(x: Random, y: Random) -> Spread:
    """Two values that depend on different draws.

    Raises:
        RefusedError: they share draws, or both share noise among their elements.
    """
    _check_apart(x, y)
    first, second = spread(x), spread(y)
    if first.shape != second.shape:
        raise RefusedError("a random value is repeated by a sum")
    if first.places is not None and second.places is not None:
        raise RefusedError("elements share noise of two sites in different ways")
    sharing = first if first.places is not None else second
    return Spread(
        first.mean + second.mean,
        first.variance + second.variance,
        first.sites | second.sites,
        sharing.deviation,
        sharing.places,
        first.is_entangled or second.is_entangled,
    )


def times(x: Random, y: Random) -> Spread:
    """The product of two values that depend on different draws.

    Raises:
        RefusedError: they share draws, or noise is shared among elements.
    """
    _check_apart(x, y)
    first, second = spread(x), spread(y)
    if first.places is not None or second.places is not None or first.shape != second.shape:
        raise RefusedError("a product of values whose elements share noise")
    variance = (
        first.variance * second.variance
        + first.mean.square() * second.variance
        + second.mean.square() * first.variance
    )
    entangled = first.is_entangled or second.is_entangled
    sites = first.sites | second.sites
    return Spread(first.mean * second.mean, variance, sites, is_entangled=entangled)


def calculated(
    op: str, args: Arguments, kwargs: Mapping[str, object], *, meets_rows: bool
) -> Random:
    """One of `ARITHMETIC` where at least one operand is random.

    Args:
        op: name of the operator.
        args: operands.
        kwargs: `alpha` of a sum.
        meets_rows: whether a plain operand depends on the rows.
    """
    if not meets_rows and not any(isinstance(arg, (Product, Spread)) for arg in args):
        return of_draws(op, args, kwargs)
    name = op.split(".")[1]
    if name == "neg":
        return scaled(_value(args[0]), -1.0)
    left, right, *rest = args
    if name in ("add", "sub", "rsub"):
        alpha = float(kwargs.get("alpha", rest[0] if rest else 1))  # type: ignore[arg-type]
        left, right = (right, left) if name == "rsub" else (left, right)
        return _sum(left, _scaled_operand(right, alpha if name == "add" else -alpha))
    if kwargs or rest:
        raise RefusedError("a division that rounds")
    if name == "div":
        if isinstance(right, (Drawn, Product, Spread)):
            if isinstance(right, Drawn):
                inverse = of_draws("aten.reciprocal.default", [right], {})
                return _times(left, inverse)
            raise RefusedError("a division by a random value")
        right = 1 / right  # type: ignore[operator]
    return _times(left, right)


def _sum(left: object, right: object) -> Random:
    if isinstance(left, Drawn) and not isinstance(right, Drawn):
        left, right = right, left
    if isinstance(right, Drawn):
        assert isinstance(left, (Tensor, Spread, Product, Drawn))
        if isinstance(left, Drawn):
            return of_draws("aten.add.Tensor", [left, right], {})
        return added(left, right)
    if not isinstance(left, (Product, Spread)):
        left, right = right, left
    assert isinstance(left, (Product, Spread))
    if isinstance(right, (Product, Spread)):
        return summed(left, right)
    return shifted(left, _plain(right))


def _times(left: object, right: object) -> Random:
    if isinstance(left, Drawn) and not isinstance(right, Drawn):
        left, right = right, left
    if isinstance(right, Drawn):
        if isinstance(left, (Product, Spread)):
            return multiplied(left, right)
        if isinstance(left, Drawn):
            return of_draws("aten.mul.Tensor", [left, right], {})
        assert isinstance(left, Tensor)
        return product(left, right)
    if not isinstance(left, (Product, Spread)):
        left, right = right, left
    assert isinstance(left, (Product, Spread))
    if isinstance(right, (Product, Spread)):
        return times(left, right)
    return scaled(left, _plain(right))


def _scaled_operand(value: object, factor: float) -> object:
    if factor == 1:
        return value
    if isinstance(value, Drawn):
        return of_draws("aten.mul.Scalar", [value, factor], {})
    if isinstance(value, (Product, Spread)):
        return scaled(value, factor)
    return _plain(value) * factor


def _check_apart(x: Random, y: Random) -> None:
    if sites_of(x) & sites_of(y):
        raise RefusedError("two values that depend on the same draws meet, as at a skip connection")


def _same_places(first: Drawn, second: Drawn) -> bool:
    return first.shape == second.shape and _equal(first.places, second.places)


def _equal(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None:
        return first is second
    return torch.equal(first, second)


def _check_kept(x: Product | Spread, operand: Tensor | float) -> None:
    """Repeated elements would share all their noise, of which nothing would be known."""
    if isinstance(operand, Tensor) and np.broadcast_shapes(x.shape, operand.shape) != x.shape:
        raise RefusedError("a random value is repeated by arithmetic")


def _number(operand: Tensor | float) -> Tensor | float:
    return operand.reshape(()) if isinstance(operand, Tensor) else operand


def _behind_nodes(at_K: Tensor, ndim: int) -> Tensor:
    """(K, ...) with as many axes behind K as a value of that rank has."""
    return at_K.reshape(len(at_K), *[1] * (ndim + 1 - at_K.ndim), *at_K.shape[1:])


def _ndim(value: object) -> int:
    if isinstance(value, Drawn):
        return len(value.shape)
    return value.ndim if isinstance(value, Tensor) else 0


def _shape(value: object) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, (Drawn, Tensor)) else ()


def _plain(value: object) -> Tensor | float:
    if isinstance(value, (Tensor, int, float)):
        return value
    raise RefusedError("an operand that is no number")


def _value(operand: object) -> Product | Spread:
    assert isinstance(operand, (Product, Spread))
    return operand
