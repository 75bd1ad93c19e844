"""Bring hidden randomness into the open before the graph is made functional.

Its job: rewrite the two fused operators that roll dice inside themselves, on the recorded graph,
and four that are other operators by nature:

    RNN of L layers with dropout   →  one call per layer with a dropout node between
    attention with dropout         →  scores, softmax, dropout, product
    diff along an axis             →  x[1:] - x[:-1]
    dropout that drops nothing     →  clone(x)
    batch-norm of weights          →  (w - mean) / sqrt(var + eps)
    squeeze of all axes of size 1  →  of those that are 1 for any number of rows

Left as they are, the first would lose its dropout when decomposed, the second could not take a
mask from outside. Fused calls without dropout stay fused. Draws that nothing reads stay in the
graph, so that they can be counted against those of the eager network. What a bundle may not name
is taken apart as torch does it, again where the parts are not allowed either.
"""

from __future__ import annotations

import math
import operator
from collections import ChainMap
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch._decomp import decomposition_table
from torch.export import ExportedProgram, exported_program
from torch.fx import Graph, Node
from torch.fx.node import _side_effectful_functions

from dubito_nn.capturing.known import known_values
from dubito_nn.capturing.opaque import recurrent_operators
from dubito_nn.capturing.paths import module_path
from dubito_nn.errors import ExportError
from dubito_nn.lifting.functional import functional
from dubito_nn.lifting.routed import unsort
from dubito_nn.lifting.rules import EMPTY, RULES, is_random, refuse_certain
from dubito_nn.lifting.unwritten import written_nowhere
from dubito_nn.operators import ALLOWED, name_of

aten = torch.ops.aten
Emit = Callable[..., Node]
_END = 2**63 - 1
_SQUEEZES = (aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims)
_ROUNDS = 4  # one decomposition may name what another takes apart
_DROPOUTS = (
    *(aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default),
    *(aten.feature_alpha_dropout.default, aten.dropout_.default, aten.feature_dropout_.default),
    *(aten.alpha_dropout_.default, aten.feature_alpha_dropout_.default),
)
_LIST = "_collect_all_valid_cia_ops"
_all_composites: Callable[[], Collection[object]] = getattr(exported_program, _LIST, frozenset)


def refuse_as_recorded(program: ExportedProgram) -> None:
    """Refuse what cannot be seen any more once the graph has been lowered.

    Raises:
        ExportError: naming the module that drops everything, or normalises by the batch.
    """
    of_rows, inputs = set[Node](), frozenset(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        is_input = node.name in inputs
        if is_input or (node.target != aten.sym_size.int and of_rows & {*node.all_input_nodes}):
            of_rows.add(node)
        if node.target in _DROPOUTS and node.args[2]:
            refuse_certain(node, node.args[1])
        is_norm = node.target == aten.batch_norm.default and node.args[5]
        if is_norm and (node.args[0] in of_rows or node.args[3] is not None):
            raise ExportError(
                f"module `{module_path(node)}` normalises by the statistics of the batch"
                " (batch-norm in training mode), so rows would depend on their batch-mates: use"
                " nn.BatchNorm with track_running_stats=True, or nn.GroupNorm or nn.LayerNorm"
            )


def lower(program: ExportedProgram) -> ExportedProgram:
    """Rewrite RNN and attention dropout, then make the graph functional without decomposing."""
    return functional(program, _allowed_composites()) or lower_by_torch(program)


def lower_by_torch(program: ExportedProgram) -> ExportedProgram:
    """The same for any graph: torch records it again."""
    graph = program.graph
    unsort(graph, _emitter)
    for node in list(graph.nodes):
        if node.target in recurrent_operators():
            _lower_rnn(graph, node)
        elif node.target == aten.scaled_dot_product_attention.default:
            _lower_attention(graph, node)
        elif node.target == aten.diff.default:
            _lower_diff(graph, node)
        elif node.target == aten.dropout.default and not all(node.args[1:]):
            _lower_idle(graph, node)
        elif node.target in _SQUEEZES:
            _lower_squeeze(graph, node)
        elif node.target == aten.batch_norm.default and node.args[5] and node.args[3] is None:
            _lower_standardised(graph, node)
    program.graph_module.recompile()
    with _keeping_allowed(), _keeping_draws(), written_nowhere(), known_values(()):
        lowered: ExportedProgram = program.run_decompositions({})
        for _ in range(_ROUNDS):
            table = _decompositions(lowered)
            if not table:
                break
            lowered = lowered.run_decompositions(table)
    return lowered


def _decompositions(program: ExportedProgram) -> dict[object, Callable[..., object]]:
    """How torch takes apart what the graph names and a bundle may not."""
    named = {node.target for node in program.graph.nodes if node.users and not is_random(node)}
    named -= {aten._native_batch_norm_legit_no_training.default, *EMPTY}
    table = ChainMap[Any, Callable[..., Any]](_OWN, decomposition_table)
    return {op: table[op] for op in named if op in table and name_of(op) not in ALLOWED}


@contextmanager
def _keeping_allowed() -> Iterator[None]:
    """While active, torch keeps the composite operators that a bundle may name, and no others.

    It would keep all it lists, some 500, and register two dozen kernels for each of them every
    time: half of what an export takes. A torch without such a list is no faster, and works.
    """
    setattr(exported_program, _LIST, _allowed_composites)
    try:
        yield
    finally:
        setattr(exported_program, _LIST, _all_composites)


@contextmanager
def _keeping_draws() -> Iterator[None]:
    """While active, torch keeps draws that nothing reads: the eager network makes them as well."""
    added = _random_operators() - _side_effectful_functions
    _side_effectful_functions.update(added)
    try:
        yield
    finally:
        _side_effectful_functions.difference_update(added)


@cache
def _random_operators() -> frozenset[Callable[..., Any]]:
    parts = (name.split(".")[1:] for name in RULES)
    return frozenset(getattr(getattr(aten, packet), overload) for packet, overload in parts)


@cache
def _allowed_composites() -> frozenset[object]:
    return frozenset(composite for composite in _all_composites() if name_of(composite) in ALLOWED)


def _emitter(graph: Graph, origin: Node) -> Emit:
    """Adds nodes in front of `origin` that keep its module path."""

    def emit(target: Callable[..., object], *args: object, **kwargs: object) -> Node:
        with graph.inserting_before(origin):
            node = graph.call_function(target, args, kwargs)  # type: ignore[arg-type]
        node.meta = {key: value for key, value in origin.meta.items() if key != "val"}
        return node

    return emit


def _replace(graph: Graph, node: Node, result: Node) -> None:
    """Another node in the place of one; it has its shape, which what reads it may ask for."""
    result.meta.setdefault("val", node.meta["val"])
    node.replace_all_uses_with(result)
    graph.erase_node(node)


def _lower_rnn(graph: Graph, node: Node) -> None:
    """out_l = rnn_l(dropout(out_{l-1})); hidden states of the layers are put together again."""
    x, hidden, weights, has_biases, num_layers, drop_prob, train, both_ways, batch_first = node.args
    emit = _emitter(graph, node)
    is_lstm = recurrent_operators()[node.target] == "lstm"
    states = list(hidden) if is_lstm else [hidden]  # type: ignore[arg-type]
    directions = 2 if both_ways else 1
    per_layer = len(weights) // num_layers  # type: ignore[arg-type, operator]
    finals: list[list[Node]] = [[] for _ in states]
    out = x
    for layer in range(num_layers):  # type: ignore[arg-type]
        own = weights[layer * per_layer : (layer + 1) * per_layer]  # type: ignore[index]
        start, end = layer * directions, (layer + 1) * directions
        initial = [emit(aten.slice.Tensor, state, 0, start, end) for state in states]
        call = emit(
            node.target,
            out,
            initial if is_lstm else initial[0],
            own,
            has_biases,
            1,
            0.0,
            False,
            both_ways,
            batch_first,
        )
        out = emit(operator.getitem, call, 0)
        for position, final in enumerate(finals):
            final.append(emit(operator.getitem, call, position + 1))
        if layer + 1 < num_layers and train and drop_prob > 0:  # type: ignore[operator]
            # torch draws this mask with time first, whatever the layout of the call
            swapped = emit(aten.transpose.int, out, 0, 1) if batch_first else out
            out = emit(aten.dropout.default, swapped, drop_prob, True)
            out = emit(aten.transpose.int, out, 0, 1) if batch_first else out
    results = [out, *(emit(aten.cat.default, final, 0) for final in finals)]
    for user in list(node.users):
        _replace(graph, user, results[user.args[1]])  # type: ignore[arg-type, index]
    graph.erase_node(node)


def _lower_attention(graph: Graph, node: Node) -> None:
    """dropout(softmax(q kᵀ · scale + mask)) v, as torch documents the fused operator."""
    schema = node.target._schema  # type: ignore[union-attr]
    given = dict(zip((argument.name for argument in schema.arguments), node.args, strict=False))
    given |= node.kwargs
    drop_prob = given.get("dropout_p", 0.0)
    if not drop_prob:
        return
    emit = _emitter(graph, node)
    query, key, value = given["query"], given["key"], given["value"]
    if given.get("enable_gqa"):
        groups = query.meta["val"].shape[-3] // key.meta["val"].shape[-3]
        key, value = (
            emit(aten.repeat_interleave.self_int, part, groups, -3) for part in (key, value)
        )
    scale = given.get("scale") or 1 / math.sqrt(query.meta["val"].shape[-1])
    scaled = emit(aten.mul.Scalar, query, scale)
    scores = emit(aten.matmul.default, scaled, emit(aten.transpose.int, key, -2, -1))
    mask = given.get("attn_mask")
    if given.get("is_causal"):
        sizes = [emit(aten.sym_size.int, part, -2) for part in (query, key)]
        on_cpu = torch.device("cpu")  # stands for the device that the graph runs on
        ones = emit(aten.ones.default, sizes, dtype=torch.bool, device=on_cpu)
        mask = emit(aten.tril.default, ones)
    if mask is not None:
        if given.get("is_causal") or mask.meta["val"].dtype == torch.bool:
            hidden = emit(aten.logical_not.default, mask)
            scores = emit(aten.masked_fill.Scalar, scores, hidden, -math.inf)
        else:
            scores = emit(aten.add.Tensor, scores, mask)
        weights = emit(aten._safe_softmax.default, scores, -1)
    else:
        weights = emit(aten.softmax.int, scores, -1)
    dropped = emit(aten.dropout.default, weights, drop_prob, True)
    _replace(graph, node, emit(aten.matmul.default, dropped, value))


def _lower_idle(graph: Graph, node: Node) -> None:
    """A copy for a dropout that drops nothing, as torch has it up to 2.13: the same bytes later."""
    _replace(graph, node, _emitter(graph, node)(aten.clone.default, node.args[0]))


def _lower_standardised(graph: Graph, node: Node) -> None:
    """(w - mean) / sqrt(var + eps) of weights, as a batch-norm without running statistics."""
    emit = _emitter(graph, node)
    value, scale, shift, *_, eps, _ = node.args
    shape = value.meta["val"].shape  # type: ignore[union-attr]
    axes = [axis for axis in range(len(shape)) if axis != 1]
    var = emit(aten.var.correction, value, axes, correction=0, keepdim=True)
    centred = emit(aten.sub.Tensor, value, emit(aten.mean.dim, value, axes, True))
    rate = emit(aten.rsqrt.default, emit(aten.add.Scalar, var, eps))
    result = emit(aten.mul.Tensor, centred, rate)
    along = [-1 if axis == 1 else 1 for axis in range(len(shape))]
    for target, part in ((aten.mul.Tensor, scale), (aten.add.Tensor, shift)):
        if part is not None:
            result = emit(target, result, emit(aten.reshape.default, part, along))
    _replace(graph, node, result)


def _lower_squeeze(graph: Graph, node: Node) -> None:
    """Take out the axes of size 1, but not that of the rows where a batch has a single one."""
    value: Any = node.args[0]
    shape = value.meta["val"].shape
    given: Any = node.args[1] if len(node.args) > 1 else range(len(shape))
    axes = [given] if isinstance(given, int) else list(given)
    if len(node.args) > 1 and all(isinstance(shape[axis], int) for axis in axes):
        return
    ones = [axis for axis in axes if isinstance(shape[axis], int) and shape[axis] == 1]
    result = value
    if ones:
        result = _emitter(graph, node)(aten.squeeze.dims, value, ones)
    _replace(graph, node, result)


def _lower_diff(graph: Graph, node: Node) -> None:
    """Neighbours' differences along an axis; of truth values, whether neighbours differ."""
    emit = _emitter(graph, node)
    named: dict[str, Any] = {"n": 1, "dim": -1, "prepend": None, "append": None}
    named |= dict(zip(named, node.args[1:], strict=False)) | node.kwargs
    value: Any = node.args[0]
    axis = named["dim"]
    before, after = named["prepend"], named["append"]
    parts = [part for part in (before, value, after) if part is not None]
    if len(parts) > 1:
        value = emit(aten.cat.default, parts, axis)
    is_truth = node.meta["val"].dtype == torch.bool
    for _ in range(named["n"]):
        later = emit(aten.slice.Tensor, value, axis, 1, _END)
        earlier = emit(aten.slice.Tensor, value, axis, 0, -1)
        value = emit(aten.ne.Tensor if is_truth else aten.sub.Tensor, later, earlier)
    _replace(graph, node, value)


def _filled(x: torch.Tensor, value: float | torch.Tensor) -> torch.Tensor:
    """One number in the shape of a tensor."""
    if isinstance(value, torch.Tensor):
        return value.to(x.dtype).expand(x.shape).clone()
    return torch.full(x.shape, value, dtype=x.dtype, device=x.device)  # x may be unwritten memory


def _with_diagonal(
    x: torch.Tensor, source: torch.Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> torch.Tensor:
    """Square matrices with another diagonal."""
    on_diagonal = torch.diag_embed(torch.ones_like(source, dtype=torch.bool), offset, dim1, dim2)
    return torch.where(on_diagonal, torch.diag_embed(source, offset, dim1, dim2), x)


_OWN: dict[Any, Callable[..., Any]] = {
    aten.diagonal_scatter.default: _with_diagonal,
    aten.fill.Tensor: _filled,
    aten.fill.Scalar: _filled,
    aten.zero.default: partial(_filled, value=0),
}
"""Where torch's own decomposition names what a bundle may not."""
