"""Where the draws of a lifted graph meet the data.

Its job: sort the values of a graph into those that depend on an input, those made of draws and
weights alone (noise), and the rest; find each node that brings noise to the data; and walk up and
down the data from there, as far as the caller says.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from dubito_nn.program import Node, Program

OUTPUT = "output"


def names(text: str) -> frozenset[str]:
    """The operators named in a text, separated by spaces."""
    return frozenset(text.split())


SHAPE_ONLY = names("sym_size sym_numel zeros_like ones_like full_like new_zeros new_ones new_full")
"""Operators that read the size of their argument, not its numbers."""
_CUTS = names("select slice narrow unbind split split_with_sizes chunk operator.getitem")
_REPEATS = names("expand expand_as repeat repeat_interleave broadcast_tensors")
Stop = frozenset[str]


@dataclass(frozen=True)
class Draw:
    """A draw, or the part of one that a step of a loop cuts out for itself.

    Args:
        site: its index.
        cuts: how the part was cut out; equal parts are cut out equally.
        is_repeated: whether the numbers were repeated, after which cuts tell nothing.
    """

    site: int
    cuts: tuple[str, ...] = ()
    is_repeated: bool = False

    def after(self, node: Node) -> Draw:
        """What a node made of draws and weights makes of it."""
        if base(node) in _REPEATS:
            return replace(self, is_repeated=True)
        if base(node) in _CUTS and not self.is_repeated:
            return replace(self, cuts=(*self.cuts, f"{node.op} {node.args[1:]}"))
        return self


def base(node: Node) -> str:
    """The operator without its overload: `linear` of `aten.linear.default`."""
    parts = node.op.split(".")
    return parts[1] if parts[0] == "aten" else node.op


@dataclass(frozen=True)
class Meeting:
    """A node that brings draws to the data.

    Args:
        node: its name.
        draws: that it brings.
        data: names of the values that depend on the inputs, among its arguments.
    """

    node: str
    draws: frozenset[Draw]
    data: tuple[str, ...]


@dataclass
class Flow:
    """A graph, seen as data that draws are brought to.

    Args:
        nodes: by name.
        order: position by name.
        data: names of the arguments that depend on an input, by name of such a value.
        readers: names of the nodes that read a value and depend on an input.
        noise: draws by name of a value made of draws and weights alone.
        made_by: operators on the way from a site's draw to the data, by site.
        meetings: by site, in order of execution.
        output: name of the value that is served.
    """

    nodes: dict[str, Node] = field(default_factory=dict)
    order: dict[str, int] = field(default_factory=dict)
    data: dict[str, tuple[str, ...]] = field(default_factory=dict)
    readers: dict[str, list[str]] = field(default_factory=dict)
    noise: dict[str, frozenset[Draw]] = field(default_factory=dict)
    made_by: dict[int, set[str]] = field(default_factory=dict)
    meetings: dict[int, list[Meeting]] = field(default_factory=dict)
    output: str = ""

    @classmethod
    def of(cls, program: Program) -> Flow:
        """Sort the values of a program."""
        flow = cls(output=program.outputs[OUTPUT])
        for position, node in enumerate(program.nodes):
            flow.nodes[node.name], flow.order[node.name] = node, position
            flow._take(node)
        return flow

    def _take(self, node: Node) -> None:
        if node.op == "input":
            self.data[node.name] = ()
        elif node.op == "site":
            self.noise[node.name] = frozenset({Draw(int(str(node.args[0])))})
        elif node.op != "weight" and base(node) not in SHAPE_ONLY:
            self._combine(node)

    def _combine(self, node: Node) -> None:
        """Place a value among the data, or among the draws where it reads no data."""
        arguments = tuple(dict.fromkeys(node.references()))
        data = tuple(name for name in arguments if name in self.data)
        draws = frozenset[Draw]().union(*(self.noise.get(name, ()) for name in arguments))
        if data:
            self.data[node.name] = data
            for name in data:
                self.readers.setdefault(name, []).append(node.name)
            for site in {draw.site for draw in draws}:
                self.meetings.setdefault(site, []).append(Meeting(node.name, draws, data))
        elif draws:
            self.noise[node.name] = frozenset(draw.after(node) for draw in draws)
            for draw in draws:
                self.made_by.setdefault(draw.site, set()).add(base(node))

    def kind(self, name: str) -> str:
        """The operator of a value, without its overload; `input` for an input."""
        return base(self.nodes[name])

    def above(self, starts: Iterable[str], stop: Stop) -> tuple[list[str], list[str]]:
        """Walk up the data: the values passed, and those where an operator of `stop` ended it."""
        return self._walk(starts, lambda name: self.data.get(name, ()), stop)

    def below(self, starts: Iterable[str], stop: Stop) -> tuple[list[str], list[str]]:
        """Walk down the data, nearest first: the values passed, and those where it ended."""
        readers = {name for start in starts for name in self.readers.get(start, ())}
        ordered = sorted(readers, key=self.order.__getitem__)
        return self._walk(ordered, lambda name: self.readers.get(name, ()), stop)

    def reaches(self, start: str, end: str, without: frozenset[str] = frozenset()) -> bool:
        """Whether the value `end` depends on `start` other than through the nodes `without`."""
        visited, waiting = {end}, [end]
        while waiting:
            name = waiting.pop()
            if name == start:
                return True
            if name not in without:
                for source in self.data.get(name, ()):
                    if source not in visited and self.order[source] >= self.order[start]:
                        visited.add(source)
                        waiting.append(source)
        return False

    def weights_of(self, node: Node) -> set[str]:
        """Names of the weights that a node reads, through whatever is made of weights alone."""
        weights, waiting = set[str](), [n for n in node.references() if n not in self.data]
        while waiting:
            source = self.nodes[waiting.pop()]
            if source.op == "weight":
                weights.add(source.name)
            elif base(source) not in SHAPE_ONLY:
                waiting.extend(n for n in source.references() if n not in self.data)
        return weights

    def _walk(
        self, starts: Iterable[str], following: Callable[[str], Sequence[str]], stop: Stop
    ) -> tuple[list[str], list[str]]:
        """Follow values breadth first, each once, up to an input or an operator of `stop`."""
        waiting = deque(dict.fromkeys(starts))
        visited, passed, ends = set(waiting), list[str](), list[str]()
        while waiting:
            name = waiting.popleft()
            if self.kind(name) in stop or self.kind(name) == "input":
                ends.append(name)
                continue
            passed.append(name)
            for other in following(name):
                if other not in visited:
                    visited.add(other)
                    waiting.append(other)
        return passed, ends
