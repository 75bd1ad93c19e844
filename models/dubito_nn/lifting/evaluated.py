"""The recording in evaluation mode, made of the one in sampling mode.

Its job: save a second recording, half of what an export takes, where all that the modes differ in
is whether dropout drops, which `dubito_nn.capturing.alike` sees. `dubito_nn.proving.prove` compares
the graph with the network in evaluation mode all the same, and where they differ it is recorded.

    dropout(x, p, train=True)                 →  dropout(x, p, train=False)
    lstm(..., train=True, ...)                →  lstm(..., train=False, ...)
    attention(q, k, v, mask, dropout_p=0.1)   →  attention(q, k, v, mask)
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import fx
from torch.export import ExportedProgram

from dubito_nn.capturing.alike import Copies, compared
from dubito_nn.capturing.capture import Captured
from dubito_nn.capturing.opaque import recurrent_operators
from dubito_nn.lifting.recording import DrawRecorder
from dubito_nn.lifting.rules import is_random

aten = torch.ops.aten
_DROPOUTS = (
    *(aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default),
    *(aten.feature_alpha_dropout.default,),
)
_ATTENTION = aten.scaled_dot_product_attention.default
_TRAIN = {**dict.fromkeys(_DROPOUTS, 2), _ATTENTION: 4}  # the argument by position
_TRAIN_OF_RECURRENT = 6


def evaluated(recorded: ExportedProgram, captured: Captured) -> ExportedProgram | None:
    """A copy of a recording whose dropout is off; None where it may differ in something else.

    Args:
        recorded: in sampling mode, not lowered yet.
        captured: the network.
    """
    if captured.row_ranges or _writes(recorded) or _draws(captured):
        return None
    recurrent = recurrent_operators()
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    graph.output(graph.graph_copy(recorded.graph, copies))
    for node in graph.nodes:
        if node.op == "get_attr" and _may_drop(getattr(recorded.graph_module, str(node.target))):
            return None
        if node.target in _TRAIN or node.target in recurrent:
            _switch_off(node, _TRAIN.get(node.target, _TRAIN_OF_RECURRENT))
        elif node.op == "call_function" and is_random(node):
            return None
    copies_made = compared(captured)
    if copies_made is None or not _leave_out_copies(graph, copies_made):
        return None
    (output,) = graph.find_nodes(op="output")
    (before,) = recorded.graph.find_nodes(op="output")
    output.name, output.meta = before.name, dict(before.meta)
    graph._codegen = recorded.graph._codegen
    module = fx.GraphModule(recorded.graph_module, graph)
    module.meta.update(recorded.graph_module.meta)
    copied: ExportedProgram = recorded._update(module, recorded.graph_signature)
    return copied


def _may_drop(part: object) -> bool:
    """Whether a part of a graph, such as what runs without gradients, drops or rolls dice."""
    if not isinstance(part, fx.GraphModule):
        return True
    switched = {*_TRAIN, *recurrent_operators()}
    return any(
        node.op == "get_attr" or node.target in switched or is_random(node)
        for node in part.graph.nodes
    )


def _leave_out_copies(graph: fx.Graph, copies: Copies) -> bool:
    """Leave out copies of what lies in order in evaluation mode; False where it is not told."""
    if copies.sampling == copies.evaluation:
        return True
    nodes = graph.find_nodes(op="call_function", target=aten.contiguous.default)
    is_last = any(user.op == "output" for node in nodes for user in node.users)
    if is_last or len(nodes) != sum(copies.sampling):
        return False
    left = iter(nodes)
    for in_sampling, in_evaluation in zip(copies.sampling, copies.evaluation, strict=True):
        if in_evaluation and not in_sampling:
            return False
        node = next(left) if in_sampling else None
        if node is not None and not in_evaluation:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    return True


def _writes(recorded: ExportedProgram) -> bool:
    """Whether the network writes to a buffer, or returns more than what is served."""
    kinds = {spec.kind.name for spec in recorded.graph_signature.output_specs}
    return kinds != {"USER_OUTPUT"}


def _draws(captured: Captured) -> bool:
    """Whether the network rolls dice in evaluation mode, or does not run there."""
    with DrawRecorder(captured.running) as recorder, suppress(Exception):
        captured.run(captured.example, "evaluation")
        return bool(recorder.draws)
    return True


def _switch_off(node: fx.Node, position: int) -> None:
    """Set an argument to what it is in evaluation mode, left out where that is its default."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    off: object = 0.0 if node.target == _ATTENTION else False
    name = schema[position].name
    if name in node.kwargs:
        node.kwargs = {key: value for key, value in node.kwargs.items() if key != name}
    args: list[object] = list(node.args)
    if len(args) > position:
        args[position] = off
    node.args = tuple(_without_defaults(args, schema))  # type: ignore[arg-type]


def _without_defaults(args: list[object], schema: Sequence[torch.Argument]) -> list[object]:
    while args and schema[len(args) - 1].has_default_value():
        default = schema[len(args) - 1].default_value
        if type(args[-1]) is not type(default) or args[-1] != default:
            break
        args.pop()
    return args
