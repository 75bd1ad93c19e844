"""Several recordings of a network as one graph, whose values drawn numbers choose.

Its job: put a choice where a turned recording and the base meet again,

    y = where(c_k, value of the one, value of the other)

A value of the prefix is chosen in the place of the suffix that reads another value now; a value of
the base's own steps wherever it is read afterwards, so that choices follow each other. Layers that
only a draw lets in all choose in the place of one value, one after the other. The draw of a
condition becomes one number per row where values have rows, as is the draw of a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.export import ExportedProgram
from torch.export.graph_signature import TensorArgument
from torch.fx.node import map_arg

from dubito_nn.capturing.branching.parting import ApartError, Parting, TwoVersions
from dubito_nn.capturing.explain import SKIPPED
from dubito_nn.capturing.paths import module_path
from dubito_nn.errors import ExportError

aten = torch.ops.aten
_STEPS = tuple(
    f"aten.{name}.{overload}"
    for name in ("lt", "le", "gt", "ge", "mul", "add", "sub", "rsub", "div", "clone")
    for overload in ("Scalar", "Tensor", "default")
)
"""What a condition may be made of for its draw to become one number per row."""


def merged(
    base: ExportedProgram,
    turned: Sequence[ExportedProgram],
    num_outputs: int,
    answers: Sequence[bool],
) -> ExportedProgram:
    """The base recording with the choices of all decisions in it.

    Args:
        base: returns what is served, then the conditions; changed in place.
        turned: one recording for each condition, in which it falls the other way.
        num_outputs: how many values are served.
        answers: how each condition falls in the base.

    Raises:
        ExportError: where a recording parts from the base in another way.
    """
    conditions = returned(base)[num_outputs:]
    partings = [_parting(base, other, number, num_outputs) for number, other in enumerate(turned)]
    recorded = set(base.graph.nodes)
    written = [
        _write(base, parting, is_true) for parting, is_true in zip(partings, answers, strict=True)
    ]
    chosen: dict[fx.Node, fx.Node] = {}  # so far, by the value of the base
    for parting, results in zip(partings, written, strict=True):
        later = _from(parting.start)
        for choice, result in zip(parting.choices, results, strict=True):
            readers = later if choice.is_own else {*choice.readers, *(later - recorded)}
            before = chosen.get(choice.of_base, choice.of_base)
            before.replace_all_uses_with(result, readers.__contains__)
            chosen[choice.of_base] = result
    for condition in conditions:
        _drop_unread(condition)
    _rename_outputs(base)
    base.graph.lint()
    base.graph_module.recompile()
    return base


def returned(program: ExportedProgram) -> list[fx.Node]:
    """What the module returned, and not what it wrote to buffers."""
    (output,) = program.graph.find_nodes(op="output")
    specs = program.graph_signature.output_specs
    return [
        value
        for value, spec in zip(output.args[0], specs, strict=True)
        if spec.kind.name == "USER_OUTPUT"
    ]


def _parting(
    base: ExportedProgram, other: ExportedProgram, number: int, num_outputs: int
) -> Parting:
    ours, theirs = (returned(program)[num_outputs:] for program in (base, other))
    try:
        if len(ours) != len(theirs):
            raise ApartError("one decides more often than the other")
        return Parting(base, other, ours[number], theirs[number])
    except ApartError as error:
        raise ExportError(
            f"module `{module_path(ours[number])}` goes one of two ways by a drawn number, and one"
            f" graph cannot stand for both ({error}): let both return tensors of one shape, and"
            f" draw alike. {SKIPPED}"
        ) from error


@dataclass
class _Emitter:
    """Adds nodes before another, with the values that they have in a recording."""

    before: fx.Node

    def __call__(
        self, target: Callable[..., Any] | str, *args: Any, like: fx.Node, **kwargs: Any
    ) -> fx.Node:
        graph = self.before.graph
        assert callable(target)
        with graph.inserting_before(self.before):
            node = graph.call_function(target, args, kwargs)
        node.meta = {key: value for key, value in like.meta.items() if key != "val"}
        values = map_arg((args, kwargs), lambda read: read.meta["val"])
        with self.mode, torch.no_grad():
            node.meta["val"] = target(*values[0], **values[1])
        return node

    @property
    def mode(self) -> FakeTensorMode:
        """The mode that the recording was made in."""
        values = (node.meta.get("val") for node in self.before.graph.nodes)
        return next(value.fake_mode for value in values if isinstance(value, FakeTensor))


def _write(base: ExportedProgram, parting: Parting, is_true: bool) -> list[fx.Node]:
    """Write the choices of one decision into the base graph, where nothing reads them yet."""
    emit = _Emitter(parting.start)
    for node in parting.copied:
        for size in parting.new_sizes(node):
            args = map_arg(size.args, parting.same.__getitem__)
            parting.same[size] = emit(size.target, *args, like=size)
        read = [parting.mine(source) for source in node.all_input_nodes]
        if None in read or node.op != "call_function":
            raise ExportError(
                f"module `{module_path(node)}` goes one of two ways by a drawn number, of which"
                f" one uses a constant of its own: keep it in a buffer. {SKIPPED}"
            )
        args, kwargs = map_arg((node.args, dict(node.kwargs)), parting.same.__getitem__)
        parting.same[node] = emit(node.target, *args, like=node, **kwargs)
    axes = [_row_axis(base, choice.of_base) for choice in parting.choices]
    condition = None if None in axes else _per_row(base, parting.of_base)
    results = []
    for choice, axis in zip(parting.choices, axes, strict=True):
        mask = parting.of_base
        if condition is not None:
            shape = [-1 if at == axis else 1 for at in range(choice.of_base.meta["val"].ndim)]
            mask = emit(aten.reshape.default, condition, shape, like=condition)
        results.append(_chosen(emit, mask, choice, parting, is_true))
    if condition is not None:
        parting.of_base.replace_all_uses_with(condition)
    return results


def _chosen(
    emit: _Emitter, mask: fx.Node, choice: TwoVersions, parting: Parting, is_true: bool
) -> fx.Node:
    turned = parting.mine(choice.of_turned)
    order = (choice.of_base, turned) if is_true else (turned, choice.of_base)
    return emit(aten.where.self, mask, *order, like=mask)


def _rows(base: ExportedProgram) -> fx.Node:
    name = base.graph_signature.user_inputs[0]
    (rows,) = (node for node in base.graph.nodes if node.name == name)
    assert isinstance(rows, fx.Node)
    return rows


def _row_axis(base: ExportedProgram, value: fx.Node) -> int | None:
    """The axis of a value that is as long as there are rows."""
    rows = str(_rows(base).meta["val"].shape[0])
    sizes = [str(size) for size in value.meta["val"].shape]
    return sizes.index(rows) if rows in sizes else None


def _per_row(base: ExportedProgram, condition: fx.Node) -> fx.Node | None:
    """The condition with one number per row; None where its draw is read elsewhere."""
    chain, waiting = set[fx.Node](), [condition]
    while waiting:
        node = waiting.pop()
        if node.target is not aten.rand.default and str(node.target) not in _STEPS:
            return None
        chain.add(node)
        waiting.extend(node.all_input_nodes)
    if any(user not in chain and user.op != "output" for node in chain for user in node.users):
        return None
    new = dict[fx.Node, fx.Node]()
    for node in [node for node in base.graph.nodes if node in chain]:
        emit = _Emitter(node)  # draws stay in the order in which they are made
        if node.target is aten.rand.default:
            count = emit(aten.sym_size.int, _rows(base), 0, like=node)
            new[node] = emit(node.target, [count], like=node, **node.kwargs)
            continue
        args, kwargs = map_arg((node.args, dict(node.kwargs)), new.__getitem__)
        new[node] = emit(node.target, *args, like=node, **kwargs)
    return new[condition]


def _drop_unread(condition: fx.Node) -> None:
    """Drop a condition that another one has taken the place of, and its draws."""
    waiting = [condition]
    while waiting:
        node = waiting.pop()
        if not node.users and node.op == "call_function":
            sources = node.all_input_nodes
            node.graph.erase_node(node)
            waiting.extend(sources)


def _from(start: fx.Node) -> set[fx.Node]:
    """A node and those after it."""
    found, node = set[fx.Node](), start
    while node.op != "root":
        found.add(node)
        node = node.next
    return found


def _rename_outputs(program: ExportedProgram) -> None:
    (output,) = program.graph.find_nodes(op="output")
    for value, spec in zip(output.args[0], program.graph_signature.output_specs, strict=True):
        if isinstance(value, fx.Node) and isinstance(value.meta.get("val"), Tensor):
            spec.arg = TensorArgument(name=value.name)
