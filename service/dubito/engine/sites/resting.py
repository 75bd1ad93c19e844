"""Layers that do nothing in evaluation mode, found by holding two graphs against each other.

Its job: alpha dropout and the like change their input where the mask stands at its mean, and the
mask of DropBlock has no mean in closed form; in evaluation mode all of them hand their input on.
Where the graph of that mode reads x where the lifted one reads what draws have made of x, it does.

A value is what operators with which arguments make it; two values made alike are the same in both
graphs. What draws have made of one value x alone stands for x as soon as a reader of it, with x in
its place, is a value of the evaluation graph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from dubito_nn import Bundle, Program
from dubito_nn.flow import OUTPUT, SHAPE_ONLY, Flow, base
from dubito_nn.program import Argument, Node, Ref


@dataclass(frozen=True)
class Resting:
    """What draws have made of a value that evaluation mode hands on.

    Args:
        origin: name of that value.
        sites: whose draws have met it.
    """

    origin: str
    sites: frozenset[int]


def resting(bundle: Bundle) -> dict[str, Resting]:
    """The values of the lifted graph that stand for an earlier one in evaluation mode, by name."""
    made = _Made(bundle.weights)
    in_point = made.numbered(bundle.point)
    known, flow = frozenset(in_point.values()), Flow.of(bundle.sampling)
    same, changed, found = dict[str, int](), dict[str, Resting](), dict[str, Resting]()
    for node in bundle.sampling.nodes:
        if node.name in flow.noise:
            continue
        reads = tuple(dict.fromkeys(node.references()))
        met = frozenset(draw.site for name in reads for draw in flow.noise.get(name, ()))
        stand_ins = {name: same[changed[name].origin] for name in reads if name in changed}
        if not met and all(name in same or name in stand_ins for name in reads):
            number = made.number(node, same | stand_ins)
            if not stand_ins or number in known:
                same[node.name] = number
                if base(node) not in SHAPE_ONLY:
                    found |= {name: changed[name] for name in stand_ins}
                continue
        origins = {changed[name].origin if name in changed else name for name in reads} - {
            name for name in reads if name not in flow.data
        }
        if len(origins) == 1 and (origin := origins.pop()) in same:
            sites = met.union(*(changed[name].sites for name in stand_ins))
            changed[node.name] = Resting(origin, sites)
    served = changed.get(bundle.sampling.outputs[OUTPUT])
    if served is not None and same[served.origin] == in_point[bundle.point.outputs[OUTPUT]]:
        found[bundle.sampling.outputs[OUTPUT]] = served
    return found


@dataclass
class _Made:
    """Numbers of values: the same number for what is made alike.

    Args:
        weights: by key; constants of a graph are compared by what they hold.
    """

    weights: Mapping[str, Tensor]
    _numbers: dict[object, int] = field(default_factory=dict)

    def numbered(self, program: Program) -> dict[str, int]:
        numbers: dict[str, int] = {}
        for node in program.nodes:
            numbers[node.name] = self.number(node, numbers)
        return numbers

    def number(self, node: Node, of: Mapping[str, int]) -> int:
        if node.op == "weight" and str(node.args[0]).startswith("constant."):
            held = self.weights[str(node.args[0])].contiguous()
            content = hashlib.sha256(held.numpy().tobytes()).hexdigest()
            key: object = ("constant", tuple(held.shape), held.dtype, content)
        else:
            kwargs = tuple((name, _plain(value, of)) for name, value in sorted(node.kwargs.items()))
            key = (node.op, _plain(node.args, of), kwargs)
        return self._numbers.setdefault(key, len(self._numbers))


def _plain(argument: Argument, of: Mapping[str, int]) -> object:
    if isinstance(argument, Ref):
        return ("value", of[argument.name])
    if isinstance(argument, tuple):
        return tuple(_plain(part, of) for part in argument)
    return (type(argument).__name__, argument)
