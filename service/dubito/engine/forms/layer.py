"""The layers of a chain of masked linear maps, and what both thinned forms do with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from dubito.engine.planning.layout import Layouts, RowAxis
from dubito.engine.running.fold import Fold, as_tensor
from dubito_nn.operators import resolve
from dubito_nn.program import Node, Ref, bind

POINTWISE = frozenset(
    f"aten.{name}.default"
    for name in (
        *("relu", "gelu", "tanh", "sigmoid", "silu", "elu", "selu", "leaky_relu", "softplus"),
        *("relu6", "hardtanh", "hardswish", "celu", "mish"),
    )
) | {"aten.mul.Scalar", "aten.add.Scalar"}


@dataclass(frozen=True)
class Layer:
    """One linear map of a chain, with what stands between it and the next mask.

    Args:
        mask: name of the mask on its input; None at the head of a chain where nothing is masked.
        masked: name of the product with that mask.
        linear: its node.
        pointwise: nodes after it, up to the next mask.
    """

    mask: str | None
    masked: str | None
    linear: Node
    pointwise: tuple[Node, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The nodes that it stands for, in order."""
        first = () if self.masked is None else (self.masked,)
        return (*first, self.linear.name, *(node.name for node in self.pointwise))


def is_pointwise(node: Node) -> bool:
    """Whether it works on each unit of one value alone."""
    return node.op in POINTWISE and len(list(node.references())) == 1


def readers_of(nodes: Sequence[Node]) -> dict[str, list[Node]]:
    """Return the nodes that read a value, by its name, in order."""
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in node.references():
            readers.setdefault(name, []).append(node)
    return readers


def has_rows_first(layouts: Layouts, name: str, ndim: int | None = None) -> bool:
    """Whether the first axis of a value, with that many axes where it matters, holds the rows."""
    layout = layouts.of[name]
    return (
        isinstance(layout, RowAxis)
        and (layout.axis, layout.per_row) == (0, 1)
        and ndim in (None, layout.ndim)
    )


def first_of(node: Node) -> str:
    """Return the name of a node's first operand."""
    first = node.args[0]
    assert isinstance(first, Ref)
    return first.name


def weights_of(linear: Node, static: Mapping[str, object]) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of a linear map."""
    names = [part.name if isinstance(part, Ref) else None for part in linear.args[1:]]
    weight, bias = (*names, None)[:2]
    assert weight is not None
    return as_tensor(static[weight]), None if bias is None else as_tensor(static[bias])


def apply(node: Node, units: Tensor, fold: Fold) -> Tensor:
    """A node that `is_pointwise` on units that nothing else reads."""
    if node.op == "aten.relu.default":
        return units.relu_()
    args = [bind(argument, {first_of(node): units}, fold.device) for argument in node.args]
    return as_tensor(resolve(node.op)(*args, **node.kwargs))
