"""The same function with less work: rules that change a graph before it is planned.

Its job: apply, in this order, until nothing changes,

    dead      nodes that nothing reads are left out, and sizes read as early as they are known
    norm      a batch-norm with fixed statistics becomes part of the convolution before it:
              W' = W γ/σ, b' = (b - μ) γ/σ + β
    masks     (h ∘ m) ∘ m' = h ∘ (m ∘ m'), so that activations are masked once
    pool      max-pool(relu(h)) = relu(max-pool(h)), on fewer numbers
    later     f(m ∘ h) = m ∘ f(h) for m ≥ 0 and f positively homogeneous: f runs once per row

The first four hold for every value; the last for masks made of Bernoulli draws, which are never
negative. All are exact up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dubito_nn import Program, Site
from dubito_nn.program import Argument, Node, Ref

_CONVOLUTIONS = ("aten.conv1d.default", "aten.conv2d.default", "aten.conv3d.default")
_PER_ENTRY = ("aten.relu.default", "aten.leaky_relu.default")
_OVER_PLACES = ("aten.max_pool2d.default", "aten.avg_pool2d.default", "aten.max_pool1d.default")
_SCALED = ("aten.mul.Scalar", "aten.div.Scalar", "aten.mul.Tensor", "aten.div.Tensor")
_SHAPE_KEEPING = (
    *_PER_ENTRY,
    *("aten.gelu.default", "aten.tanh.default", "aten.sigmoid.default", "aten.silu.default"),
    *("aten.elu.default", "aten.selu.default", "aten.batch_norm.default"),
    *("aten.mul.Scalar", "aten.div.Scalar", "aten.add.Scalar"),
)
_ROWS_KEEPING = (*_CONVOLUTIONS, *_OVER_PLACES, "aten.linear.default")
_MADE_WITH_SIZE = tuple(f"aten.new_{name}.default" for name in ("zeros", "ones", "empty"))
_PASSES = 4


def rewritten(
    program: Program, sites: Sequence[Site], weights: Mapping[str, Tensor]
) -> tuple[Program, dict[str, Tensor]]:
    """The program after all rules, and the weights that it reads.

    Args:
        program: the lifted graph.
        sites: its random operations.
        weights: tensors by key.
    """
    graph = _Graph(program, sites, weights)
    for name in graph.nodes:
        _size_from_afar(graph, name)
    graph = _Graph(Program(graph.in_order(), program.outputs), sites, weights)
    for _ in range(_PASSES):
        changed = [
            rule(graph, name)
            for name in list(graph.nodes)
            for rule in _RULES
            if name in graph.nodes
        ]
        if not any(changed):
            break
    return Program(graph.in_order(), program.outputs), graph.weights


class _Graph:
    """A graph that rules change in place: nodes by name, and who reads each."""

    def __init__(
        self, program: Program, sites: Sequence[Site], weights: Mapping[str, Tensor]
    ) -> None:
        self.outputs = set(program.outputs.values())
        self.nodes = {node.name: node for node in _alive(program.nodes, self.outputs)}
        self.weights, self.sites = dict(weights), sites
        self.readers: dict[str, list[str]] = {name: [] for name in self.nodes}
        self.sizes, self.random, self.nonnegative = set[str](), set[str](), set[str]()
        for node in self.nodes.values():
            for name in node.references():
                self.readers[name].append(node.name)
            self._judge(node)

    def operand(self, node: Node) -> Node | None:
        """Return the node whose value is the first argument."""
        part = node.args[0] if node.args else None
        return self.nodes[part.name] if isinstance(part, Ref) else None

    def alone(self, node: Node) -> bool:
        """Whether exactly one node reads the value, and the program does not return it."""
        return len(self.readers[node.name]) == 1 and node.name not in self.outputs

    def put(self, *nodes: Node) -> None:
        """Replace nodes by others of the same names."""
        for node in nodes:
            self._forget_reads(node.name)
        for node in nodes:
            self.nodes[node.name] = node
            for name in node.references():
                self.readers[name].append(node.name)
            self._judge(node)

    def remove(self, name: str) -> None:
        """Take out a node that nothing reads any more."""
        self._forget_reads(name)
        del self.nodes[name], self.readers[name]

    def add_weight(self, key: str, tensor: Tensor) -> Ref:
        """A new weight, under a key that no network uses."""
        self.weights[key] = tensor
        self.readers[key] = []
        self.nodes[key] = Node(key, "weight", (key,))
        return Ref(key)

    def fixed(self, argument: Argument) -> Tensor | None:
        """The weight that an argument names, if it is one."""
        node = self.nodes[argument.name] if isinstance(argument, Ref) else None
        return self.weights[str(node.args[0])] if node and node.op == "weight" else None

    def in_order(self) -> tuple[Node, ...]:
        """Nodes that are needed, each after those that it reads, and else as they were."""
        placed: dict[str, Node] = {}
        for name in self.nodes:
            waiting = [name]
            while waiting:
                node = self.nodes[waiting[-1]]
                missing = [operand for operand in node.references() if operand not in placed]
                if missing:
                    waiting.extend(missing)
                else:
                    placed.setdefault(waiting.pop(), node)
        return tuple(_alive(list(placed.values()), self.outputs))

    def _forget_reads(self, name: str) -> None:
        for operand in self.nodes[name].references():
            self.readers[operand].remove(name)

    def _judge(self, node: Node) -> None:
        """Whether a value is made of draws alone, and whether it is never negative."""
        reads = [name for name in node.references() if name not in self.sizes]
        if node.op == "aten.sym_size.int" or (not reads and node.op.startswith("operator.")):
            self.sizes.add(node.name)
        elif node.op == "site" or (reads and all(name in self.random for name in reads)):
            self.random.add(node.name)
        else:
            self.random.discard(node.name)
        if self._is_nonnegative(node):
            self.nonnegative.add(node.name)
        else:
            self.nonnegative.discard(node.name)

    def _is_nonnegative(self, node: Node) -> bool:
        if node.op == "site":
            index = node.args[0]
            assert isinstance(index, int)
            return self.sites[index].distribution == "bernoulli"
        if node.op not in _SCALED or node.kwargs or len(node.args) != 2:
            return False
        return all(
            part.name in self.nonnegative
            if isinstance(part, Ref)
            else isinstance(part, (int, float)) and part > 0
            for part in node.args
        )


def _size_from_afar(graph: _Graph, name: str) -> None:
    """Read a size as early as it is known, so that it holds no value back.

    What was made with a given size has that size; what keeps its operand's shape, or at least its
    rows, has the operand's.
    """
    node = graph.nodes[name]
    if node.op != "aten.sym_size.int" or not isinstance(axis := node.args[1], int):
        return
    made = graph.operand(node)
    while made is not None and (before := _of_same_size(graph, made, axis)) is not None:
        made = before
    if made is None:
        return
    graph.put(replace(node, args=(Ref(made.name), axis)))
    size = made.args[1] if made.op in _MADE_WITH_SIZE else ()
    asked = size[axis] if isinstance(size, tuple) and 0 <= axis < len(size) else None
    if isinstance(asked, (int, Ref)):
        for reader in list(graph.readers[name]):
            graph.put(_with_argument(graph.nodes[reader], Ref(name), asked))


def _of_same_size(graph: _Graph, node: Node, axis: int) -> Node | None:
    """The operand that has the same size on that axis, if one surely has."""
    if node.op in _SHAPE_KEEPING or (axis == 0 and node.op in _ROWS_KEEPING):
        return graph.operand(node)
    product = _product(graph, node)
    return graph.nodes[product[0]] if axis == 0 and product is not None else None


def _with_argument(node: Node, old: Ref, new: Argument) -> Node:
    def changed(argument: Argument) -> Argument:
        if isinstance(argument, tuple):
            return tuple(changed(part) for part in argument)
        return new if argument == old else argument

    kwargs = {key: changed(value) for key, value in node.kwargs.items()}
    return replace(node, args=tuple(changed(part) for part in node.args), kwargs=kwargs)


def _norm_into_map(graph: _Graph, name: str) -> bool:
    norm = graph.nodes[name]
    if norm.op != "aten.batch_norm.default" or norm.kwargs or len(norm.args) < 8:
        return False
    before = graph.operand(norm)
    if before is None or before.op not in _CONVOLUTIONS or before.kwargs or not graph.alone(before):
        return False
    parts = [graph.fixed(part) for part in (*before.args[1:3], *norm.args[1:5])]
    tensors = [part for part in (*before.args[1:3], *norm.args[1:5]) if part is not None]
    if sum(part is not None for part in parts) != len(tensors):
        return False
    if len(before.args) < 3:
        parts.insert(1, None)
    weight, bias, scale, shift, mean, variance = parts
    if weight is None or mean is None or variance is None:
        return False
    vectors = [part for part in (bias, scale, shift, mean, variance) if part is not None]
    eps = norm.args[7]
    if any(part.shape != weight.shape[:1] for part in vectors) or not isinstance(eps, float):
        return False
    factor = (variance.double() + eps).rsqrt() * (1 if scale is None else scale.double())
    wide = factor.view(-1, *(1,) * (weight.ndim - 1))
    old = 0 if bias is None else bias.double()
    offset = (old - mean.double()) * factor + (0 if shift is None else shift.double())
    key = f"{graph.nodes[_name(before.args[1])].args[0]}·{graph.nodes[_name(norm.args[3])].args[0]}"
    new_weight = graph.add_weight(f"{key}·weight", _like(weight.double() * wide, weight))
    new_bias = graph.add_weight(f"{key}·bias", offset.to(weight.dtype))
    graph.put(
        replace(before, name=name, args=(before.args[0], new_weight, new_bias, *before.args[3:]))
    )
    graph.remove(before.name)
    return True


def _masks_together(graph: _Graph, name: str) -> bool:
    outer = graph.nodes[name]
    product = _product(graph, outer)
    if product is None:
        return False
    value, mask = product
    inner = graph.nodes[value]
    within = _product(graph, inner)
    if within is None or not graph.alone(inner) or _switches(graph, mask):
        return False
    graph.put(
        replace(inner, args=(Ref(within[1]), Ref(mask))),
        replace(outer, args=(Ref(within[0]), Ref(inner.name))),
    )
    return True


def _pool_before_relu(graph: _Graph, name: str) -> bool:
    pool = graph.nodes[name]
    if not pool.op.startswith("aten.max_pool"):
        return False
    relu = graph.operand(pool)
    if relu is None or relu.op != "aten.relu.default" or not graph.alone(relu):
        return False
    graph.put(
        Node(relu.name, pool.op, (relu.args[0], *pool.args[1:]), pool.kwargs),
        Node(pool.name, relu.op, (Ref(relu.name),)),
    )
    return True


def _mask_later(graph: _Graph, name: str) -> bool:
    node = graph.nodes[name]
    if node.op not in (*_PER_ENTRY, *_OVER_PLACES):
        return False
    product = graph.operand(node)
    masked = None if product is None else _product(graph, product)
    if product is None or masked is None or not graph.alone(product):
        return False
    value, mask = masked
    if value in graph.random or mask not in graph.nonnegative:
        return False
    if node.op in _OVER_PLACES and not _per_channel(graph, mask, 4 if "2d" in node.op else 3):
        return False
    graph.put(
        Node(product.name, node.op, (Ref(value), *node.args[1:]), node.kwargs),
        Node(node.name, product.op, (Ref(product.name), Ref(mask))),
    )
    return True


def _product(graph: _Graph, node: Node) -> tuple[str, str] | None:
    """(value, mask) where the node is their product and the mask is made of draws alone."""
    names = [part.name for part in node.args if isinstance(part, Ref)]
    if node.op != "aten.mul.Tensor" or node.kwargs or len(names) != 2:
        return None
    for value, mask in (names, names[::-1]):
        if mask in graph.random and value not in graph.random:
            return value, mask
    return None


def _per_channel(graph: _Graph, mask: str, ndim: int) -> bool:
    """Whether the mask is one number per channel of a batch of images."""
    size = _drawn_size(graph, mask)
    return size is not None and len(size) == ndim and all(part == 1 for part in size[2:])


def _switches(graph: _Graph, mask: str) -> bool:
    """Whether the mask is one number per sample: it switches a whole branch, and so stays apart."""
    size = _drawn_size(graph, mask)
    return size is not None and all(part == 1 for part in size[1:])


def _drawn_size(graph: _Graph, mask: str) -> tuple[Argument, ...] | None:
    """The size of the draw that a mask is a multiple of, if it is one."""
    node = graph.nodes[mask]
    while node.op != "site":
        inner = graph.operand(node)
        if inner is None or node.op not in _SCALED:
            return None
        node = inner
    size = node.args[1]
    return size if isinstance(size, tuple) else None


_RULES: tuple[Callable[[_Graph, str], bool], ...] = (
    _norm_into_map,
    _masks_together,
    _pool_before_relu,
    _mask_later,
)


def _alive(nodes: Sequence[Node], needed: Collection[str]) -> list[Node]:
    """Return the nodes that the needed ones depend on, and those themselves."""
    alive = set(needed)
    for node in reversed(nodes):
        if node.name in alive:
            alive.update(node.references())
    return [node for node in nodes if node.name in alive]


def _name(argument: Argument) -> str:
    assert isinstance(argument, Ref)
    return argument.name


def _like(tensor: Tensor, other: Tensor) -> Tensor:
    """Return the tensor in the other's type and memory format."""
    made = torch.empty_like(other)
    return made.copy_(tensor)
