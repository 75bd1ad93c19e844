"""Turn a functional graph into a pure function f(x, ω).

Its job: walk the recorded graph once, replace every random operator by a site whose draw ω is an
input, check every other operator against the allow-list, and name the weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from dubito_nn.capturing.capture import Captured
from dubito_nn.capturing.example import BATCH
from dubito_nn.capturing.explain import explain_values
from dubito_nn.capturing.opaque import recurrent_operators
from dubito_nn.capturing.paths import clean_path, module_path
from dubito_nn.capturing.selected import PREFIX
from dubito_nn.errors import ExportError
from dubito_nn.lifting.folding import Folding
from dubito_nn.lifting.resting import MaskMeans
from dubito_nn.lifting.rules import EMPTY, RULES, is_random, operator_called, shape_source
from dubito_nn.lifting.scratch import remembered, served_values
from dubito_nn.lifting.sites import Symbols, describe
from dubito_nn.manifest import MAX_FREE_SIZE, Distribution, Site
from dubito_nn.operators import ALLOWED, name_of
from dubito_nn.program import Argument, Node, OnDevice, Program, Ref

aten = torch.ops.aten
_IGNORED = ("aten._assert", "aten.sym_constrain", "aten._assert_tensor_metadata")
_WITHOUT_STRIDES = {  # those of a view are a kernel's and a device's own affair
    "aten.view.default": "aten.reshape.default",
    "aten._unsafe_view.default": "aten.reshape.default",
    "aten._conj.default": "aten.conj_physical.default",
    "aten._neg_view.default": "aten.neg.default",
}
_UNREAD_KEYWORDS = ("pin_memory",)


@dataclass
class Lifted:
    """A graph with its randomness lifted out.

    Args:
        program: nodes in order of execution, dead ones included.
        sites: the random operations, in order of execution.
        weights: tensors by name in the network.
        paths: module path by node name.
        notices: what the user should know, such as sites that no served output reads.
        names: node name by name in the recorded graph.
        conditions: names of the truth values by which drawn numbers choose.
        free_sizes: least and most of each free dimension that it was recorded for.
    """

    program: Program
    sites: list[Site]
    weights: dict[str, Tensor]
    paths: dict[str, str]
    notices: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    conditions: tuple[str, ...] = ()
    free_sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def lift(program: ExportedProgram, captured: Captured, *, draw: bool) -> Lifted:
    """Lift the randomness out of a functional graph.

    Args:
        program: as `lower` returns it.
        captured: the network it was traced from, read for names and learned probabilities.
        draw: whether random nodes become sites; otherwise ω stands at its mean.

    Raises:
        ExportError: for an operator that is random in an unknown way or not on the allow-list.
    """
    for name in remembered(program):
        raise ExportError(
            f"the network writes to its buffer `{clean_path(name)}` in the forward pass and reads"
            " it in the next, but a served network never changes: "
            + (
                "use torch.nn.utils.parametrizations.spectral_norm"
                if name.endswith(("_u", "_v"))
                else "write to it in the training loop, outside forward()"
            )
        )
    lifter = Lifter(program, captured, draw)
    for node in program.graph.nodes:
        lifter.take(node)
    paths = {name: module_path(node) for node, name in lifter.names.items()}
    lifted = Program(tuple(lifter.nodes), lifter.outputs)
    names = {node.name: name for node, name in lifter.names.items()}
    conditions = tuple(map(lifter.names.__getitem__, lifter.asked))
    parts = lifter.sites, lifter.weights, paths, tuple(lifter.notices), names, conditions
    return Lifted(lifted, *parts, free_sizes=lifter.free_sizes)


@dataclass
class Lifter:
    """One walk over a recorded graph; the rules of `RULES` write through it.

    Args:
        recorded: the functional graph.
        captured: the network it was traced from.
        draw: whether random nodes become sites.
        nodes: of the lifted graph so far.
        sites: so far.
        weights: tensors by name in the network.
        outputs: node name by output.
        names: name in the lifted graph by recorded node.
        symbols: of the recorder, with their meanings.
        notices: what the user should know.
        count: nodes emitted that the recorded graph does not have.
        folding: the values that follow from weights alone.
        resting: the means of masks, where nothing is drawn.
        asked: the conditions by which drawn numbers choose.
        free_sizes: least and most of each free dimension.
    """

    recorded: ExportedProgram
    captured: Captured
    draw: bool
    nodes: list[Node] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    names: dict[fx.Node, str] = field(default_factory=dict)
    symbols: Symbols = field(default_factory=Symbols)
    notices: list[str] = field(default_factory=list)
    count: int = 0
    folding: Folding = field(init=False)
    resting: MaskMeans = field(default_factory=MaskMeans)
    free_sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    asked: list[fx.Node] = field(init=False)

    def __post_init__(self) -> None:
        self.folding = Folding(self.recorded)
        self.asked = served_values(self.recorded)[len(self.captured.outputs) :]  # type: ignore[assignment]

    def take(self, node: fx.Node) -> None:
        """Carry one recorded node over."""
        if node in self.names:  # a rule has named it already
            return
        if node.op == "placeholder":
            self._placeholder(node)
        elif node.op == "output":
            self._output(node)
        elif node.op != "call_function":
            raise ExportError(f"module `{module_path(node)}`: a graph cannot hold `{node.op}`")
        elif is_random(node):
            self._random(node)
        elif node.target == aten._native_batch_norm_legit_no_training.default:
            self._batch_norm(node)
        elif node.target in (aten.view_as_complex.default, aten._to_copy.default) and (
            _is_complex(node) and not _is_complex(node.args[0])
        ):
            self.names[node] = self._complex(node).name
        elif node.target in EMPTY or str(node.target).startswith(_IGNORED):
            return
        elif self.draw or not self.resting.take(self, node):
            self._plain(node)

    def emit(self, op: str, *args: Argument, **kwargs: Argument) -> Ref:
        """Add a node of our own and return a reference to it."""
        self.count += 1
        name = f"lifted_{self.count}"
        self.nodes.append(Node(name, op, args, kwargs))
        return Ref(name)

    def site(
        self,
        node: fx.Node,
        distribution: Distribution,
        mean: float,
        dtype: torch.dtype | None,
        *,
        like: Ref | None = None,
        drawn: fx.Node | None = None,
    ) -> Ref:
        """The draw ω of a random node, in the node's own shape, or in that of `drawn`.

        Its free sizes are those of `like`, where given.
        """
        value = _value(drawn or node)
        if not self.draw:
            size = self._size(node, value, like)
            dtype = dtype or value.dtype
            return self.emit("aten.full.default", size, mean, dtype=dtype, device=OnDevice())
        size = self._size(node, value, like)
        site = describe(node, value, distribution, mean, self.symbols, self.captured)
        self.sites.append(replace(site, index=len(self.sites)))
        return self.emit("site", len(self.sites) - 1, size, dtype or value.dtype)

    def constant(
        self,
        node: fx.Node,
        number: float,
        dtype: torch.dtype | None = None,
        *,
        like: Ref | None = None,
    ) -> Ref:
        """One number in the shape of a random node."""
        value = _value(node)
        size = self._size(node, value, like)
        dtype = dtype or value.dtype
        return self.emit("aten.full.default", size, number, dtype=dtype, device=OnDevice())

    def _placeholder(self, node: fx.Node) -> None:
        """Carry an input or a weight over, under the name that the user knows."""
        key = self.folding.keys.get(node.name)
        self.names[node] = node.name
        if key is None:
            name = list(self.captured.example)[sum(n.op == "input" for n in self.nodes)]
            self._learn_symbols(name, node.meta["val"])
            self.nodes.append(Node(node.name, "input", (name,)))
            return
        plain = key.removeprefix(PREFIX)
        if node.name in self.folding.constants:
            plain = f"constant.{'sampling' if self.draw else 'point'}.{plain}"
        held = self.folding.held[key].detach()
        self.weights[plain] = _real(held)
        self.nodes.append(Node(node.name, "weight", (plain,)))
        if held.is_complex():
            self.names[node] = self._of_pairs(Ref(node.name)).name

    def _learn_symbols(self, name: str, value: Tensor) -> None:
        for axis, meaning in {0: BATCH, **self.captured.inputs.free_dims.get(name, {})}.items():
            symbol = self.symbols.learn(name, axis, value.shape[axis], meaning)
            sizes = self.recorded.range_constraints.get(symbol)
            if meaning != BATCH and sizes is not None:
                most = int(min(sizes.upper, MAX_FREE_SIZE))
                self.free_sizes[meaning] = int(sizes.lower), most

    def _output(self, node: fx.Node) -> None:
        for key, value in zip(self.captured.outputs, served_values(self.recorded), strict=False):
            if not isinstance(value, fx.Node):
                raise ExportError(
                    "the network returns a constant, which is no function of its input: return"
                    " what it computes"
                )
            self.outputs[key] = self._name(value)

    def _batch_norm(self, node: fx.Node) -> None:
        """By stored statistics; the operator below checks its sizes, the recorded one does not."""
        x, weight, bias, mean, variance, momentum, eps = (self.argument(a) for a in node.args)
        statistics = (weight, bias, mean, variance, False, momentum, eps, False)
        result = self.emit("aten.batch_norm.default", x, *statistics)
        for user in node.users:
            if user.args[1] == 0:
                self.names[user] = result.name
        self.names[node] = result.name

    def _plain(self, node: fx.Node) -> None:
        """Carry an operator of the allow-list over as it is."""
        from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

        whole = recurrent_operators().get(node.target)
        name = f"aten.{whole}.input" if whole else name_of(node.target)
        name = _WITHOUT_STRIDES.get(name, name)
        if (name not in ALLOWED or _is_complex(node)) and (not node.users or self._folded(node)):
            return
        if free_unbacked_symbols(node.meta.get("val")):
            raise ExportError(explain_values(f"module `{module_path(node)}`"))
        if isinstance(node.meta.get("val"), (torch.SymInt, torch.SymFloat)) and name not in ALLOWED:
            raise ExportError(
                f"module `{module_path(node)}` computes with a size that is free, such as the"
                f" number of rows (`{getattr(node.target, '__name__', name)}`): use sizes in shapes"
                " alone, so that a row's answer does not hang on how many there are"
            )
        if name not in ALLOWED:
            raise ExportError(
                f"module `{module_path(node)}` uses the operator `{operator_called(node)}`, which"
                " bundles may not hold: write the step with plain torch operators"
            )
        kwargs = {
            key: self.argument(value)
            for key, value in node.kwargs.items()
            if key not in _UNREAD_KEYWORDS
        }
        args = tuple(self.argument(value) for value in node.args)
        places = self.folding.places(node)
        if places is not None:  # the number of places must not follow from values
            args = (args[0], tuple(map(self._place, places)), *args[2:])
        wide = kwargs.get("dtype")
        if isinstance(wide, torch.dtype) and wide.is_complex:  # made of a real one
            real = self.emit(name, *args, **{**kwargs, "dtype": wide.to_real()})
            zeros = self.emit("aten.zeros_like.default", real)
            self.names[node] = self.emit("aten.complex.default", real, zeros).name
            return
        self.nodes.append(Node(node.name, name, args, kwargs))
        self.names[node] = node.name

    def _folded(self, node: fx.Node) -> bool:
        """Keep the value of a node, or of its parts, in its place, where it is known."""
        value = self.folding.value(node)
        parts = {node: value} if isinstance(value, Tensor) else {}
        if isinstance(value, (tuple, list)):
            parts = {user: value[user.args[1]] for user in node.users}  # type: ignore[index]
        for part, tensor in parts.items():
            self.names[part] = self.stored(part.name, tensor).name
        return bool(parts)

    def _place(self, index: object) -> Argument:
        """An index as the program holds it; the places of a mask are stored."""
        if isinstance(index, Tensor):
            return self.stored(f"places_{self.count}", index)
        return self.argument(index)

    def stored(self, name: str, value: Tensor) -> Ref:
        """A tensor that was computed at export, as a constant of the graph."""
        value = self.captured.interned(value)
        key = f"constant.{'sampling' if self.draw else 'point'}.{name}"
        self.weights[key] = _real(value)
        kept = self.emit("weight", key)
        return self._of_pairs(kept) if value.is_complex() else kept

    def _complex(self, node: fx.Node) -> Ref:
        """Complex numbers of real ones, or of pairs."""
        x = self.argument(node.args[0])
        if node.target == aten.view_as_complex.default:
            return self._of_pairs(x)
        wide = _value(node).dtype.to_real()
        real = self.emit("aten._to_copy.default", x, dtype=wide)
        return self.emit("aten.complex.default", real, self.emit("aten.zeros_like.default", real))

    def _of_pairs(self, pairs: Argument) -> Ref:
        """Complex numbers of pairs on the last axis, wherever those lie in memory."""
        halves = [self.emit("aten.select.int", pairs, -1, half) for half in (0, 1)]
        return self.emit("aten.complex.default", *halves)

    def _name(self, node: fx.Node) -> str:
        if node not in self.names and node.target in EMPTY and _value(node).is_floating_point():
            self.names[node] = self.constant(node, math.nan).name  # which no output may show
        if node not in self.names:
            raise ExportError(
                f"module `{module_path(node)}` reads memory that nobody has written"
                f" (`{name_of(node.target)}`): start from torch.zeros or torch.full"
            )
        return self.names[node]

    def argument(self, value: object) -> Argument:
        """A recorded argument as the program holds it."""
        if isinstance(value, fx.Node):
            return Ref(self._name(value))
        if isinstance(value, (tuple, list)):
            return tuple(self.argument(item) for item in value)
        if isinstance(value, torch.device):
            return OnDevice()
        kinds = (bool, int, float, str, torch.dtype, torch.layout, torch.memory_format)
        if value is None or isinstance(value, kinds):
            return value
        raise ExportError(f"a graph cannot hold an argument of type {type(value).__name__}")

    def _random(self, node: fx.Node) -> None:
        rule = RULES.get(name_of(node.target))
        if rule is None and all(str(user.target).startswith(_IGNORED) for user in node.users):
            return  # it reaches no output
        if rule is None:
            raise ExportError(
                f"module `{module_path(node)}` rolls dice with `{operator_called(node)}`, which"
                " cannot be lifted: draw with torch.rand, torch.randn, torch.bernoulli or F.dropout"
            )
        rule(self, node)

    def _size(self, node: fx.Node, value: Tensor, like: Ref | None) -> tuple[Argument, ...]:
        """The node's shape as integers and references to earlier size nodes."""
        if all(isinstance(size, int) for size in value.shape):
            return tuple(int(size) for size in value.shape)
        source = shape_source(node)
        if like is None and isinstance(source, fx.Node):
            like = Ref(self._name(source))
        if like is None:
            assert isinstance(source, (tuple, list))
            return tuple(self.argument(size) for size in source)
        return tuple(
            size if isinstance(size, int) else self.emit("aten.sym_size.int", like, axis)
            for axis, size in enumerate(value.shape)
        )


def _value(node: fx.Node) -> Tensor:
    """What a random node made in the recording; the values, where it also returns a mask."""
    value = node.meta["val"]
    value = value[0] if isinstance(value, (tuple, list)) else value
    assert isinstance(value, Tensor)
    return value


def _real(weight: Tensor) -> Tensor:
    """As bundles hold it: complex numbers as pairs along a last axis."""
    return torch.view_as_real(weight.resolve_conj()) if weight.is_complex() else weight


def _is_complex(node: object) -> bool:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return isinstance(value, Tensor) and value.is_complex()
