"""What a node of the graph holds while moments are propagated.

Drawn     g(ω), a function of one site's numbers alone, at K quadrature nodes
Product   x · f(ω) + g(ω) with x independent of ω: exact in ω as long as it lasts
Spread    mean and variance per element

A plain tensor is what does not depend on any draw.

Several elements may hang on the same number: `places` then says which one, per element. A mask of
that kind adds the same noise to all of them, with a size and a sign of each one's own: `deviation`.
Where the noise was mixed or bent since, the sizes are lost (None), and such elements can no longer
be added up.

    x·f + g:  mean = m E f + E g,  variance = v E f² + Var(m f + g)
    y_i = mean_i + free_i + ε deviation_i,  Var y_i = variance_i + deviation_i²

Dimensions: K nodes, B rows, J inputs and C outputs of a linear map.
Source: Wang and Manning 2013, Fast dropout training, section 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from dubito.engine.moments.common import Common
from dubito_nn.program import Value

Number: TypeAlias = "Tensor | float"


class RefusedError(Exception):
    """A step that moments cannot take; the message is the reason."""


@dataclass(frozen=True, eq=False)
class NodeLaw:
    """The pair f(ω), g(ω) of a product x · f + g.

    Args:
        factor: (K, ...) f at the nodes.
        offset: (K, ...) g at the nodes.
        weights: (K, ...) of the nodes.
    """

    factor: Tensor
    offset: Tensor
    weights: Tensor

    @cached_property
    def is_switch(self) -> bool:
        """Whether ω has two values, and the first leaves nothing of x."""
        return len(self.factor) == 2 and not self.factor[0].any()

    @cached_property
    def is_scale(self) -> bool:
        """Whether f ≥ 0 and g = 0: what max(·, 0) passes through."""
        return not self.has_offset and bool((self.factor >= 0).all())

    @cached_property
    def is_uniform(self) -> bool:
        """Whether f and g are the same for all elements."""
        return all(part[0].numel() == 1 for part in (self.factor, self.offset, self.weights))

    @cached_property
    def has_offset(self) -> bool:
        """Whether g is anything but 0."""
        return bool(self.offset.any())

    @cached_property
    def moments(self) -> tuple[Number, Number, Number, Number, Number]:
        """E f, E g, Var f, Var g and Cov(f, g); numbers where they are the same everywhere."""
        f_mean, f_off = _centred(self.factor, self.weights)
        g_mean, g_off = _centred(self.offset, self.weights)
        numbers = [f_mean, g_mean]
        for left, right in ((f_off, f_off), (g_off, g_off), (f_off, g_off)):
            numbers.append((self.weights * left * right).sum(0))
        if self.is_uniform:
            return tuple(part.item() for part in numbers)  # type: ignore[return-value]
        return tuple(part.float() for part in numbers)  # type: ignore[return-value]

    @cached_property
    def steps(self) -> tuple[Number, Number] | None:
        """Signed sizes of the noise that f and g bring; None where they are not one variable's."""
        _, _, f_var, g_var, _ = self.moments
        if not torch.as_tensor(g_var).any():
            return (f_var.sqrt() if isinstance(f_var, Tensor) else f_var**0.5), 0.0
        if len(self.factor) != 2:
            return None
        size = self.weights.prod(0).sqrt()
        both = [size * (part[1] - part[0]) for part in (self.factor, self.offset)]
        if self.is_uniform:
            return both[0].item(), both[1].item()
        return both[0].float(), both[1].float()

    def of_rank(self, ndim: int) -> NodeLaw:
        """Return the law for values of another rank; only where it is uniform."""
        if self.factor.ndim == ndim + 1:
            return self
        parts = (part.reshape(-1, *[1] * ndim) for part in (self.factor, self.offset, self.weights))
        return NodeLaw(*parts)


@dataclass(frozen=True, eq=False)
class Drawn:
    """A function of one site's numbers.

    Args:
        site: index of the site.
        nodes: (K, ...) its values at the nodes, broadcasting to the shape behind K.
        weights: (K, ...) weights of the nodes, broadcasting likewise.
        shape: of the value, with the rows.
        rows_axis: that holds the rows in `shape`, until it is reshaped.
        places: which number of the draw each element is; None: each has its own.
        is_raw: whether it is ω itself.
    """

    site: int
    nodes: Tensor
    weights: Tensor
    shape: tuple[int, ...]
    rows_axis: int | None
    places: Tensor | None = None
    is_raw: bool = False

    def numbered(self) -> Tensor:
        """Return `places`, written out."""
        if self.places is not None:
            return self.places
        size_of_one = [
            1 if axis == self.rows_axis else size for axis, size in enumerate(self.shape)
        ]
        count = int(torch.tensor(size_of_one).prod())
        numbers = torch.arange(count, dtype=torch.int32, device=self.nodes.device)
        return numbers.reshape(size_of_one).expand(self.shape)

    @cached_property
    def law(self) -> NodeLaw:
        """Return the law of a value times these draws."""
        nodes = self.nodes.double()
        return NodeLaw(nodes, torch.zeros_like(nodes), self.weights)

    def places_in(self, shape: tuple[int, ...]) -> Tensor | None:
        """The places where the value is broadcast to a shape."""
        if self.places is None and self.shape == shape:
            return None
        return self.numbered().expand(shape)


@dataclass(frozen=True, eq=False)
class Spread:
    """Mean and variance of every element.

    Args:
        mean: (B, ...).
        variance: of the noise that is each element's own.
        sites: the draws it depends on.
        deviation: signed size of the noise that elements of one place share; None: none, or lost.
        places: which number each element shares; None: nothing is shared.
        is_entangled: parts that depend on the same draws were joined.
        common: noise that the elements of a layer have in common, beside `variance`.
        joint: gives the covariance of the elements of each row, (B, C, C), where it is known.
    """

    mean: Tensor
    variance: Tensor
    sites: frozenset[int]
    deviation: Tensor | None = None
    places: Tensor | None = None
    is_entangled: bool = False
    common: Common | None = None
    joint: Callable[[], Tensor] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the value, with the rows."""
        return tuple(self.mean.shape)

    def total(self) -> Tensor:
        """Variance of every element, shared noise included."""
        total = self.variance if self.common is None else self.variance + self.common.variance
        return total if self.deviation is None else total + self.deviation.square()

    def folded(self) -> Spread:
        """Return the value with the common noise counted as each element's own."""
        if self.common is None:
            return self
        return replace(self, variance=self.variance + self.common.variance, common=None)

    def bent(self, mean: Tensor, variance: Tensor) -> Spread:
        """What a pointwise function makes of it: the sizes of shared noise are lost."""
        return Spread(mean, variance, self.sites, None, self.places, self.is_entangled)

    def bent_with(self, mean: Tensor, variance: Tensor, slope: Tensor) -> Spread:
        """Bend as `bent` does where E φ' is known: common noise stays, times the slope."""
        if self.common is None or self.places is not None:
            return self.bent(mean, variance)
        common = self.common.scaled(slope)
        remaining = (variance - common.variance).clamp_min_(0)
        return Spread(mean, remaining, self.sites, None, None, self.is_entangled, common)


@dataclass(frozen=True, eq=False)
class Product:
    """x · f(ω) + g(ω), with x independent of the site.

    Args:
        base: x.
        site: index of the site of ω.
        law: of f and g.
        places: which number each element is multiplied by; None: each has its own.
    """

    base: Tensor | Spread
    site: int
    law: NodeLaw
    places: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the value, with the rows."""
        return tuple(self.base.shape)

    @property
    def sites(self) -> frozenset[int]:
        """The draws that the value depends on."""
        before = self.base.sites if isinstance(self.base, Spread) else frozenset()
        return before | {self.site}

    def with_base(self, base: Tensor | Spread, places: Tensor | None) -> Product:
        """Return f and g on another x of any rank; only where they are uniform."""
        return Product(base, self.site, self.law.of_rank(len(base.shape)), places)

    def collapsed(self) -> Spread:
        """Its mean and variance; shared noise keeps its sizes where one number carries them.

        Var(m f + g) = m² Var f + 2 m Cov(f, g) + Var g

        Raises:
            RefusedError: where x shares noise in one way and ω in another.
        """
        base = self.base if isinstance(self.base, Spread) else None
        mean = self.base if isinstance(self.base, Tensor) else self.base.mean
        f_mean, g_mean, f_var, g_var, f_g = self.law.moments
        new_mean = mean if _is_exactly(f_mean, 1.0) else mean * f_mean
        deviation = None
        if self.places is not None and self.law.steps is not None:
            deviation = mean * self.law.steps[0] + self.law.steps[1]
            variance = torch.zeros_like(mean)
        else:
            variance = mean.square().mul_(f_var)
        if self.law.has_offset:
            new_mean = new_mean + g_mean
            if deviation is None:
                variance = (variance + mean * (2 * f_g) + g_var).clamp_min_(0)
        if base is None:
            return Spread(new_mean, variance, self.sites, deviation, self.places)
        places, common = self.places, None
        square = f_var + f_mean * f_mean
        if base.common is not None and places is None and base.places is None:
            common = base.common.scaled(f_mean)
            variance = variance + base.variance * square + base.common.variance * f_var
        else:
            variance = variance + base.total() * square
        if base.places is not None and places is None:
            places = base.places
            if base.deviation is not None:  # what the elements shared, they share in the mean of f
                deviation = base.deviation * f_mean
                variance = (variance - deviation.square()).clamp_min(0)
        elif base.places is not None and places is not None:
            if not torch.equal(places, base.places):
                raise RefusedError("elements share noise of two sites in different ways")
            if deviation is not None:
                variance, deviation = variance + deviation.square(), None
        return Spread(new_mean, variance, self.sites, deviation, places, base.is_entangled, common)


Random: TypeAlias = Drawn | Product | Spread
Held: TypeAlias = "Random | Value | tuple[Random, ...]"


def spread(value: Random) -> Spread:
    """Any random value as mean and variance per element."""
    return with_common(value).folded()


def with_common(value: Random) -> Spread:
    """Any random value as mean and variance, with the noise that its elements have in common."""
    if isinstance(value, Spread):
        return value
    if isinstance(value, Product):
        return value.collapsed()
    return standing(value).collapsed()


def standing(drawn: Drawn) -> Product:
    """A draw as 0 · f + g, for operators that know products alone."""
    zero = torch.zeros(drawn.shape, dtype=torch.float32, device=drawn.nodes.device)
    law = NodeLaw(torch.zeros_like(drawn.law.factor), drawn.law.factor, drawn.weights)
    return Product(zero, drawn.site, law, drawn.places_in(drawn.shape))


def sites_of(value: Random) -> frozenset[int]:
    """Return the draws that a value depends on."""
    return frozenset({value.site}) if isinstance(value, Drawn) else value.sites


def without_joint(value: Spread) -> Spread:
    """Return the value with nothing said of its covariance."""
    return replace(value, joint=None)


def distinct(places: Tensor) -> int:
    """Return how many different numbers there are."""
    ordered = places.flatten().sort().values
    return 1 + int((ordered[1:] != ordered[:-1]).sum())


def _is_exactly(number: Number, wanted: float) -> bool:
    return not isinstance(number, Tensor) and number == wanted


def _centred(at_K: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    mean = (weights * at_K).sum(0)
    return mean, at_K - mean
