"""The lifted graph with some sites at their means.

Its job: of every site that is not sampled, put the mean in the place of its mask, so that what
comes before the sites that are sampled depends on the rows alone and is computed once per row.

    at rest     a layer that evaluation mode leaves out is left out, where the two graphs then agree
    of one      x · m with E[m] = 1, and x + m with E[m] = 0, are x
    else        the mask is E[m] in its own shape

The other sites keep their numbers, by which their draws are keyed: they are drawn as with all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from dubito.engine.sites.means import Means, mean_of
from dubito.engine.sites.resting import Resting, resting
from dubito.errors import InputError
from dubito_nn import Bundle, Program
from dubito_nn.flow import OUTPUT, Flow
from dubito_nn.program import Argument, Node, OnDevice, Ref, Value, doubled, pruned

_SAME = 1e-6  # how near a mean is taken for 1, or for 0
_AGREE = 1e-4  # of the largest number, between a graph without draws and that of evaluation mode
_NEUTRAL = {"aten.mul.Tensor": 1.0, "aten.add.Tensor": 0.0}


@dataclass(frozen=True, eq=False)
class Standing:
    """A network of which some sites may stand at their means.

    Args:
        bundle: the lifted network.
        rows: two or more of every input, on the CPU, that it runs on.
    """

    bundle: Bundle
    rows: Mapping[str, Tensor]

    def with_sampled(self, sampled: Collection[int]) -> Bundle:
        """The network with all other sites at their means.

        Raises:
            InputError: a mask whose mean is not known.
        """
        return self._stood(frozenset(sampled), self._at_rest)

    @cached_property
    def _at_rest(self) -> Mapping[str, Resting]:
        """Layers that evaluation mode leaves out; none where that does not make its graph."""
        found = resting(self.bundle)
        return found if found and self._agrees(found) else {}

    def _agrees(self, found: Mapping[str, Resting]) -> bool:
        weights = self.bundle.weights
        try:
            mine = self._stood(frozenset(), found)
        except InputError:  # a mask elsewhere, whose mean is not known
            return False
        known = self.bundle.point.run(self.rows, weights)[OUTPUT]
        got = mine.sampling.run(self.rows, mine.weights)[OUTPUT]
        return torch.allclose(got, known, rtol=0, atol=_AGREE * (1 + float(known.abs().max())))

    def _stood(self, sampled: frozenset[int], at_rest: Mapping[str, Resting]) -> Bundle:
        rest = {name: one for name, one in at_rest.items() if not one.sites & sampled}
        program = _without(self.bundle.sampling, rest)
        flow = Flow.of(program)
        stands = {
            name
            for name, draws in flow.noise.items()
            if not {draw.site for draw in draws} & sampled
        }
        if not stands:
            return replace(self.bundle, sampling=program)
        return _Means(self.bundle, program, flow, frozenset(stands), self.rows).placed()


@dataclass(frozen=True, eq=False)
class _Means:
    """Masks of a graph, to be replaced by their means.

    Args:
        bundle: whose sites and weights they are made of.
        program: the graph.
        flow: the same, sorted into data and noise.
        stands: values made of draws of which none is sampled.
        rows: two or more of every input.
    """

    bundle: Bundle
    program: Program
    flow: Flow
    stands: frozenset[str]
    rows: Mapping[str, Tensor]

    def placed(self) -> Bundle:
        """The network with the means in place.

        Raises:
            InputError: a mask whose mean is not known.
        """
        nodes, weights = list[Node](), dict(self.bundle.weights)
        instead = dict[str, str]()
        for node in self.program.nodes:
            if node.name not in self.stands:
                nodes.append(_reading(node, instead))
                if (same := self._unchanged(node)) is not None:
                    instead[node.name] = instead.get(same, same)
                continue
            nodes.append(self._filled(node) if node.op == "site" else node)
            if node.name in self._means:
                nodes += self._mean_nodes(node, weights)
                instead[node.name] = nodes[-1].name
        outputs = {key: instead.get(name, name) for key, name in self.program.outputs.items()}
        program = pruned(Program(tuple(nodes), outputs))
        return replace(self.bundle, sampling=program, weights=weights)

    @cached_property
    def _means(self) -> dict[str, Tensor]:
        """Means of the masks that meet what is not made of them alone, each axis as long as needed.

        They must be the same for two and for three rows.
        """
        met = {
            source
            for node in self.program.nodes
            if node.name not in self.stands
            for source in node.references()
            if source in self.stands
        }
        made = dict[str, Tensor]()
        for name in met:
            two, three = (_reduced(means.of(name)) for means in self._at)
            is_same = two.shape == three.shape and torch.allclose(two, three)
            kind = self._look.types[name]
            is_number = kind.is_floating_point or kind.is_complex
            is_held = is_number or bool((two == two.round()).all())
            if not is_same or not is_held:
                raise self._at[0].unknown(name)
            made[name] = two
        return made

    @cached_property
    def _look(self) -> _Look:
        return _looked(self.bundle, self.program, self.flow, self.rows, 2)

    @cached_property
    def _at(self) -> tuple[Means, Means]:
        """The masks for two rows, and for three."""
        three = _looked(self.bundle, self.program, self.flow, self.rows, 3)
        of_two, of_three = (
            Means(self.program, self.bundle.sites, self.flow, look.known)
            for look in (self._look, three)
        )
        return of_two, of_three

    def _unchanged(self, node: Node) -> str | None:
        """The operand that the node hands on as it is, if it does."""
        names = [part.name for part in node.args if isinstance(part, Ref)]
        if node.op not in _NEUTRAL or node.kwargs or len(names) != 2:
            return None
        for value, mask in (names, names[::-1]):
            mean = self._means.get(mask)
            if mean is None or value in self.stands or mean.numel() != 1:
                continue
            is_neutral = abs(float(mean) - _NEUTRAL[node.op]) < _SAME
            if is_neutral and self._look.alike(node.name, value):
                return value
        return None

    def _filled(self, site: Node) -> Node:
        """The draw of a site at its own mean, from which the mask has its shape."""
        index, size, dtype = site.args
        assert isinstance(index, int)
        mean = mean_of(self.bundle.sites[index])
        kwargs: dict[str, Argument] = {"dtype": dtype, "device": OnDevice()}
        return Node(site.name, "aten.full.default", (size, mean), kwargs)

    def _mean_nodes(self, mask: Node, weights: dict[str, Tensor]) -> list[Node]:
        mean, name = self._means[mask.name], f"{mask.name}·mean"
        if mean.numel() == 1:
            return [Node(name, "aten.full_like.default", (Ref(mask.name), float(mean)))]
        key = f"{name}·weight"
        weights[key] = mean.to(self._look.types[mask.name])
        spread = (Ref(key), Ref(mask.name))
        return [Node(key, "weight", (key,)), Node(name, "aten.expand_as.default", spread)]


@dataclass(frozen=True)
class _Look:
    """A graph as it was seen to run on some rows.

    Args:
        known: values that depend neither on an input nor on a draw, in float64, and sizes.
        shapes: of the values that are tensors.
        types: of the same.
    """

    known: dict[str, Value]
    shapes: dict[str, torch.Size]
    types: dict[str, torch.dtype]

    def alike(self, first: str, second: str) -> bool:
        """Whether two values have one shape and type."""
        return (self.shapes[first], self.types[first]) == (self.shapes[second], self.types[second])


def _looked(
    bundle: Bundle, program: Program, flow: Flow, rows: Mapping[str, Tensor], count: int
) -> _Look:
    look = _Look({}, {}, {})

    def draws(index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.full(size, mean_of(bundle.sites[index]), dtype=dtype)

    def watch(node: Node, value: Value) -> None:
        if isinstance(value, Tensor):
            look.shapes[node.name], look.types[node.name] = value.shape, value.dtype
        if node.name not in flow.data and node.name not in flow.noise:
            look.known[node.name] = doubled({"": value})[""] if isinstance(value, Tensor) else value

    some = {name: x[[at % len(x) for at in range(count)]] for name, x in rows.items()}
    program.run(some, bundle.weights, draws, watch=watch)
    return look


def _reduced(mean: Tensor) -> Tensor:
    """The mean with one number along every axis on which all are the same."""
    for axis in range(mean.ndim):
        first = mean.narrow(axis, 0, 1)
        if torch.allclose(mean, first.expand_as(mean), rtol=1e-9, atol=1e-12):
            mean = first
    return mean.clone()


def _without(program: Program, left_out: Mapping[str, Resting]) -> Program:
    """The program with origins in the place of what was made of them."""
    instead = {name: one.origin for name, one in left_out.items()}
    for name in instead:
        while instead[name] in instead:
            instead[name] = instead[instead[name]]
    nodes = tuple(_reading(node, instead) for node in program.nodes)
    outputs = {key: instead.get(name, name) for key, name in program.outputs.items()}
    return pruned(Program(nodes, outputs))


def _reading(node: Node, instead: Mapping[str, str]) -> Node:
    """The node with other values in the place of some that it reads."""
    if not any(name in instead for name in node.references()):
        return node

    def other(argument: Argument) -> Argument:
        if isinstance(argument, tuple):
            return tuple(other(part) for part in argument)
        if isinstance(argument, Ref):
            return Ref(instead.get(argument.name, argument.name))
        return argument

    kwargs = {name: other(value) for name, value in node.kwargs.items()}
    return replace(node, args=tuple(other(part) for part in node.args), kwargs=kwargs)
