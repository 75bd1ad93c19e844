"""Bring tokens to their experts where they stand, in a graph that sorts the tokens of all rows.

Its job: rewrite how libraries run a mixture of experts. They sort the tokens of the whole batch by
their expert, multiply group by group, and put the results back. That order mixes rows and the
numbers do not, as long as all between acts on one token at a time, which is looked at here:

    e, order = sort(experts)      →  experts as they stand
    x[order // k], w[order]       →  x repeated k times, w
    grouped_mm(x, W, ends)        →  (x W_1, ..., x W_E)[e]
    y[inverse of order]           →  y

Dimensions: S pairs of a token and an expert, k of each token; E experts, D outputs of one. The
products with all experts are E times the work of the chosen ones and E S D numbers.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.utils._pytree import tree_leaves

from dubito_nn.capturing.paths import module_path
from dubito_nn.errors import ExportError
from dubito_nn.lifting.rules import EMPTY
from dubito_nn.operators import name_of

aten = torch.ops.aten
Emit = Callable[..., Node]
_FALLBACK = "transformers.grouped_mm_fallback.default"
_SORTS = (aten.sort.default, aten.sort.stable)
_SIZES = (*EMPTY, aten.sym_size.int)
_CASTS = (aten.to.dtype, aten._to_copy.default, aten.clone.default, aten.contiguous.default)
_BY_AXIS = {  # position and default of the axis that they act on
    **{op: (1, 0) for op in (aten.unsqueeze.default, aten.slice.Tensor, aten.select.int)},
    **{op: (2, 0) for op in (aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default)},
    **{op: (1, None) for op in (aten.softmax.int, aten.sum.dim_IntList, aten.mean.dim)},
}


def unsort(graph: Graph, emitter: Callable[[Graph, Node], Emit]) -> None:
    """Take the order by experts out of a recorded graph, in place.

    Args:
        graph: not functional yet.
        emitter: adds nodes in front of one.

    Raises:
        ExportError: groups are made in another way, or something between mixes tokens.
    """
    routings: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        if _is_product(node):
            routings.setdefault(_sort_behind(node), []).append(node)
    for sort, products in routings.items():
        _unsorted(graph, sort, products, emitter)


def _is_product(node: Node) -> bool:
    return node.op == "call_function" and name_of(node.target) in (
        _FALLBACK,
        "dubito_nn.grouped_mm.default",
    )


def _sort_behind(product: Node) -> Node:
    """The sort by experts whose counts say where the groups of a product end."""
    experts = product.args[1].meta["val"].shape[0]  # type: ignore[union-attr]
    ends = _uncast(product.args[2])
    if ends.target == aten.cumsum.default and ends.args[1] in (0, -1):
        counts = _uncast(ends.args[0])
        bounds = ((experts, 0, experts - 1), (experts, 0, experts))
        if counts.target == aten.histc.default and counts.args[1:] in bounds:
            counted = _uncast(counts.args[0])
            sort = counted.args[0] if counted.target == operator.getitem else None
            if isinstance(sort, Node) and sort.target in _SORTS and counted.args[1] == 0:
                by_last = len(sort.args) < 2 or sort.args[1:] in ((0,), (-1,))
                if by_last and not sort.kwargs and sort.args[0].meta["val"].dim() == 1:  # type: ignore[union-attr]
                    return sort
    raise _mixing(product)


def _uncast(node: object) -> Node:
    while isinstance(node, Node) and node.target in _CASTS:
        node = node.args[0]
    assert isinstance(node, Node)
    return node


def _unsorted(
    graph: Graph, sort: Node, products: list[Node], emitter: Callable[[Graph, Node], Emit]
) -> None:
    """Rewrite what reads one order."""
    order = _Order(sort, products)
    for node in order.steps():
        order.take(node)
    experts: Any = sort.args[0]
    for node in order.chosen:
        _replace(node, _in_place(node, experts, emitter(graph, node), order))
    for part in list(sort.users):
        if part.args[1] == 0:
            part.replace_all_uses_with(experts)
    for node in reversed([sort, *order.seen]):
        if not node.users and not name_of(node.target).startswith("aten._assert"):
            graph.erase_node(node)


def _replace(node: Node, by: Node) -> None:
    node.replace_all_uses_with(by)


def _in_place(node: Node, experts: Node, emit: Emit, order: _Order) -> Node:
    """What a node that reads or undoes the order is without it."""
    value: Any = node.args[0]
    if _is_product(node):
        every = emit(aten.matmul.default, value, node.args[1])
        at = emit(aten.reshape.default, experts, [1, -1, 1])
        width = node.args[1].meta["val"].shape[-1]  # type: ignore[union-attr]
        chosen = emit(aten.gather.default, every, 0, emit(aten.expand.default, at, [1, -1, width]))
        return emit(aten.select.int, chosen, 0, 0)
    indices: Any = node.args[1]
    (index,) = indices
    if index in order.shared:
        return emit(aten.repeat_interleave.self_int, value, order.shared[index], 0)
    return emit(aten.clone.default, value)


class _Order:
    """What is known of the values that are read in an order, step by step.

    Args:
        sort: makes the order.
        products: of its groups.
    """

    def __init__(self, sort: Node, products: list[Node]) -> None:
        self._sort = sort
        self._products = products
        self._places = {part for part in sort.users if part.args[1] == 1}
        self._sorted = {part for part in sort.users if part.args[1] == 0}
        self._inverse = set[Node]()
        self.shared: dict[Node, Any] = {}
        self.chosen: list[Node] = []
        self.seen: list[Node] = list(sort.users)
        self._ends = set(_chain(products, sort))

    def steps(self) -> Iterator[Node]:
        """The nodes behind the sort, in order."""
        node = self._sort.next
        while node.op != "root":
            yield node
            node = node.next

    def take(self, node: Node) -> None:
        """See what a node makes of values in this order.

        Raises:
            ExportError: something that mixes tokens.
        """
        read = {one for one in node.all_input_nodes if self._is_ordered(one)}
        if not read or node in self._sort.users:
            return
        self.seen.append(node)
        is_check = name_of(node.target).startswith("aten._assert")
        if is_check or node.target in _SIZES or node in self._ends:
            return
        if node.target == aten.floor_divide.default and node.args[0] in self._places:
            self.shared[node] = node.args[1]
        elif self._is_inverse(node):
            self._inverse.add(node)
        elif self._is_choice(node):
            self.chosen.append(node)
        elif node in self._products and read - self._ends == {node.args[0]} & self._sorted:
            self._sorted.add(node)
            self.chosen.append(node)
        elif read <= self._sorted and self._keeps_apart(node):
            self._sorted.add(node)
        else:
            raise _mixing(node)

    def _is_ordered(self, node: Node) -> bool:
        return (
            node in self._sorted
            or node in self._places
            or node in self._inverse
            or node in self.shared
            or node in self._ends
        )

    def _is_inverse(self, node: Node) -> bool:
        """Whether it writes 0, 1, ... to the places of the order."""
        if node.target not in (aten.index_put_.default, aten.index_put.default):
            return False
        given: Any = node.args
        return (
            len(given) == 3
            and given[0].target in EMPTY
            and len(given[1]) == 1
            and given[1][0] in self._places
            and isinstance(given[2], Node)
            and given[2].target == aten.arange.default
        )

    def _is_choice(self, node: Node) -> bool:
        """Whether it reads something in this order, or puts it back."""
        indices: Any = node.args[1] if node.target == aten.index.Tensor else ()
        if len(indices) != 1:
            return False
        value: Any = node.args[0]
        if indices[0] in self._inverse:
            return value in self._sorted
        if not (indices[0] in self._places or indices[0] in self.shared):
            return False
        if self._is_ordered(value):
            return False
        self._sorted.add(node)
        return True

    def _keeps_apart(self, node: Node) -> bool:
        """Whether each token's part of the result is made of its part of the arguments."""
        made = node.meta["val"]
        first = made[0] if isinstance(made, (tuple, list)) else made
        target: Any = node.target
        if target == operator.getitem or target in _CASTS:
            return True
        if target == aten.index.Tensor:  # weights of the experts that are in this order
            return len(node.args[1]) == 1 and node.args[0] not in self._sorted  # type: ignore[arg-type]
        if target in _BY_AXIS:
            position, default = _BY_AXIS[target]
            axes = tree_leaves(node.args[position] if len(node.args) > position else default)
            dims = node.args[0].meta["val"].dim() + (target == aten.unsqueeze.default)  # type: ignore[union-attr]
            return all(isinstance(axis, int) and axis % dims for axis in axes)
        if torch.Tag.pointwise not in getattr(target, "tags", ()):
            return False
        if target._schema.is_mutable and node.args[0] not in self._products:
            return False
        return all(self._is_alongside(one, first.dim()) for one in node.all_input_nodes)

    def _is_alongside(self, node: Node, dims: int) -> bool:
        """Whether an argument has a token's numbers at the token's place, or the same for all."""
        value = node.meta["val"]
        if not isinstance(value, Tensor):
            return not isinstance(value, torch.SymInt)
        if node in self._sorted:
            return value.dim() == dims
        return value.dim() < dims or (isinstance(value.shape[0], int) and value.shape[0] == 1)


def _chain(products: list[Node], sort: Node) -> Iterator[Node]:
    """The nodes from the sort to where groups end."""
    for product in products:
        node: Any = product.args[2]
        while node not in sort.users:
            yield node
            node = node.args[0]


def _mixing(node: Node) -> ExportError:
    return ExportError(
        f"module `{module_path(node)}` sorts tokens of all rows by their experts, and does more"
        f" with that order (`{name_of(node.target)}`) than to multiply group by group and to put"
        " the results back, so that rows may read each other: multiply every token with its own"
        " experts' weights; of transformers, network.set_experts_implementation('batched_mm')"
    )
