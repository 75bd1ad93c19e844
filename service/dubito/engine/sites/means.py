"""The mean of a mask: of a value that is made of draws and weights alone.

Its job: E[g(ω)] for what networks make of a draw before it meets the data,

    affine        g(E[ω]): scaled Bernoulli masks, dropped weights, noise
    per number    Σ_k w_k g(ω_k), by quadrature: relaxed masks
    with steps    a mean over 1024 strata; where g has two values, by the exact place of the step
    of several    sums, and products of different sites: the same of their means

and to refuse what is none of these.

Source: the nodes and weights are those of `moments/nodes.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from typing_extensions import TypeIs

from dubito.engine.moments.nodes import nodes_of
from dubito.errors import InputError
from dubito_nn import Program, Site
from dubito_nn.flow import Flow, base, names
from dubito_nn.program import Node, SiteSource, Value, step

_SHAPE = names(
    "reshape view view_as reshape_as expand expand_as broadcast_tensors permute transpose t"
    " unsqueeze squeeze flatten unflatten select slice narrow split split_with_sizes chunk unbind"
    " cat stack repeat repeat_interleave flip contiguous clone alias detach index_select"
    " operator.getitem movedim"
)
_SUMS = names("add sub rsub neg sum mean")
_PRODUCTS = names(
    "mul div linear matmul mm bmm mv einsum conv1d conv2d conv3d conv_transpose1d conv_transpose2d"
)
_STEPS = names("lt le gt ge eq ne floor ceil round trunc sign where logical_not bitwise_not")
_SMOOTH = names(
    "log log1p log2 exp expm1 sigmoid logit sqrt rsqrt square tanh reciprocal erf abs pow clamp"
    " clamp_min clamp_max softplus relu sin cos"
)
_CASTS = names("_to_copy to type_as")
_COMBINING = names("add sub rsub mul")
_STRATA = 1024
_MOST_NUMBERS = 2**32  # that may be made for the mean of one mask
_HALVINGS = 60  # of a stratum in which a step lies


@dataclass(frozen=True, eq=False)
class Means:
    """The masks of a lifted graph.

    Args:
        program: the lifted graph.
        sites: its random operations.
        flow: the graph, sorted into data and noise.
        known: in float64, the values that depend neither on an input nor on a draw, and sizes.
    """

    program: Program
    sites: Sequence[Site]
    flow: Flow
    known: Mapping[str, Value]

    def of(self, name: str) -> Tensor:
        """The mean of a value that is made of draws, in float64.

        Raises:
            InputError: it is not known.
        """
        drawn = self._sites(name)
        if len(drawn) == 1:
            return self._of_one(name, *drawn)
        node = self.flow.nodes[name]
        parts = [source for source in dict.fromkeys(node.references()) if self._sites(source)]
        kept_apart = sum(len(self._sites(part)) for part in parts) == len(drawn)
        may_combine = base(node) in _COMBINING and kept_apart
        if not may_combine and not (len(parts) == 1 and self._is_affine(node)):
            raise self.unknown(name)
        return self._run([node], {part: self.of(part) for part in parts}, None)[name]

    def _of_one(self, name: str, index: int) -> Tensor:
        """The mean of a function of one site's draw."""
        site, path = self.sites[index], self._path(name)

        def at(omega: float) -> Tensor:
            def draw(_: int, size: tuple[int, ...], __: torch.dtype) -> Tensor:
                return torch.full(size, omega, dtype=torch.float64)

            return self._run(path, {}, draw)[name]

        made_by = [node for node in path if node.op != "site"]
        if all(map(self._is_affine, made_by)):
            return at(mean_of(site))
        if not all(_is_per_number(node) for node in made_by):
            raise self.unknown(name)
        if site.distribution == "bernoulli":
            keep_prob = site.bernoulli_mean
            return (1 - keep_prob) * at(0.0) + keep_prob * at(1.0)
        if at(0.5).numel() * len(path) * _STRATA > _MOST_NUMBERS:
            raise self.unknown(name)
        if any(base(node) in _STEPS for node in made_by):
            return _with_steps(at, site)
        total, nodes = torch.zeros(()), nodes_of(site)
        for omega, weight in zip(*(part.tolist() for part in nodes), strict=True):
            total = total + weight * at(omega)
        return total

    def _sites(self, name: str) -> frozenset[int]:
        return frozenset(draw.site for draw in self.flow.noise.get(name, ()))

    def _path(self, name: str) -> list[Node]:
        """The nodes between a site and the value, in order."""
        wanted, waiting = {name}, [name]
        while waiting:
            for source in self.flow.nodes[waiting.pop()].references():
                if source in self.flow.noise and source not in wanted:
                    wanted.add(source)
                    waiting.append(source)
        return [node for node in self.program.nodes if node.name in wanted]

    def _is_affine(self, node: Node) -> bool:
        """Whether the value is affine in the one operand that is made of draws."""
        kind, reads = base(node), [n for n in node.references() if n in self.flow.noise]
        if kind in _CASTS:
            dtype = node.kwargs.get("dtype", torch.float32)
            return isinstance(dtype, torch.dtype) and dtype.is_floating_point
        if kind in _PRODUCTS:
            is_divisor = kind == "div" and reads[0] != next(node.references())
            return len(reads) == 1 and not is_divisor and "mode" not in node.op
        return kind in _SHAPE | _SUMS

    def _run(
        self, nodes: Sequence[Node], given: Mapping[str, Value], draw: SiteSource | None
    ) -> dict[str, Tensor]:
        """The nodes' values, in float64 whatever a cast says."""
        values = {**self.known, **given}
        for node in nodes:
            value = step(node, values, {}, {}, draw, "cpu")
            values[node.name] = value.double() if _is_float(value) else value
        return {node.name: values[node.name] for node in nodes}  # type: ignore[misc]

    def unknown(self, name: str) -> InputError:
        """Return the refusal of a mask whose mean is not known."""
        numbers = sorted(self._sites(name))
        where = ", ".join(f"{number} (`{self.sites[number].module_path}`)" for number in numbers)
        return InputError(
            f"`sites` expects the others to have masks of a known mean, got site {where}, of which"
            f" `{self.flow.nodes[name].op}` makes none: name it among those that are sampled"
        )


def _is_per_number(node: Node) -> bool:
    return base(node) in _SHAPE | _STEPS | _SMOOTH | _CASTS | {
        *("add", "sub", "rsub", "neg", "mul", "div")
    }


def _is_float(value: Value) -> TypeIs[Tensor]:
    return isinstance(value, Tensor) and value.is_floating_point()


def mean_of(site: Site) -> float:
    """The mean of a site's draw ω."""
    if site.distribution == "bernoulli":
        return site.bernoulli_mean
    return 0.5 if site.distribution == "uniform" else 0.0


def _with_steps(at: Callable[[float], Tensor], site: Site) -> Tensor:
    """The mean over strata of a function with steps; exact where one step parts two values."""

    def of(uniform: float) -> Tensor:
        return at(_quantile(uniform, site))

    middles = [(stratum + 0.5) / _STRATA for stratum in range(_STRATA)]
    first = last = total = of(middles[0])
    steps = list[tuple[float, float]]()
    for low, high in pairwise(middles):
        value = of(high)
        if not torch.equal(value, last):
            steps.append((low, high))
        total, last = total + value, value
    if len(steps) != 1:
        return total / _STRATA
    ((low, high),) = steps
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if torch.equal(of(middle), first) else (low, middle)
    return low * first + (1 - low) * last


def _quantile(uniform: float, site: Site) -> float:
    if site.distribution == "uniform":
        return uniform
    return float(torch.special.ndtri(torch.tensor(uniform, dtype=torch.float64)))
