"""Which values an operator may overwrite.

Its job: find the nodes whose first operand was made for them alone, so that `relu`, a mask or a
residual sum need no memory of their own. On a CPU, fresh memory costs more than the arithmetic
done on it: every page of it is first cleared by the system.

An operand may go where it is the only one to be read there, where an operator made it that returns
memory of its own, never a view, and where its type and shape are those of the result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor

from dubito_nn.program import Node, Ref

aten = torch.ops.aten

_OVERWRITING: Mapping[str, Callable[..., Tensor]] = {
    "aten.relu.default": aten.relu_.default,
    "aten.tanh.default": aten.tanh_.default,
    "aten.sigmoid.default": aten.sigmoid_.default,
    "aten.gelu.default": aten.gelu_.default,
    "aten.silu.default": aten.silu_.default,
    "aten.elu.default": aten.elu_.default,
    "aten.leaky_relu.default": aten.leaky_relu_.default,
    **{f"aten.{name}.Tensor": getattr(aten, f"{name}_").Tensor for name in ("add", "sub", "mul")},
    "aten.mul.Scalar": aten.mul_.Scalar,
    "aten.add.Scalar": aten.add_.Scalar,
}
_OWN_MEMORY = frozenset(_OVERWRITING) | {
    "aten.linear.default",
    "aten.addmm.default",
    "aten.mm.default",
    "aten.conv1d.default",
    "aten.conv2d.default",
    "aten.conv3d.default",
    "aten.batch_norm.default",
    "aten.layer_norm.default",
    "aten.softmax.int",
    "aten.max_pool2d.default",
    "aten.avg_pool2d.default",
}
"""Operators whose result never shares memory with an operand."""


def overwriting(
    nodes: Sequence[Node], read_elsewhere: Collection[str]
) -> dict[str, Callable[..., Tensor]]:
    """The overwriting operator by name of the node that may use it.

    Args:
        nodes: in order of execution.
        read_elsewhere: names of values that something else reads.
    """
    made = {node.name: node.op for node in nodes}
    readers = Counter(name for node in nodes for name in node.references())
    operators = {}
    for node in nodes:
        first = node.args[0] if node.args else None
        if (
            node.op in _OVERWRITING
            and isinstance(first, Ref)
            and made.get(first.name) in _OWN_MEMORY
            and readers[first.name] == 1
            and first.name not in read_elsewhere
        ):
            operators[node.name] = _OVERWRITING[node.op]
    return operators


def may_hold(operand: object, *others: object) -> bool:
    """Whether a tensor's memory can hold the result of an operator on it and others."""
    if not isinstance(operand, Tensor) or operand.untyped_storage().nbytes() < operand.nbytes:
        return False
    for other in others:
        if isinstance(other, Tensor) and (
            other.dtype != operand.dtype
            or other.ndim > operand.ndim
            or any(
                a not in (1, b)
                for a, b in zip(other.shape[::-1], operand.shape[::-1], strict=False)
            )
        ):
            return False
    return operand.is_floating_point()
