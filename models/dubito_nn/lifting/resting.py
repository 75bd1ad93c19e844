"""Put the mean of a mask where evaluation mode still rolls dice.

Its job: the point graph has no draws, so every ω stands at its mean. The mean of a comparison with
ω is not the comparison with the mean, so it is written down instead, and goes on as a number:

    u < P, P > u, u ~ Uniform[a, b)    (P - a) / (b - a), held in [0, 1]
    floor(c + u), u ~ Uniform[0, 1)    c
    where(m, x, y), masked_fill        m x + (1 - m) y, m the mean of the mask
    not m                              1 - m

What is made of draws in another way may have another mean than it has at the means of its draws:
`with_means` tries it out, puts the mean in its place where it can, and else names the modules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from dubito_nn.flow import Flow, base
from dubito_nn.lifting.draws import random_draws
from dubito_nn.program import Argument, Node, Program, Ref, SiteSource, pruned

if TYPE_CHECKING:
    from dubito_nn.lifting.lift import Lifted, Lifter

aten = torch.ops.aten
_SMALLER = (aten.lt.Tensor, aten.lt.Scalar, aten.le.Tensor, aten.le.Scalar)
_GREATER = (aten.gt.Tensor, aten.gt.Scalar, aten.ge.Tensor, aten.ge.Scalar)
_NOT = (aten.logical_not.default, aten.bitwise_not.default)
_WHERE = (*(aten.where.self, aten.where.Scalar, aten.where.ScalarSelf, aten.where.ScalarOther),)
_FILLED = (aten.masked_fill.Scalar, aten.masked_fill.Tensor)
_SHAPED = (
    *(aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.clone.default),
    *(aten.unsqueeze.default, aten.squeeze.dim, aten.expand.default, aten.expand_as.default),
    *(aten.permute.default, aten.transpose.int, aten.alias.default, aten.detach.default),
)
_CASTS = (aten._to_copy.default, aten.to.dtype, aten.type_as.default)
_SCALING = (aten.mul.Tensor, aten.div.Tensor, aten.mul.Scalar, aten.div.Scalar)
_CLASSES = frozenset(("sum", "operator.getitem"))  # what makes classes of a draw
_BY_PLACE = frozenset(("gather", "index", "index_select", "embedding", "scatter", "scatter_add"))
_DRAWS = 256
_ROUNDING = 1e-3
_GRID = 1024
_SLACK = 6.0  # standard errors: one number of a hundred million passes it by chance


@dataclass
class MaskMeans:
    """The means of what a graph makes of uniform draws.

    Args:
        uniforms: least and greatest number, by node.
        masks: nodes whose value is the mean of a truth value.
    """

    uniforms: dict[fx.Node, tuple[float, float]] = field(default_factory=dict)
    masks: set[fx.Node] = field(default_factory=set)

    def take(self, lifter: Lifter, node: fx.Node) -> bool:
        """Write down the mean of a node, where it is made of draws in a way that is known."""
        made = self._compared(lifter, node) or self._rounded(lifter, node)
        made = made or self._of_masks(lifter, node)
        if made is not None:
            lifter.names[node] = made.name
        else:
            self._shifted(node)
        return made is not None

    def _shifted(self, node: fx.Node) -> None:
        """Follow a uniform number through sums with numbers, and what leaves it as it is."""
        source, *rest = (*node.args, None)[:2] if node.args else (None, None)
        if source not in self.uniforms and rest[0] in self.uniforms:
            source, rest = rest[0], [source]
        if source not in self.uniforms:
            return
        low, high = self.uniforms[source]  # type: ignore[index]
        number = rest[0] if isinstance(rest[0], (int, float)) else None
        if node.target in (aten.add.Tensor, aten.add.Scalar) and number is not None:
            self.uniforms[node] = (low + number, high + number)
        elif node.target in _SHAPED:
            self.uniforms[node] = (low, high)

    def _compared(self, lifter: Lifter, node: fx.Node) -> Ref | None:
        if node.target not in (*_SMALLER, *_GREATER) or not self._can_follow(lifter, node):
            return None
        draw, bound = node.args[:2]
        is_below = node.target in _SMALLER
        if draw not in self.uniforms:
            draw, bound, is_below = bound, draw, not is_below
        if draw not in self.uniforms or bound in self.uniforms:
            return None
        low, high = self.uniforms[draw]  # type: ignore[index]
        nothing = lifter.emit("aten.mul.Scalar", lifter.argument(draw), 0.0)
        kind = "Tensor" if isinstance(bound, fx.Node) else "Scalar"
        share = lifter.emit(f"aten.add.{kind}", nothing, lifter.argument(bound))
        if (low, high) != (0.0, 1.0):
            share = lifter.emit("aten.sub.Scalar", share, low)
            share = lifter.emit("aten.div.Scalar", share, high - low)
        share = lifter.emit("aten.clamp.default", share, 0.0, 1.0)
        self.masks.add(node)
        return share if is_below else _rest(lifter, share)

    def _rounded(self, lifter: Lifter, node: fx.Node) -> Ref | None:
        if node.target != aten.floor.default or node.args[0] not in self.uniforms:
            return None
        low, high = self.uniforms[node.args[0]]  # type: ignore[index]
        if not math.isclose(high - low, 1.0):
            return None
        nothing = lifter.emit("aten.mul.Scalar", lifter.argument(node.args[0]), 0.0)
        return lifter.emit("aten.add.Scalar", nothing, low)

    def _of_masks(self, lifter: Lifter, node: fx.Node) -> Ref | None:
        read = [source for source in node.all_input_nodes if source in self.masks]
        if not read:
            return None
        mask = Ref(lifter.names[read[0]])
        if node.target in _NOT:
            self.masks.add(node)
            return _rest(lifter, mask)
        if node.target in _WHERE:
            return _mixed(lifter, mask, *node.args[1:3])
        if node.target in _FILLED:
            return _mixed(lifter, mask, node.args[2], node.args[0])
        if node.target in _CASTS:
            dtype = node.meta["val"].dtype
            if dtype.is_floating_point:
                return lifter.emit("aten._to_copy.default", mask, dtype=dtype)
        if node.target in _SHAPED:
            self.masks.add(node)
        return None

    def _can_follow(self, lifter: Lifter, node: fx.Node) -> bool:
        """Whether all that reads a truth value also takes its mean."""
        return all(
            (user.op == "output" and node in lifter.asked)
            or user.target in (*_WHERE, *_SCALING)
            or (user.target in _CASTS and user.meta["val"].is_floating_point())
            or (user.target in _FILLED and _is_finite(user.args[2]))
            or (user.target in (*_NOT, *_SHAPED) and self._can_follow(lifter, user))
            for user in node.users
        )


def _is_finite(value: object) -> bool:
    return not isinstance(value, (int, float)) or math.isfinite(value)


def _rest(lifter: Lifter, mask: Ref) -> Ref:
    return lifter.emit("aten.rsub.Scalar", mask, 1.0)


def _mixed(lifter: Lifter, mask: Ref, chosen: object, other: object) -> Ref:
    """M x + (1 - m) y."""
    parts: list[Argument] = []
    for share, value in ((mask, chosen), (_rest(lifter, mask), other)):
        kind = "Tensor" if isinstance(value, fx.Node) else "Scalar"
        parts.append(lifter.emit(f"aten.mul.{kind}", share, lifter.argument(value)))
    return lifter.emit("aten.add.Tensor", *parts)


def with_means(
    sampled: Lifted, point: Lifted, inputs: Mapping[str, Tensor]
) -> tuple[Lifted, list[str]]:
    """The point graph with the means of its noise, and modules whose noise has another one still.

    Noise that follows, number by number, from one draw has the mean that an even grid of draws has.

    Args:
        sampled: the graph of evaluation mode with its draws.
        point: the same with their means.
        inputs: the example.
    """
    flow, inputs = Flow.of(sampled.program), {name: rows[:2] for name, rows in inputs.items()}
    same = {name: point.names[key] for key, name in sampled.names.items() if key in point.names}
    ends = {
        name: same[name]
        for node in sampled.program.nodes
        if node.name in flow.data or node.name == flow.output
        for name in (*node.references(), node.name)
        if name in flow.noise and name in same
    }
    noise = pruned(Program(sampled.program.nodes, {name: name for name in ends}))

    def drawn(draws: SiteSource, program: Program = noise) -> dict[str, Tensor]:
        with torch.no_grad():
            return program.run(inputs, sampled.weights, draws)

    seen = {name: _Seen() for name in ends}
    for _ in range(_DRAWS if ends else 0):
        for name, value in drawn(random_draws(sampled.sites)).items():
            seen[name].add(value.double())
    places = {
        name
        for node in sampled.program.nodes
        if base(node) in _BY_PLACE
        for name in node.references()
    }
    for name in _off(seen, point, ends, inputs):
        sites = {draw.site for draw in flow.noise[name]}
        one = pruned(Program(sampled.program.nodes, {name: name}))
        if name in places and not drawn(_even(0.5), one)[name].is_floating_point():
            continue  # there is nothing halfway between two places
        if len(sites) == 1:
            grid = _grid(sampled.sites[min(sites)].distribution)
            mean = sum(drawn(_even(number), one)[name].double() for number in grid) / len(grid)
            point = _with_mean(point, ends[name], torch.as_tensor(mean))
    off = {sampled.paths[name] for name in _off(seen, point, ends, inputs)}
    return point, sorted(off | _chosen_by_data(sampled, flow))


def _chosen_by_data(sampled: Lifted, flow: Flow) -> set[str]:
    """Modules that draw a class by chances that follow from the data: a class has no mean."""
    return {
        site.module_path
        for site in sampled.sites
        if site.operator == "aten.multinomial.default"
        and _CLASSES.isdisjoint(flow.made_by.get(site.index, ()))
    }


@dataclass
class _Seen:
    """Sums over the draws of some noise."""

    total: Tensor | float = 0.0
    squares: Tensor | float = 0.0

    def add(self, value: Tensor) -> None:
        self.total = self.total + value
        self.squares = self.squares + value**2

    def is_apart(self, expected: Tensor) -> bool:
        """Whether the mean over the draws is not that number, beyond chance and rounding."""
        mean, square = (torch.as_tensor(part) / _DRAWS for part in (self.total, self.squares))
        error = ((square - mean**2).clamp(min=0) / _DRAWS).sqrt()
        bound = _SLACK * error + _ROUNDING * square.sqrt() + _ROUNDING**2
        return bool(((mean - expected.double()).abs() > bound).any())


def _off(
    seen: Mapping[str, _Seen],
    point: Lifted,
    ends: Mapping[str, str],
    inputs: Mapping[str, Tensor],
) -> list[str]:
    """Names of the noise whose mean over the draws is not its value in the point graph."""
    resting = pruned(Program(point.program.nodes, dict(ends)))
    expected = resting.run(inputs, point.weights) if ends else {}
    return [name for name in ends if seen[name].is_apart(expected[name])]


def _grid(distribution: str) -> list[float]:
    uniforms = (torch.arange(_GRID, dtype=torch.float64) + 0.5) / _GRID
    numbers: Tensor = torch.special.ndtri(uniforms) if distribution == "normal" else uniforms
    return numbers.tolist()


def _even(number: float) -> SiteSource:
    return lambda index, size, dtype: torch.full(size, number, dtype=dtype)


def _with_mean(point: Lifted, name: str, mean: Tensor) -> Lifted:
    """The point graph with another value for some noise, which is the same for every row."""
    for axis in range(mean.ndim):
        first = mean.narrow(axis, 0, 1)
        mean = first if torch.allclose(mean, first.expand_as(mean)) else mean
    nodes: list[Node] = []
    key = f"constant.point.{name}_mean"
    for node in point.program.nodes:
        if node.name != name:
            nodes.append(node)
            continue
        nodes.append(replace(node, name=f"{name}_at_mean"))
        nodes.append(Node(f"{name}_zero", "aten.mul.Scalar", (Ref(nodes[-1].name), 0.0)))
        nodes.append(Node(f"{name}_mean", "weight", (key,)))
        nodes.append(Node(name, "aten.add.Tensor", (Ref(nodes[-2].name), Ref(nodes[-1].name))))
    program = Program(tuple(nodes), point.program.outputs)
    return replace(point, program=program, weights={**point.weights, key: mean.float()})
