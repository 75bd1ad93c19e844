"""Spare torch a walk over a graph that looks for writes, where it is plain that there are none.

Its job: torch walks a recorded graph twice to make it functional, first without noting anything
down, to see which inputs are written to and which outputs share memory with an input. Where the
graph itself tells that none does, the first walk is given its results, which have the sizes that
they were recorded with.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import get_proxy_mode

aten = torch.ops.aten
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd.name
_COMPOSITES_OF_NEW_MEMORY = frozenset(
    {
        *(aten.linear.default, aten.matmul.default, aten.layer_norm.default),
        *(aten.softmax.int, aten.log_softmax.int, aten.conv2d.default, aten.batch_norm.default),
    }
)
_WALK = "PropagateUnbackedSymInts"


@contextmanager
def written_nowhere() -> Iterator[None]:
    """While active, torch walks over graphs once that write to nothing but what they make.

    A torch without such a walk is no faster, and works.
    """
    try:  # torch's own parts, which another release may have elsewhere
        from torch._functorch._aot_autograd import graph_capture_wrappers as user
        from torch._functorch._aot_autograd.functional_utils import to_fun

        walk: Any = getattr(user, _WALK)
    except (ImportError, AttributeError):
        yield
        return

    class Spared(walk):  # type: ignore[misc]
        def run(self, *args: Any, **kwargs: Any) -> Any:
            known = None if get_proxy_mode() else results_of(self.module.graph)
            if known is None:
                return super().run(*args, **kwargs)
            made = {node: to_fun(node.meta["val"]) for node in known}
            output = fx.map_arg(self.module.graph.output_node().args[0], made.__getitem__)
            return self.module.graph.process_outputs(output)

    setattr(user, _WALK, Spared)
    try:
        yield
    finally:
        setattr(user, _WALK, walk)


def results_of(graph: fx.Graph) -> tuple[fx.Node, ...] | None:
    """What a graph returns, where that is memory of its own and no input is written to.

    Returns:
        The nodes of the results, each once; None where the graph has to be run to tell.
    """
    own = set[fx.Node]()
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        if not isinstance(node.target, torch._ops.OpOverload):
            if isinstance(node.target, torch._ops.OperatorBase):
                return None
            continue
        written = _written(node)
        if not own.issuperset(written):
            return None
        if written or _makes_memory(node.target):
            own.add(node)
    results = graph.output_node().all_input_nodes
    are_own = own.issuperset(results)
    is_told = all(isinstance(node.meta.get("val"), Tensor) for node in results)
    return tuple(results) if results and are_own and is_told else None


def _written(node: fx.Node) -> list[object]:
    """The arguments that an operator writes to; all of them nodes, where it is a plain one."""
    schema = node.target._schema  # type: ignore[union-attr]
    given = dict(zip((argument.name for argument in schema.arguments), node.args, strict=False))
    given |= node.kwargs
    return [
        given.get(argument.name)
        for argument in schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write
    ]


def _makes_memory(op: torch._ops.OpOverload) -> bool:
    """Whether an operator returns one tensor, in memory that nothing else has."""
    if op in _COMPOSITES_OF_NEW_MEMORY:
        return True
    is_one = [str(value.type) for value in op._schema.returns] == ["Tensor"]
    values = [*op._schema.arguments, *op._schema.returns]
    is_shared = any(value.alias_info is not None for value in values)
    has_kernel: bool = torch._C._dispatch_has_kernel_for_dispatch_key(op._name, _COMPOSITE)
    return is_one and not is_shared and not has_kernel
