"""Compute what depends on neither the inputs nor a draw, where no bundle may hold the operator.

Its job: the value of a recorded node whose arguments go back to weights and numbers alone, so that
it can be stored in the place of the operators that made it: inverses and factors of weights, grids,
windows, the places of true values in a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves, tree_map_only

from dubito_nn.lifting.rules import EMPTY, is_random

aten = torch.ops.aten
_TRUTHS = (torch.bool, torch.uint8)


@dataclass
class Folding:
    """The known values of a functional graph, found when they are asked for.

    Args:
        recorded: the graph.
        values: found so far, by node; None of those that are not known.
    """

    recorded: ExportedProgram
    values: dict[fx.Node, object] = field(default_factory=dict)

    def value(self, node: fx.Node) -> object:
        """The value of a node, or None where it depends on an input, a draw or a changing buffer.

        A size is never known, since the number of rows is free.
        """
        for found in self._unfound([node]):
            self.values[found] = self._found(found)
        return self.values[node]

    def tensor(self, node: object) -> Tensor | None:
        """The value of a node, where it is a known tensor."""
        value = self.value(node) if isinstance(node, fx.Node) else None
        return value if isinstance(value, Tensor) else None

    def places(self, node: fx.Node) -> tuple[object, ...] | None:
        """The indices of a node that reads where a mask is true, all of them numbers instead.

        Returns:
            Nodes as they are, and for a known mask the places of its true values, one tensor for
            each of its axes; None where no known mask is among the indices.
        """
        if node.target != aten.index.Tensor:
            return None
        indices = cast("Iterable[fx.Node | None]", node.args[1])
        found: list[object] = []
        for index in indices:
            is_node = isinstance(index, fx.Node) and index.meta["val"].dtype in _TRUTHS
            mask = self.tensor(index) if is_node else None
            found.extend([index] if mask is None else mask.nonzero().unbind(1))
        return tuple(found) if any(isinstance(part, Tensor) for part in found) else None

    def _unfound(self, nodes: list[fx.Node]) -> list[fx.Node]:
        """The nodes, and those they read, whose values are not found yet, in order."""
        needed, waiting = dict[fx.Node, None](), list(nodes)
        while waiting:
            node = waiting.pop()
            if node not in self.values and node not in needed:
                needed[node] = None
                waiting.extend(node.all_input_nodes)
        return [node for node in self.recorded.graph.nodes if node in needed]

    def _found(self, node: fx.Node) -> object:
        if node.op == "placeholder":
            return self._held(node.name)
        is_step = node.op == "call_function" and not is_random(node) and node.target not in EMPTY
        if not is_step or any(self.values[read] is None for read in node.all_input_nodes):
            return None
        if any(isinstance(a, torch.SymInt) for a in tree_leaves(node.meta.get("val"))):
            return None
        args, kwargs = tree_map_only(fx.Node, self.values.get, (node.args, dict(node.kwargs)))
        with torch.no_grad():
            return cast("Callable[..., object]", node.target)(*args, **kwargs)

    def _held(self, name: str) -> Tensor | None:
        """A weight, a constant, or a buffer that the network does not change."""
        signature = self.recorded.graph_signature
        if signature.inputs_to_buffers.get(name) in signature.buffers_to_mutate.values():
            return None
        key = (
            signature.inputs_to_parameters.get(name)
            or signature.inputs_to_buffers.get(name)
            or signature.inputs_to_lifted_tensor_constants.get(name)
        )
        held = {**self.recorded.state_dict, **self.recorded.constants}
        return held[key].detach() if key else None
