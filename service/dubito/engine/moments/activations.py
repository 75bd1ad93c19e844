"""Mean, variance and mean slope of a pointwise function of a Gaussian variable.

With x ~ N(m, v), σ = √v, a = m / σ, φ and Φ of the standard normal at a:

    max(x, 0)     mean = m Φ + σ φ,    E[·²] = (m² + v) Φ + m σ φ
    leaky         the same with the left side times s
    elu, selu     the right side as above, the left from E[e^x; x<0] = e^(m+v/2) Φ(-a-σ)
    exp           e^(m+v/2),  e^(2m+v) (e^v - 1)
    other smooth  Gauss and Hermite, 20 nodes

Source: Frey and Hinton 1999, appendix; Wang and Manning 2013, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.special import log_ndtr, ndtr

from dubito.engine.moments.nodes import gauss_hermite
from dubito.engine.moments.values import Spread
from dubito_nn.operators import resolve

_SELU_SCALE, _SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
_NUM_NODES = 20
FAR = 8.0  # standard deviations from the kink, where max(x, 0) is x or 0 to float32
TINY = 1e-30

Two = tuple[Tensor, Tensor]
Three = tuple[Tensor, Tensor, Tensor]
Arguments = tuple[object, ...]
Rule = Callable[[Tensor, Tensor, Arguments], Three]

SMOOTH = frozenset(
    f"aten.{name}.default"
    for name in ("gelu", "tanh", "sigmoid", "silu", "softplus", "mish", "log_sigmoid", "sin", "cos")
)
"""Functions by quadrature."""
HOMOGENEOUS = frozenset(["aten.relu.default", "aten.leaky_relu.default"])
"""φ(s x) = s φ(x) for s ≥ 0."""


def activated(op: str, x: Spread, args: Arguments, kwargs: Mapping[str, object]) -> Spread:
    """The value behind a pointwise function.

    Args:
        op: one of `ACTIVATIONS`.
        x: what goes in.
        args: further arguments of the operator.
        kwargs: further named arguments of the operator.
    """
    return x.bent_with(*moments(op, x, args, kwargs))


def moments(op: str, x: Spread, args: Arguments, kwargs: Mapping[str, object]) -> Three:
    """Mean and variance of φ(x), and the mean slope E φ'(x) = Cov(x, φ(x)) / Var x (Stein 1981)."""
    if op in SMOOTH:
        return _by_quadrature(op, x, args, kwargs)
    return _CLOSED[op](x.mean, x.total(), (*args, *kwargs.values()))


def rectified(mean: Tensor, variance: Tensor) -> Three:
    """Return the moments of max(x, 0), and Φ."""
    sigma = variance.sqrt()
    a = (mean / sigma.clamp_min(TINY)).clamp_(-FAR, FAR)
    left, first = standard_moments(a)
    # (a² + 1) Φ + a φ - (a Φ + φ)², in units of v
    share = a.sub_(first).mul_(first).add_(left)
    new_mean = torch.maximum(mean.clamp_min(0), first.mul_(sigma))
    return new_mean, share.mul_(variance).clamp_min_(0), left


def standard_moments(a: Tensor) -> Two:
    """Φ(a) and E max(a + z, 0) = a Φ(a) + φ(a), for a within `FAR`."""
    left = (a * math.sqrt(0.5)).erf_().mul_(0.5).add_(0.5)
    density = (a * a).mul_(-0.5).exp_().mul_(1 / math.sqrt(2 * math.pi))
    return left, density.addcmul_(a, left)


def _rectified(mean: Tensor, variance: Tensor, _: Arguments) -> Three:
    return rectified(mean, variance)


def _leaky(mean: Tensor, variance: Tensor, args: Arguments) -> Three:
    """Moments of s x + (1-s) max(x, 0), with Cov(x, max(x, 0)) = v Φ."""
    slope = float(args[0]) if args else 0.01  # type: ignore[arg-type]
    right_mean, right_var, left = rectified(mean, variance)
    rest = 1 - slope
    covariance = 2 * slope * rest * variance * left
    return (
        slope * mean + rest * right_mean,
        (slope**2 * variance + rest**2 * right_var + covariance).clamp_min(0),
        slope + rest * left,
    )


def _elu(mean: Tensor, variance: Tensor, args: Arguments) -> Three:
    alpha, scale, input_scale = (float(part) for part in (*args, 1.0, 1.0, 1.0)[:3])  # type: ignore[arg-type]
    if len(args) == 1:
        scale, input_scale = 1.0, 1.0
    return _two_sided(mean, variance, alpha * scale, scale, input_scale)


def _selu(mean: Tensor, variance: Tensor, _: Arguments) -> Three:
    return _two_sided(mean, variance, _SELU_SCALE * _SELU_ALPHA, _SELU_SCALE, 1.0)


def _two_sided(mean: Tensor, variance: Tensor, left: float, right: float, rate: float) -> Three:
    """Moments of right · x above 0 and left · (e^(rate x) - 1) below; in float64, as it cancels."""
    m, v = mean.double(), variance.double().clamp_min(TINY)
    sigma = v.sqrt()
    a = m / sigma
    above_mean = m * ndtr(a) + sigma * _density(a)
    above_square = (m.square() + v) * ndtr(a) + m * sigma * _density(a)
    once, twice = (
        (k * rate * m + (k * rate) ** 2 * v / 2 + log_ndtr(-a - k * rate * sigma)).exp()
        for k in (1, 2)
    )
    below = ndtr(-a)
    new_mean = right * above_mean + left * (once - below)
    square = right**2 * above_square + left**2 * (twice - 2 * once + below)
    new_variance = (square - new_mean.square()).clamp_min(0)
    slope = right * ndtr(a) + left * rate * once
    return new_mean.to(mean.dtype), new_variance.to(mean.dtype), slope.to(mean.dtype)


def _exponential(mean: Tensor, variance: Tensor, _: Arguments) -> Three:
    grown = (mean + variance / 2).exp()
    return grown, grown.square() * variance.expm1(), grown


def _by_quadrature(op: str, x: Spread, args: Arguments, kwargs: Mapping[str, object]) -> Three:
    function, sigma = resolve(op), x.total().sqrt()
    at_K, weight_K = gauss_hermite(_NUM_NODES)
    mean, square, slope = (torch.zeros_like(x.mean) for _ in range(3))
    centre = function(x.mean, *args, **kwargs)
    assert isinstance(centre, Tensor)
    for at, weight in zip(at_K.tolist(), weight_K.tolist(), strict=True):
        value = function(torch.add(x.mean, sigma, alpha=at), *args, **kwargs)
        assert isinstance(value, Tensor)
        off = value - centre
        mean.add_(off, alpha=weight)
        square.addcmul_(off, off, value=weight)
        slope.add_(off, alpha=weight * at)  # E z φ = σ E φ'
    slope.div_(sigma.clamp_min(TINY))
    return centre + mean, (square - mean.square()).clamp_min(0), slope


def _density(a: Tensor) -> Tensor:
    return (a.square() * -0.5).exp() * (1 / math.sqrt(2 * math.pi))


_CLOSED: dict[str, Rule] = {
    "aten.relu.default": _rectified,
    "aten.leaky_relu.default": _leaky,
    "aten.elu.default": _elu,
    "aten.selu.default": _selu,
    "aten.exp.default": _exponential,
}
ACTIVATIONS = SMOOTH | frozenset(_CLOSED)
"""All pointwise functions of one variable that are known."""
