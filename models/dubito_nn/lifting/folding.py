"""Compute what depends on neither the inputs nor a draw, where no bundle may hold the operator.

Its job: the value of a recorded node whose arguments go back to weights and numbers alone, so that
it can be stored in the place of the operators that made it: inverses and factors of weights, grids,
windows, the places of true values in a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves, tree_map_only

from dubito_nn.lifting.rules import EMPTY, is_random

aten = torch.ops.aten
_TRUTHS = (torch.bool, torch.uint8)
_LIKE = (
    *(aten.full_like.default, aten.ones_like.default, aten.zeros_like.default),
    *(aten.new_full.default, aten.new_ones.default, aten.new_zeros.default),
)


@dataclass
class Folding:
    """The known values of a functional graph, found when they are asked for.

    Args:
        recorded: the graph.
        values: found so far, by node; None of those that are not known.
        with_sizes: whether sizes of the example count as known.
    """

    recorded: ExportedProgram
    values: dict[fx.Node, object] = field(default_factory=dict)
    with_sizes: bool = False

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

    def alike_in_rows(self, node: fx.Node) -> Tensor | None:
        """The value of a node that is the same for any number of rows, with 1 along free axes.

        So where a constant is repeated for the rows. None where numbers of an input or a draw are
        in it, or where it differs along such an axis.
        """
        value = replace(self, values={}, with_sizes=True).tensor(node)
        if value is None:
            return None
        for axis, size in enumerate(node.meta["val"].shape):
            if isinstance(size, torch.SymInt):
                first = value.narrow(axis, 0, 1)
                if not torch.equal(value, first.expand_as(value)):
                    return None
                value = first
        return value

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
        if self.with_sizes and isinstance(node.meta.get("val"), torch.SymInt):
            return int(node.meta["val"].node.hint)
        is_step = node.op == "call_function" and not is_random(node) and node.target not in EMPTY
        if self.with_sizes and is_step and node.target in _LIKE:
            return self._like(node)
        if not is_step or any(self.values[read] is None for read in node.all_input_nodes):
            return None
        if any(isinstance(a, torch.SymInt) for a in tree_leaves(node.meta.get("val"))):
            return None
        args, kwargs = tree_map_only(fx.Node, self.values.get, (node.args, dict(node.kwargs)))
        with torch.no_grad():
            return cast("Callable[..., object]", node.target)(*args, **kwargs)

    def _like(self, node: fx.Node) -> object:
        """Numbers alone in the size of another tensor, whatever that holds."""
        source, *rest = node.args
        like = cast("fx.Node", source).meta["val"]
        sizes = [getattr(size, "node", size) for size in like.shape]
        whole = torch.zeros([getattr(size, "hint", size) for size in sizes], dtype=like.dtype)
        args, kwargs = tree_map_only(fx.Node, self.values.get, (tuple(rest), dict(node.kwargs)))
        if any(isinstance(leaf, Tensor) or leaf is None for leaf in tree_leaves(args)):
            return None
        return cast("Callable[..., object]", node.target)(whole, *args, **kwargs)

    def _held(self, name: str) -> Tensor | None:
        """A weight, a constant, or a buffer that the network does not change."""
        key = self.keys.get(name)
        return None if key is None or key in self._changing else self.held[key].detach()

    @cached_property
    def keys(self) -> dict[str, str]:
        """What weights, buffers and constants are called in the network, by their nodes' names."""
        signature = self.recorded.graph_signature
        return {
            **signature.inputs_to_lifted_tensor_constants,
            **signature.inputs_to_buffers,
            **signature.inputs_to_parameters,
        }

    @cached_property
    def constants(self) -> frozenset[str]:
        """Names of the nodes that stand for constants."""
        return frozenset(self.recorded.graph_signature.inputs_to_lifted_tensor_constants)

    @cached_property
    def held(self) -> dict[str, Tensor]:
        """The tensors of weights, buffers and constants, by what they are called."""
        return {**self.recorded.state_dict, **self.recorded.constants}

    @cached_property
    def _changing(self) -> frozenset[str]:
        return frozenset(self.recorded.graph_signature.buffers_to_mutate.values())
