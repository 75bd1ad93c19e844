"""What a graph's output can be by construction: not below 0 behind a relu, in [0, 1] of a sigmoid.

Its job: follow the last operators of a graph up to what may be any number (a linear map, an input,
a learned weight), and from there down again compute the least and the largest value of every
element by interval arithmetic. Operators that only move elements (views, slices, cats) move their
bounds with them. What is not known here has no bounds: nothing is claimed that does not hold.

Source: Moore 1966, "Interval Analysis".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import inf

import torch
from torch import Tensor

from dubito_nn.flow import SHAPE_ONLY, base, names
from dubito_nn.lifting.draws import random_draws
from dubito_nn.manifest import Site
from dubito_nn.operators import resolve
from dubito_nn.program import Argument, Node, Program, Ref, Value, bind, references

_SAME = names("clone contiguous detach alias lift_fresh_copy _to_copy to type_as")
_MOVE = names(
    "view reshape view_as reshape_as expand expand_as permute transpose t unsqueeze squeeze flatten"
    " unflatten select slice narrow split split_with_sizes chunk tensor_split unbind cat stack"
    " repeat repeat_interleave roll flip movedim diagonal unfold index index_select gather"
    " take_along_dim pixel_shuffle channel_shuffle"
)
_WRITE = names("slice_scatter select_scatter copy")  # elements of the second into the first
_CHOOSE = {"masked_fill": slice(0, 1), "where": slice(1, 3)}
_RISE = names(
    "sigmoid hardsigmoid relu relu6 softplus exp exp2 expm1 tanh atan erf elu celu selu leaky_relu"
    " hardtanh clamp clamp_min clamp_max log_sigmoid"
)
_FROM = {"log": 0.0, "log2": 0.0, "log10": 0.0, "log1p": -1.0, "sqrt": 0.0}
_MERGE = names(
    "sum mean amax amin logsumexp avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d"
    " adaptive_avg_pool2d adaptive_avg_pool3d max_pool1d max_pool2d max_pool3d upsample_nearest1d"
    " upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d"
    " upsample_trilinear3d _upsample_nearest_exact1d _upsample_nearest_exact2d"
    " _upsample_nearest_exact3d"
)
_BETWEEN = {
    **dict.fromkeys(names("softmax _softmax _safe_softmax"), (0.0, 1.0)),
    **dict.fromkeys(names("log_softmax _log_softmax"), (-inf, 0.0)),
    **dict.fromkeys(names("abs square linalg_vector_norm norm var std"), (0.0, inf)),
    "cosine_similarity": (-1.0, 1.0),
}
_ONE = names("neg reciprocal")
_TWO = names("add sub rsub mul div maximum minimum logaddexp")
_PRODUCTS = names("matmul mm bmm")


@dataclass(frozen=True)
class ValueRange:
    """Least and largest value of every element, and the place of the node that bounds it, or -1."""

    low: Tensor
    high: Tensor
    by: Tensor


@dataclass
class Ending:
    """The last operators of a program.

    Args:
        program: the lifted graph.
        sites: its random operations.
        learned: names of the weights that are learned, which may be any number.
    """

    program: Program
    sites: Sequence[Site]
    learned: frozenset[str]
    _places: dict[str, int] = field(default_factory=dict)
    _constant: set[str] = field(default_factory=set)
    _values: dict[str, Value] = field(default_factory=dict)
    _bounds: dict[str, ValueRange | list[ValueRange]] = field(default_factory=dict)

    def bounds(self, inputs: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> ValueRange:
        """Of the output on an example; shapes as the output's."""
        for position, node in enumerate(self.program.nodes):
            self._places[node.name] = position
            if node.op == "weight":
                is_constant = node.args[0] not in self.learned
            else:
                is_constant = node.op not in ("input", "site") and (
                    base(node) in SHAPE_ONLY or self._constant.issuperset(node.references())
                )
            self._constant |= {node.name} if is_constant else set()
        tail = self._tail()
        operands = {name for name in tail for name in self._node(name).references()}

        def watch(node: Node, value: Value) -> None:
            if node.name in operands:
                self._values[node.name] = value
            if node.name in tail:
                try:
                    self._bounds[node.name] = self._of(node, value)
                except (RuntimeError, TypeError, ValueError):  # an operator that takes no float64
                    self._bounds[node.name] = _none(value)

        with torch.no_grad():
            self.program.run(inputs, weights, random_draws(self.sites), watch=watch)
        served = self._bounds[self.program.outputs["output"]]
        assert isinstance(served, ValueRange)
        return served

    def _node(self, name: str) -> Node:
        return self.program.nodes[self._places[name]]

    def _tail(self) -> set[str]:
        """Names of the nodes that are followed, with those where it ends."""
        tail, waiting = set[str](), [self.program.outputs["output"]]
        while waiting:
            name = waiting.pop()
            if name not in tail:
                tail.add(name)
                if name not in self._constant:
                    waiting += references(_sources(self._node(name)))
        return tail

    def _of(self, node: Node, value: Value) -> ValueRange | list[ValueRange]:
        """Bounds of one value of the tail, by its operator."""
        kind, position = base(node), self._places[node.name]
        if node.name in self._constant and not isinstance(value, (tuple, list)):
            exact = torch.as_tensor(value, dtype=torch.float64)
            return ValueRange(exact, exact, torch.full(exact.shape, -1))
        if node.op == "site" and self.sites[int(str(node.args[0]))].distribution != "normal":
            return _equal(0.0, 1.0, -1, value)
        if kind == "operator.getitem":
            parts = self._bounds[next(node.references())]
            return parts[int(str(node.args[1]))] if isinstance(parts, list) else _none(value)
        if kind in _SAME:
            return self._known(node.args[0])
        if kind in _MOVE or kind in _WRITE:
            return self._moved(node)
        if kind in _BETWEEN:
            return _equal(*_BETWEEN[kind], position, value)
        if kind in _CHOOSE:
            return self._chosen(node, value)
        if kind in _RISE or kind in _FROM or kind in _MERGE:
            return self._risen(node, position)
        if kind in _ONE or kind in _TWO:
            return self._at_corners(node, position)
        return self._without_sign(node, value, position)

    def _known(self, argument: Argument) -> ValueRange:
        assert isinstance(argument, Ref)
        bounds = self._bounds[argument.name]
        assert isinstance(bounds, ValueRange)
        return bounds

    def _run(self, node: Node, *firsts: object) -> object:
        """The operator of a node with others in the place of its first arguments."""
        rest = (bind(argument, self._values, "cpu") for argument in node.args[len(firsts) :])
        keywords = {key: bind(value, self._values, "cpu") for key, value in node.kwargs.items()}
        return resolve(node.op)(*firsts, *rest, **keywords)

    def _moved(self, node: Node) -> ValueRange | list[ValueRange]:
        """Bounds of elements that an operator only moves: they move with them."""

        def taken(argument: Argument, end: str) -> object:
            if isinstance(argument, tuple):
                return [taken(part, end) for part in argument]
            return getattr(self._known(argument), end)

        firsts = node.args[: 2 if base(node) in _WRITE else 1]
        ends = [
            self._run(node, *(taken(first, end) for first in firsts))
            for end in ("low", "high", "by")
        ]
        if isinstance(ends[0], (list, tuple)):
            return [ValueRange(*part) for part in zip(*ends, strict=True)]
        return ValueRange(*ends)  # type: ignore[arg-type]

    def _chosen(self, node: Node, value: Value) -> ValueRange:
        """What a mask leaves: a constant in its holes does not count."""
        assert isinstance(value, Tensor)
        choices = [
            self._known(part)
            for part in node.args[_CHOOSE[base(node)]]
            if isinstance(part, Ref) and part.name not in self._constant
        ]
        if not choices:
            return _none(value)
        first, last = choices[0], choices[-1]
        ends = (torch.minimum(first.low, last.low), torch.maximum(first.high, last.high))
        return ValueRange(
            *(end.expand(value.shape) for end in (*ends, torch.maximum(first.by, last.by)))
        )

    def _risen(self, node: Node, position: int) -> ValueRange:
        """Of an operator that rises with every element that it reads."""
        kind, source = base(node), self._known(node.args[0])
        least = _FROM.get(kind, -inf)
        low, high = (
            torch.as_tensor(self._run(node, end.clamp_min(least)))
            for end in (source.low, source.high)
        )
        by = int(source.by.max()) if kind in _MERGE and source.by.numel() else position
        return ValueRange(
            low.nan_to_num(-inf, inf, -inf),
            high.nan_to_num(inf, inf, -inf),
            torch.full(low.shape, by),
        )

    def _at_corners(self, node: Node, position: int) -> ValueRange:
        """Of arithmetic, whose extremes lie where every operand is at one of its own."""
        operands = node.args[: 1 if base(node) in _ONE else 2]
        parts = [self._known(part) for part in operands if isinstance(part, Ref)]
        ends = [
            (self._known(part).low, self._known(part).high) if isinstance(part, Ref) else (part,)
            for part in operands
        ]
        corners = [torch.as_tensor(self._run(node, *corner)) for corner in product(*ends)]
        every = torch.stack(corners).nan_to_num(0.0, inf, -inf)
        low, high = every.amin(0), every.amax(0)
        by = torch.maximum(parts[0].by, parts[-1].by)
        if base(node) == "mul" and operands[0] == operands[1]:
            low, by = low.clamp_min(0.0), torch.full(low.shape, position)
        if base(node) in ("div", "reciprocal") and isinstance(operands[-1], Ref):
            crosses = (parts[-1].low < 0) & (parts[-1].high >= 0)
            low, high = low.masked_fill(crosses, -inf), high.masked_fill(crosses, inf)
        return ValueRange(low, high, by.masked_fill(by < 0, position).expand(low.shape))

    def _without_sign(self, node: Node, value: Value, position: int) -> ValueRange:
        """Powers of an even exponent, and powers and products of what is never negative."""
        operands = [self._known(part) for part in _sources(node) if isinstance(part, Ref)]
        is_even = base(node) == "pow" and float(str(node.args[1])) % 2 == 0
        if is_even or (operands and all(bool((operand.low >= 0).all()) for operand in operands)):
            return _equal(0.0, inf, position, value)
        return _none(value)


def _sources(node: Node) -> tuple[Argument, ...]:
    """The arguments that bounds follow from; none where they cannot be followed."""
    kind = base(node)
    if kind in _CHOOSE:
        return node.args[_CHOOSE[kind]]
    if kind in _TWO or kind in _WRITE or kind in _PRODUCTS:
        return node.args[:2]
    is_power = node.op == "aten.pow.Tensor_Scalar"
    follows_first = kind in _SAME | _MOVE | _RISE | _MERGE | _ONE or kind in _FROM
    return node.args[:1] if follows_first or is_power or kind == "operator.getitem" else ()


def _equal(low: float, high: float, by: int, value: Value) -> ValueRange:
    """The same for every element of a value."""
    shape = value.shape if isinstance(value, Tensor) else ()
    least, most = (torch.full(shape, end, dtype=torch.float64) for end in (low, high))
    return ValueRange(least, most, torch.full(shape, by))


def _none(value: Value) -> ValueRange:
    return _equal(-inf, inf, -1, value)
