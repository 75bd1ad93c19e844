"""Make a recorded graph functional without recording it again, where that changes little.

Its job: save what torch takes for it, more than half of an export, where every operator is one that
torch would record as it stands: it returns one tensor of its own, reads an input of the network,
writes to none, and is taken apart neither by torch nor for a bundle. What may be there beside:

    dropout(x, p, train=True)       →  native_dropout(x, p, True)[0]
    dropout(x, p, train=False)      →  clone(x)
    batch_norm(x, ..., False, ...)  →  _native_batch_norm_legit_no_training(x, ...)[0]
    feature_dropout(x, p, False)    →  x, as of its kin
    flatten(x, 1), unflatten        →  view(x, [rows, sizes ...])

Nodes have the names that torch gives them, so that a bundle has the same bytes either way. Where
torch counts with sizes on the way, its sums have names too: operators of such names are left to it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind, TensorArgument
from torch.fx.experimental.sym_node import magic_methods

from dubito_nn.operators import ALLOWED, name_of

aten = torch.ops.aten
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
_KERNELS_ABOVE = (_COMPOSITE, torch._C.DispatchKey.Autograd)
_LEFT_OUT = (
    *(aten.feature_dropout.default, aten.alpha_dropout.default),
    *(aten.feature_alpha_dropout.default,),
)
_RESHAPED = (aten.flatten.using_ints, aten.unflatten.int)
_NAMES_OF_SIZES = frozenset(magic_methods) | {"sym_size", "getitem"}


def functional(recorded: ExportedProgram, composites: Collection[object]) -> ExportedProgram | None:
    """The functional graph; None where torch is to make it.

    Args:
        recorded: as `torch.export` gives it; it stays as it is.
        composites: those of torch's composite operators that are kept whole.
    """
    signature = recorded.graph_signature
    if any(spec.kind != OutputKind.USER_OUTPUT for spec in signature.output_specs):
        return None
    if not _stands(recorded, composites):
        return None
    copying = _Copying(frozenset(signature.user_inputs))
    for node in recorded.graph.nodes:
        copying.take(node)
    graph = copying.graph
    graph._codegen = recorded.graph._codegen
    module = fx.GraphModule(recorded.graph_module, graph)
    module.meta.update(recorded.graph_module.meta)
    results: Any = graph.output_node().args[0]
    outputs = [
        replace(spec, arg=TensorArgument(name=result.name))
        for spec, result in zip(signature.output_specs, results, strict=True)
    ]
    made: ExportedProgram = recorded._update(module, replace(signature, output_specs=outputs))
    return made


def _stands(recorded: ExportedProgram, composites: Collection[object]) -> bool:
    """Whether each operator is one that stays, or one of those with a rule here."""
    inputs, of_rows = recorded.graph_signature.user_inputs, set[fx.Node]()
    calls = set[fx.Node]()
    for node in recorded.graph.nodes:
        if node.op == "placeholder":
            of_rows |= {node} if node.name in inputs else set()
        elif node.op == "call_function":
            rule = _CONDITIONS.get(node.target)
            stands = rule(node, inputs) if rule else _stays(node.target, composites)
            if not (stands and node.users and of_rows & {*node.all_input_nodes}):
                return False
            of_rows.add(node)
            calls.add(node)
        elif node.op != "output" or not calls.issuperset(node.args[0]):
            return False
    return True


def _stays(op: object, composites: Collection[object]) -> bool:
    """Whether torch records an operator as it is called."""
    if not isinstance(op, torch._ops.OpOverload) or name_of(op) not in ALLOWED:
        return False
    if op.overloadpacket.__name__ in _NAMES_OF_SIZES:
        return False
    return _is_plain(op) and (op in composites or not _is_taken_apart(op))


@cache
def _is_plain(op: torch._ops.OpOverload) -> bool:
    """Whether an operator returns one tensor that shares nothing with another, without dice."""
    schema = op._schema
    values = [*schema.arguments, *schema.returns]
    is_one = [str(value.type) for value in schema.returns] == ["Tensor"]
    is_shared = any(value.alias_info is not None for value in values)
    return is_one and not is_shared and torch.Tag.nondeterministic_seeded not in op.tags


def _is_taken_apart(op: torch._ops.OpOverload) -> bool:
    has_kernel: bool = torch._C._dispatch_has_kernel_for_dispatch_key(op._name, _COMPOSITE.name)
    return has_kernel or any(key in op.py_kernels for key in _KERNELS_ABOVE)


def _is_of_stored_statistics(node: fx.Node, inputs: Sequence[str]) -> bool:
    return node.args[3] is not None and not node.args[5]


def _is_off(node: fx.Node, inputs: Sequence[str]) -> bool:
    """Whether a dropout is there that drops nothing, and is not all that is returned."""
    is_last = any(user.op == "output" for user in node.users)
    return not (node.kwargs or node.args[2] or is_last)


def _keeps_rows(node: fx.Node, inputs: Sequence[str]) -> bool:
    """Whether the rows of the one input stay apart, and all other sizes are known, old and new."""
    before, after = node.args[0].meta["val"].shape, node.meta["val"].shape  # type: ignore[union-attr]
    are_known = all(isinstance(size, int) for size in (*before[1:], *after[1:]))
    is_same = len(before) == len(after) or str(before[0]) != str(after[0])
    return len(inputs) == 1 and are_known and not is_same


_CONDITIONS: dict[object, Callable[[fx.Node, Sequence[str]], bool]] = {
    aten.dropout.default: lambda node, inputs: not node.kwargs,
    aten.batch_norm.default: _is_of_stored_statistics,
    **dict.fromkeys(_LEFT_OUT, _is_off),
    **dict.fromkeys(_RESHAPED, _keeps_rows),
}


@dataclass
class _Copying:
    """A copy of a graph, node by node.

    Args:
        inputs: names of the network's inputs.
        graph: the copy.
        copies: by node; of several, the one that has its value.
        rows: how many there are, in the copy.
    """

    inputs: frozenset[str]
    graph: fx.Graph = field(default_factory=fx.Graph)
    copies: dict[fx.Node, fx.Node] = field(default_factory=dict)
    rows: list[fx.Node] = field(default_factory=list)

    def take(self, node: fx.Node) -> None:
        """Copy one node, or what stands for it."""
        read: Any = fx.map_arg((node.args, dict(node.kwargs)), self.copies.__getitem__)
        args, kwargs = read
        if node.op != "call_function":
            copy = self.graph.create_node(node.op, node.target, args, kwargs, node.name)
            copy.meta = dict(node.meta)
        elif node.target == aten.dropout.default and args[1] and args[2]:
            copy = self._first(node, aten.native_dropout.default, args, 2)
        elif node.target == aten.dropout.default:
            copy = self._called(node, aten.clone.default, args[:1])
        elif node.target == aten.batch_norm.default:
            op = aten._native_batch_norm_legit_no_training.default
            copy = self._first(node, op, (*args[:5], *args[6:8]), 3)
        elif node.target in _LEFT_OUT:
            copy = args[0]
        elif node.target in _RESHAPED:
            sizes = [self._rows(), *node.meta["val"].shape[1:]]
            copy = self._called(node, aten.view.default, (args[0], sizes))
        else:
            copy = self._called(node, node.target, args, kwargs)
        self.copies[node] = copy

    def _called(
        self, node: fx.Node, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None
    ) -> fx.Node:
        name = self.graph._target_to_str(op.overloadpacket.__name__)
        copy = self.graph.create_node("call_function", op, args, kwargs, name)
        copy.meta = dict(node.meta)
        return copy

    def _first(
        self, node: fx.Node, op: torch._ops.OpOverload, args: tuple[Any, ...], results: int
    ) -> fx.Node:
        """The first of several results; torch names the others too, and leaves them out."""
        called = self._called(node, op, args)
        called.meta["val"] = (node.meta["val"],) * results
        parts = [
            self.graph.call_function(operator.getitem, (called, part)) for part in range(results)
        ]
        for unread in parts[1:]:
            self.graph.erase_node(unread)
        parts[0].meta = dict(node.meta)
        return parts[0]

    def _rows(self) -> fx.Node:
        """How many rows there are, asked for where the input is read, by the name of torch."""
        if not self.rows:
            (x,) = (copy for copy in self.copies.values() if copy.name in self.inputs)
            with self.graph.inserting_after(x):
                rows = self.graph.create_node(
                    "call_function", aten.sym_size.int, (x, 0), {}, "sym_size_int_1"
                )
            rows.meta = {"val": x.meta["val"].shape[0]}
            self.rows.append(rows)
        return self.rows[0]
