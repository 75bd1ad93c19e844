"""Where every value of a graph holds its rows, found by looking.

Its job: run the lifted graph once with two and once with three equal rows, and read off, for every
node, which axis grows with the rows and by how much, what every size is as a function of the
number of rows, which values depend on a row's position, and how many bytes a row needs.

Nothing of this is taken from the bundle, so a wrong statement in it cannot mislead the engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from dubito_nn.program import Node, Program, Value


@dataclass(frozen=True, slots=True)
class RowAxis:
    """A tensor's rows.

    Args:
        axis: that grows with the rows; None where none does.
        per_row: entries on that axis per row.
        positional: equal rows have unequal values: it depends on where a row stands.
        ndim: number of axes.
    """

    axis: int | None
    per_row: int
    positional: bool
    ndim: int

    @property
    def tileable(self) -> bool:
        """Whether rows can be repeated by repeating the axis."""
        return self.axis is not None and self.per_row == 1 and not self.positional


@dataclass(frozen=True, slots=True)
class Size:
    """A size as a function of the number of rows: constant + slope · rows."""

    constant: int
    slope: int

    def at(self, rows: int) -> int:
        """Return the size for that many rows."""
        return self.constant + self.slope * rows


Layout: TypeAlias = "RowAxis | Size | None"


@dataclass(frozen=True)
class Layouts:
    """What was seen.

    Args:
        of: layout by node name; None for tuples and lists.
        row_bytes: by node name, how many bytes one more row adds.
        shape: by node name, of tensors, on two rows; empty for others.
    """

    of: Mapping[str, Layout]
    row_bytes: Mapping[str, int]
    shape: Mapping[str, tuple[int, ...]]


def look(
    program: Program,
    inputs: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    device: torch.device,
    watch: Callable[[Node, Value], None] | None = None,
) -> Layouts:
    """Run the graph on two and on three copies of one row and compare.

    Args:
        program: the lifted graph.
        inputs: one row of every input.
        weights: tensors by key, on `device`.
        device: to run on.
        watch: is shown every node with its value, in both runs.
    """

    def draws(index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        # equal for all rows, so that only positions can make equal rows differ
        return torch.full(size, 0.5, dtype=dtype, device=device)

    two: dict[str, Value] = {}
    of: dict[str, Layout] = {}
    row_bytes: dict[str, int] = {}
    shape: dict[str, tuple[int, ...]] = {}

    def note(node: Node, value: Value) -> None:
        if watch is not None:
            watch(node, value)
        two[node.name] = _without_numbers(value)
        shape[node.name] = tuple(value.shape) if isinstance(value, Tensor) else ()

    def compare(node: Node, value: Value) -> None:
        if watch is not None:
            watch(node, value)
        before = two.pop(node.name)
        of[node.name] = _compare(before, value)
        row_bytes[node.name] = _bytes(value) - _bytes(before)

    for rows, see in ((2, note), (3, compare)):
        repeated = {
            name: tensor[:1].expand(rows, *tensor.shape[1:]) for name, tensor in inputs.items()
        }
        with torch.no_grad():
            program.run(repeated, weights, draws, device=device, watch=see)
    return Layouts(of, row_bytes, shape)


def _without_numbers(value: Value) -> Value:
    """The value's shape; the numbers of all nodes at once would not fit."""
    if isinstance(value, Tensor):
        return value.to("meta")
    if isinstance(value, (tuple, list)):
        return tuple(_without_numbers(part) for part in value)
    return value


def _compare(two: Value, three: Value) -> Layout:
    if isinstance(two, int) and isinstance(three, int):
        slope = three - two
        return Size(two - 2 * slope, slope)
    if not isinstance(two, Tensor) or not isinstance(three, Tensor):
        return None
    grown = [axis for axis in range(two.ndim) if two.shape[axis] != three.shape[axis]]
    if len(grown) != 1:
        return RowAxis(None, 0, bool(grown), two.ndim)
    (axis,) = grown
    per_row = three.shape[axis] - two.shape[axis]
    if two.shape[axis] != 2 * per_row:
        return RowAxis(None, 0, True, two.ndim)
    return RowAxis(axis, per_row, per_row == 1 and not _equal_rows(three, axis), two.ndim)


def _equal_rows(value: Tensor, axis: int) -> bool:
    numbers = torch.view_as_real(value) if value.is_complex() else value
    first, *others = torch.split(numbers.double(), 1, dim=axis)
    noise = 1e-4 * float(first.abs().nan_to_num(posinf=0.0).max()) if first.numel() else 0.0
    return all(
        torch.allclose(first, other, rtol=1e-4, atol=noise, equal_nan=True) for other in others
    )


def peak_row_bytes(
    nodes: Sequence[Node], row_bytes: Mapping[str, int], lasting: Collection[str]
) -> int:
    """Peak, over some nodes in order, of the bytes that one more row keeps alive; at least 1.

    Args:
        nodes: in order of execution; what they read from elsewhere counts while it is read.
        row_bytes: by node name.
        lasting: names that stay alive to the end.
    """
    dying = Program(tuple(nodes), {name: name for name in lasting}).last_uses
    made = {node.name for node in nodes}
    wanted = {name for node in nodes for name in node.references()}
    alive = sum(row_bytes[name] for name in wanted - made)
    peak = max(1, alive)
    for position, node in enumerate(nodes):
        alive += row_bytes[node.name]
        peak = max(peak, alive)
        alive -= sum(row_bytes[name] for name in dying.get(position, ()))
    return peak


def _bytes(value: Value) -> int:
    if isinstance(value, Tensor):
        return math.prod(value.shape) * value.element_size()
    if isinstance(value, (tuple, list)):
        return sum(_bytes(part) for part in value)
    return 0
