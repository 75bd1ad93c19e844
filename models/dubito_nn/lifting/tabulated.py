"""Distributions whose inverse has no closed form, as tables of their quantiles.

Its job: for parameters that are known at export, the numbers by which a draw becomes a result.

gamma(a)      exp y(ω), ω ~ Normal(0, 1), y(z) = log F_a⁻¹(Φ(z)) by a cubic between nodes 1/64
              apart, of their values and slopes y'(z) = φ(z) / (x f_a(x)), x = exp y
counts        #{k: F(k) <= ω}, ω ~ Uniform[0, 1), F the distribution function of 0, 1, 2, ...

A normal draw is taken for gamma since y is smooth in it, tails and all: the cubic is off by less
than 1e-8. Several parameters lie one behind the other in one table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from dubito_nn.program import Ref

if TYPE_CHECKING:
    from dubito_nn.lifting.lift import Lifter

aten = torch.ops.aten
END, PER_UNIT = 8.5, 64  # beyond lies less than 1e-16
INTERVALS = int(2 * END * PER_UNIT)
MOST_TABLES = 256  # 35 kB each
MOST_COUNT = 10_000  # of a Poisson's mean, or a binomial's trials
_HALVINGS = 80
_SMALL = 1e-8
_TAIL = 40.0  # -log of what is left out


class TableError(ValueError):
    """Parameters for which no table is made, as the rest of a sentence about an operator."""


@dataclass(frozen=True)
class QuantileTable:
    """What turns draws into results.

    Args:
        numbers: coefficients of (intervals, 4), or bounds between counts.
        starts: where the part of each parameter begins, in the shape of the parameters.
        part: number of the parameter among the different ones, in the same shape.
    """

    numbers: Tensor
    starts: Tensor
    part: Tensor


def gamma_table(concentration: Tensor) -> QuantileTable:
    """The table of log-quantiles of Gamma(a, 1).

    Args:
        concentration: the a > 0, of any shape.

    Raises:
        TableError: where they are not positive, or too many that differ.
    """
    different, part = torch.unique(concentration.double(), return_inverse=True)
    _check(different, len(different), lambda a: bool((a > 0).all() and a.isfinite().all()))
    numbers = torch.cat([_log_quantiles(float(a)) for a in different])
    return QuantileTable(numbers, part * INTERVALS, part)


def gamma_of(table: QuantileTable, normal: Tensor) -> Tensor:
    """The log of a gamma number, of normal draws in the shape of the parameters or above it."""
    at = (normal.clamp(-END, END) + END) * PER_UNIT
    below = at.floor().clamp(max=INTERVALS - 1)
    found = table.numbers[below.long() + table.starts]
    return _cubic(found, at - below)


def poisson_table(rate: Tensor) -> QuantileTable:
    """The bounds between counts of Poisson(rate).

    Raises:
        TableError: where the rates are negative or too large, or too many that differ.
    """
    different, part = torch.unique(rate.double(), return_inverse=True)
    _check(different, len(different), lambda r: bool(((r >= 0) & (r <= MOST_COUNT)).all()))

    def law(rate: Tensor) -> Tensor:
        most = int(rate + math.sqrt(2 * _TAIL * float(rate)) + _TAIL)  # Bennett's bound, and more
        k = torch.arange(most + 1, dtype=torch.float64)
        return torch.xlogy(k, rate) - rate - torch.lgamma(k + 1)

    return _bounds([law(one) for one in different], part)


def binomial_table(trials: Tensor, probability: Tensor) -> QuantileTable:
    """The bounds between counts of Binomial(trials, probability).

    Raises:
        TableError: where they are no trials or probabilities, too large, or too many that differ.
    """
    shape = (trials + probability).shape
    pairs = torch.stack([part.double().expand(shape) for part in (trials, probability)], dim=-1)
    different, part = torch.unique(pairs.reshape(-1, 2), dim=0, return_inverse=True)
    number, p = different.T
    is_law = (number >= 0) & (number <= MOST_COUNT) & (p >= 0) & (p <= 1)
    _check(different, len(different), lambda _: bool(is_law.all()))

    def law(number: Tensor, p: Tensor) -> Tensor:
        k = torch.arange(int(number) + 1, dtype=torch.float64)
        ways = torch.lgamma(number + 1) - torch.lgamma(k + 1) - torch.lgamma(number - k + 1)
        chances: Tensor = torch.xlogy(k, p) + torch.special.xlog1py(number - k, -p)
        return ways + chances

    return _bounds([law(*one) for one in different], part.reshape(pairs.shape[:-1]))


def count_of(table: QuantileTable, uniform: Tensor) -> Tensor:
    """A count, of uniform draws in the shape of the parameters or above it."""
    return torch.bucketize(uniform + table.part, table.numbers, right=True) - table.starts


def gamma_rule(lifter: Lifter, node: fx.Node) -> None:
    """Gamma numbers of rate 1."""
    tiny = torch.finfo(node.meta["val"].dtype).tiny
    log = _log_gamma(lifter, node)
    least = lifter.emit("aten.clamp_min.default", lifter.emit("aten.exp.default", log), tiny)
    result = lifter.emit("aten._to_copy.default", least, dtype=node.meta["val"].dtype)
    lifter.names[node] = result.name


def dirichlet_rule(lifter: Lifter, node: fx.Node) -> None:
    """Shares of gamma numbers."""
    kind = torch.finfo(node.meta["val"].dtype)
    shares = lifter.emit("aten.softmax.int", _log_gamma(lifter, node), -1)
    inside = lifter.emit("aten.clamp.default", shares, kind.tiny, 1 - kind.eps)
    result = lifter.emit("aten._to_copy.default", inside, dtype=node.meta["val"].dtype)
    lifter.names[node] = result.name


def _log_gamma(lifter: Lifter, node: fx.Node) -> Ref:
    """The cubic of `gamma_of`, as a graph holds it."""
    table = _table(lifter, node, gamma_table)
    numbers, starts = (
        lifter.stored(f"{node.name}_{name}", value)
        for name, value in (("quantiles", table.numbers), ("starts", table.starts))
    )
    draw = lifter.site(node, "normal", 0.0, torch.float64)
    at = lifter.emit("aten.clamp.default", draw, -END, END)
    at = lifter.emit("aten.add.Scalar", at, END)
    at = lifter.emit("aten.mul.Scalar", at, float(PER_UNIT))
    below = lifter.emit("aten.floor.default", at)
    below = lifter.emit("aten.clamp_max.default", below, float(INTERVALS - 1))
    share = lifter.emit("aten.sub.Tensor", at, below)
    place = lifter.emit("aten._to_copy.default", below, dtype=torch.int64)
    place = lifter.emit("aten.add.Tensor", place, starts)
    found = lifter.emit("aten.embedding.default", numbers, place)
    parts = [lifter.emit("aten.select.int", found, -1, power) for power in range(4)]
    result = parts[3]
    for part in parts[2::-1]:
        scaled = lifter.emit("aten.mul.Tensor", result, share)
        result = lifter.emit("aten.add.Tensor", scaled, part)
    return result


def count_rule(lifter: Lifter, node: fx.Node) -> None:
    """The counts of `count_of`, as a graph holds them."""
    is_poisson = node.target is aten.poisson.default
    table = _table(lifter, node, poisson_table if is_poisson else binomial_table)
    numbers, starts, part = (
        lifter.stored(f"{node.name}_{name}", value)
        for name, value in (
            *(("bounds", table.numbers), ("starts", table.starts)),
            ("part", table.part.double()),
        )
    )
    draw = lifter.site(node, "uniform", 0.5, torch.float64)
    shifted = lifter.emit("aten.add.Tensor", draw, part)
    counted = lifter.emit("aten.bucketize.Tensor", shifted, numbers, right=True)
    counted = lifter.emit("aten.sub.Tensor", counted, starts)
    result = lifter.emit("aten._to_copy.default", counted, dtype=node.meta["val"].dtype)
    lifter.names[node] = result.name


def _table(lifter: Lifter, node: fx.Node, make: Callable[..., QuantileTable]) -> QuantileTable:
    """The table of a node's parameters.

    Raises:
        TableError: where they depend on an input or a draw, or there are too many.
    """
    known = [lifter.folding.alike_in_rows(part) for part in node.args if isinstance(part, fx.Node)]
    if any(part is None for part in known):
        raise TableError(
            "whose parameters depend on the input or on a draw, so that no table can stand for"
            " them: keep them in parameters, buffers or numbers, or draw with torch.rand,"
            " torch.randn, torch.bernoulli or F.dropout"
        )
    return make(*known)


def _check(values: Tensor, number: int, is_right: Callable[[Tensor], bool]) -> None:
    if number > MOST_TABLES:
        raise TableError(
            f"which expects at most {MOST_TABLES} parameters that differ, got {number}: share them"
        )
    if not is_right(values):
        raise TableError(
            f"which expects finite parameters above 0, of counts at most {MOST_COUNT}: bound them"
        )


def _bounds(laws: Sequence[Tensor], part: Tensor) -> QuantileTable:
    """F(k) + i for the k of the i-th parameter, which rise all along the table."""
    sums = [law.exp().cumsum(0)[:-1].clamp(max=1 - 2**-53) for law in laws]
    lengths = torch.tensor([len(one) for one in sums])
    starts = lengths.cumsum(0) - lengths
    numbers = torch.cat([one + place for place, one in enumerate(sums)])
    return QuantileTable(numbers, starts[part], part)


def _cubic(coefficients: Tensor, share: Tensor) -> Tensor:
    c0, c1, c2, c3 = coefficients.unbind(-1)
    return ((c3 * share + c2) * share + c1) * share + c0


@lru_cache(maxsize=MOST_TABLES)
def _log_quantiles(a: float) -> Tensor:
    """Coefficients of y between its nodes, by their values and slopes (Hermite's cubic)."""
    z = torch.arange(INTERVALS + 1, dtype=torch.float64) / PER_UNIT - END
    y = _solved(a, z)
    density = a * y - y.exp() - math.lgamma(a)  # of y, its log
    slope = (-0.5 * z**2 - 0.5 * math.log(2 * math.pi) - density).exp() / PER_UNIT
    step, left, right = y[1:] - y[:-1], slope[:-1], slope[1:]
    return torch.stack([y[:-1], left, 3 * step - 2 * left - right, left + right - 2 * step], dim=1)


def _solved(a: float, z: Tensor) -> Tensor:
    """The y with F_a(exp y) = Φ(z), by halving, each half of the distribution by its own tail."""
    low = (torch.special.log_ndtr(z) + math.lgamma(a + 1)) / a - _SMALL  # F_a(x) <= x^a / Γ(a + 1)
    high = torch.full_like(z, math.log(a + math.sqrt(2 * _TAIL * a) + _TAIL))
    low = torch.minimum(low, high - 1)
    concentration = torch.full_like(z, a)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        x = middle.exp()
        near_0 = a * middle - math.lgamma(a + 1) - x * a / (a + 1)
        below = torch.special.gammainc(concentration, x).log()
        below = torch.where(x < _SMALL, near_0, below)
        above = torch.special.gammaincc(concentration, x).log()
        is_low = torch.where(
            z <= 0, below < torch.special.log_ndtr(z), above > torch.special.log_ndtr(-z)
        )
        low, high = torch.where(is_low, middle, low), torch.where(is_low, high, middle)
    return (low + high) / 2
