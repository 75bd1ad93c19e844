"""Where two recordings of a network part and meet again.

Its job: hold a recording in which one decision was turned against the base one,

    base     prefix  c_k  own steps  suffix
    turned   prefix  c_k  own steps  suffix

and name the values that the suffix reads in two versions. Sizes are no steps: they are found by
what they are the size of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.utils._pytree import tree_flatten

_CHECKS = ("aten._assert", "aten.sym_constrain", "aten._assert_tensor_metadata")


class ApartError(Exception):
    """Two recordings that cannot be put together."""


@dataclass
class TwoVersions:
    """One value that the two recordings have in different versions.

    Args:
        of_base: the base's.
        of_turned: the other's, a node of its recording.
        readers: nodes of the base that read it where the other one reads its own.
        is_own: whether the base makes it in its own steps.
    """

    of_base: fx.Node
    of_turned: fx.Node
    readers: list[fx.Node]
    is_own: bool


@dataclass
class Parting:
    """One turned recording beside the base.

    Args:
        base: the base recording.
        other: the turned one.
        of_base: the condition in the base.
        of_other: the same in the other.
        same: nodes of the base by those of the other.
        sizes: the base's nodes of sizes, by what they are the size of.
        firsts: of constants of the base that are equal, the first.
        start: first node of the base's suffix.
        choices: values that the suffix reads in two versions.
        copied: steps of the other recording that the base lacks, in order.
    """

    base: ExportedProgram
    other: ExportedProgram
    of_base: fx.Node
    of_other: fx.Node
    same: dict[fx.Node, fx.Node] = field(default_factory=dict)
    sizes: dict[object, fx.Node] = field(default_factory=dict)
    firsts: dict[fx.Node, fx.Node] = field(default_factory=dict)
    start: fx.Node = field(init=False)
    choices: list[TwoVersions] = field(default_factory=list)
    copied: list[fx.Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._meet_placeholders()
        for node in self.base.graph.nodes:
            if _is_size(node):
                self.sizes[_key(node, lambda read: read)] = node
        ours, theirs = (_steps(program) for program in (self.base, self.other))
        count = self._prefix(ours, theirs)
        ours, theirs = ours[count:], theirs[count:]
        kept = self._suffix(ours, theirs)
        suffix = list(zip(ours[len(ours) - kept :], theirs[len(theirs) - kept :], strict=True))
        self.same.update({other: mine for mine, other in suffix})
        self.start, self.copied = suffix[0][0], theirs[: len(theirs) - kept]
        self._choose(suffix, set(ours[: len(ours) - kept]))

    def mine(self, node: fx.Node) -> fx.Node | None:
        """The base's node that stands for one of the other recording; None where there is none."""
        if node not in self.same and _is_size(node):
            reads = [self.mine(read) for read in node.all_input_nodes]
            key = _key(node, lambda read: self.same[read]) if None not in reads else None
            if key in self.sizes:
                self.same[node] = self.sizes[key]
        return self.same.get(node)

    def new_sizes(self, node: fx.Node) -> list[fx.Node]:
        """What a step of the other recording reads that is a size which the base has no node of."""
        return [
            read
            for read in node.all_input_nodes
            if _is_size(read)
            and self.mine(read) is None
            and all(self.mine(source) is not None for source in read.all_input_nodes)
        ]

    def _meet_placeholders(self) -> None:
        mine = {node.name: node for node in self.base.graph.find_nodes(op="placeholder")}
        held = self.base.graph_signature.inputs_to_lifted_tensor_constants
        constants = [(mine[name], self.base.constants[key]) for name, key in held.items()]
        for node, value in constants:
            self.firsts[node] = next(first for first, one in constants if _equal(one, value))
        others = self.other.graph_signature.inputs_to_lifted_tensor_constants
        for node in self.other.graph.find_nodes(op="placeholder"):
            if node.name not in others:
                self.same[node] = mine[node.name]
                continue
            value = self.other.constants[others[node.name]]
            equal = (first for first, one in constants if _equal(one, value))
            self.same.update(zip((node,), equal, strict=False))

    def _is(self, mine: fx.Node, other: fx.Node) -> bool:
        """Whether a node of the other recording stands for one of the base."""
        return self.mine(other) is self.firsts.get(mine, mine)

    def _prefix(self, ours: list[fx.Node], theirs: list[fx.Node]) -> int:
        """How many steps they have in common: up to the condition at least, or beyond."""
        count = 0
        for mine, other in zip(ours[:-1], theirs[:-1], strict=False):
            is_same = all(self._is(a, b) for a, b in _pairs(mine, other))
            if not _alike(mine, other) or not is_same:
                break
            self.same[other] = mine
            count += 1
        if self.same.get(self.of_other) is not self.of_base:
            raise ApartError("they part before the number is drawn")
        return count

    def _suffix(self, ours: list[fx.Node], theirs: list[fx.Node]) -> int:
        """How many steps at the end are alike and read the same weights, the output among them."""
        given = {*self.base.graph_signature.user_inputs}
        count = 0
        for mine, other in zip(reversed(ours), reversed(theirs), strict=False):
            if not _alike(mine, other):
                break
            weights = [
                (a, b)
                for a, b in _pairs(mine, other)
                if any(node.op == "placeholder" and node.name not in given for node in (a, b))
            ]
            if any(not self._is(a, b) for a, b in weights):
                break
            count += 1
        return count

    def _choose(self, suffix: list[tuple[fx.Node, fx.Node]], own: set[fx.Node]) -> None:
        """Find the values that the suffix reads in different versions."""
        found: dict[tuple[fx.Node, fx.Node], TwoVersions] = {}
        after = {mine for mine, _ in suffix}
        for mine, other in suffix:
            for a, b in _pairs(mine, other):
                if self._is(a, b):
                    continue
                if a in after or not _are_alike(a, b):
                    raise ApartError(f"one returns {_shape(b)} and the other {_shape(a)}")
                choice = found.setdefault((a, b), TwoVersions(a, b, [], a in own))
                choice.readers.append(mine)
        made = [choice.of_base for choice in found.values() if choice.is_own]
        if len(set(made)) != len(made):
            raise ApartError("one value stands for two")
        self.choices = list(found.values())


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def _steps(program: ExportedProgram) -> list[fx.Node]:
    """What is computed, in order, without sizes and checks, and the output."""
    return [
        node
        for node in program.graph.nodes
        if node.op != "placeholder"
        and not _is_size(node)
        and not str(node.target).startswith(_CHECKS)
    ]


def _is_size(node: fx.Node) -> bool:
    kinds = (int, torch.SymInt, torch.SymBool, torch.SymFloat)
    return node.op == "call_function" and isinstance(node.meta.get("val"), kinds)


def _leaves(node: fx.Node) -> tuple[list[object], str]:
    """The arguments of a node one behind the other, and how they are nested."""
    leaves, spec = tree_flatten((node.args, dict(node.kwargs)))
    return leaves, str(spec)


def _key(node: fx.Node, mine: Callable[[fx.Node], fx.Node]) -> object:
    leaves, spec = _leaves(node)
    return node.target, spec, tuple(mine(x) if isinstance(x, fx.Node) else x for x in leaves)


def _alike(mine: fx.Node, other: fx.Node) -> bool:
    """Whether two nodes do the same, their operands aside."""
    if mine.op != other.op or _called(mine) != _called(other):
        return False
    (ours, spec), (theirs, its_spec) = _leaves(mine), _leaves(other)
    return spec == its_spec and all(
        isinstance(b, fx.Node) if isinstance(a, fx.Node) else type(a) is type(b) and a == b
        for a, b in zip(ours, theirs, strict=True)
    )


def _called(node: fx.Node) -> object:
    """What a node calls; of a graph inside, its code."""
    if node.op != "get_attr":
        return node.target
    held = getattr(node.graph.owning_module, str(node.target), None)
    return getattr(held, "code", None) or node.target


def _pairs(mine: fx.Node, other: fx.Node) -> Iterator[tuple[fx.Node, fx.Node]]:
    """The operands of two nodes that are alike."""
    for a, b in zip(_leaves(mine)[0], _leaves(other)[0], strict=False):
        if isinstance(a, fx.Node) and isinstance(b, fx.Node):
            yield a, b


def _are_alike(mine: fx.Node, other: fx.Node) -> bool:
    a, b = mine.meta.get("val"), other.meta.get("val")
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return False
    return a.dtype == b.dtype and list(map(str, a.shape)) == list(map(str, b.shape))


def _shape(node: fx.Node) -> str:
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"the shape ({', '.join(map(str, value.shape))})"
