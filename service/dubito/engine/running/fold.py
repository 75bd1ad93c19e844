"""One run of the suffix: some samples of some rows, folded into one axis.

Its job: every operator sees samples · rows as its rows, which is right for any operator since rows
do not interact (proved at export). The order on that axis is sample-major: entry t · B + b. Values
that only rows or only samples have are broadcast in arithmetic, and repeated only for operators
that cannot broadcast. A form takes the place of the nodes it covers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from dubito.engine.kernels.lowered import Lowered, masked
from dubito.engine.kernels.products import Compute, compute
from dubito.engine.planning.layout import Layout, RowAxis, Size
from dubito.engine.running.reuse import may_hold, overwriting
from dubito_nn.operators import resolve
from dubito_nn.program import Node, Ref, SiteSource, Value, bind

_ARITHMETIC = frozenset(f"aten.{name}.Tensor" for name in ("add", "sub", "mul", "div"))
_PRODUCTS = frozenset(("aten.matmul.default", "aten.bmm.default"))
_FAR = 4  # widths between the rows of a matrix, from which copying it pays
Values = dict[str, Value]


@dataclass(frozen=True)
class Chunk:
    """Some samples of some rows.

    Args:
        samples: indices t, in increasing order.
        rows: places of the rows in their request.
    """

    samples: Sequence[int]
    rows: range

    @property
    def folded(self) -> int:
        """Length of the axis that holds samples and rows."""
        return len(self.samples) * len(self.rows)


class Form(Protocol):
    """Another way to compute what some nodes of the suffix compute."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes whose place it takes; the last one's value is its result."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the values that the form needs."""

    @property
    def wants_all_samples(self) -> bool:
        """Whether it does work per row that all its samples should share."""

    @property
    def group_size(self) -> int:
        """Of how many samples a chunk should hold a multiple."""

    def run(self, fold: Fold) -> Tensor:
        """Return the last node's value, in folded form."""


class Packs(dict["tuple[Form, int | tuple[int, ...]]", object]):
    """Weights gathered for forms, by form and sample.

    Args:
        is_kept: for later calls too, so that what gathering costs is paid once.
    """

    def __init__(self, *, is_kept: bool = False) -> None:
        super().__init__()
        self.is_kept = is_kept


Step: TypeAlias = "Node | Form"


@dataclass(frozen=True)
class Steps:
    """What a fold does, in order.

    Args:
        steps: nodes, and forms in the place of others.
        dying: by position, names whose values nothing reads later.
        reads: by node, names of the values that it reads.
        overwrites: by node, the operator that may use its first operand's memory.
        result: name of the value to return.
    """

    steps: tuple[Step, ...]
    dying: Mapping[int, Sequence[str]]
    reads: Mapping[str, tuple[str, ...]]
    overwrites: Mapping[str, Callable[..., Tensor]]
    result: str


@dataclass
class Fold:
    """One run of the suffix, or of a part of it.

    Args:
        chunk: which samples and rows.
        layouts: by node name.
        weights: tensors by key.
        device: where constants are made.
        source: of draws in folded size.
        inputs: of those rows.
        static: values that depend on nothing.
        of_rows: values of the rows alone.
        of_samples: values of the samples alone.
        packs: weights gathered for forms, by form and sample; kept by whoever made the fold.
        values: values in folded form that are there already.
        compute: makes the value of a node.
    """

    chunk: Chunk
    layouts: Mapping[str, Layout]
    weights: Mapping[str, Tensor]
    device: torch.device
    source: SiteSource
    inputs: Mapping[str, Tensor]
    static: Mapping[str, Value]
    of_rows: Mapping[str, Value]
    of_samples: Mapping[str, Value]
    packs: Packs = field(default_factory=Packs)
    values: Values = field(default_factory=dict)
    compute: Compute = compute

    def run(self, steps: Steps) -> Tensor:
        """Do the steps and return the result, in folded form."""
        for position, current in enumerate(steps.steps):
            if isinstance(current, Node):
                self.values[current.name] = self._node(current, steps)
            else:
                self.values[current.nodes[-1]] = current.run(self)
            for name in steps.dying.get(position, ()):
                self.values.pop(name, None)
        return as_tensor(self.value(steps.result))

    def value(self, name: str) -> Value:
        """Return a value in folded form."""
        if name in self.values:
            return self.values[name]
        layout = self.layouts[name]
        if isinstance(layout, Size):
            return layout.at(self.chunk.folded)
        if name in self.of_rows:
            value = self.of_rows[name]
        elif name in self.of_samples:
            value = self.of_samples[name]
        else:
            return self.static[name]
        assert isinstance(layout, RowAxis)
        if layout.axis is None:
            return value
        if name in self.of_rows:
            return self._repeated(as_tensor(value), layout.axis)
        return repeated_each(as_tensor(value), len(self.chunk.rows), layout.axis)

    def of_sample(self, name: str, position: int) -> Tensor:
        """The rows' values in one sample, with the rows on the first axis.

        Args:
            name: of a value whose rows are on its first axis.
            position: of the sample in the chunk.
        """
        if name in self.of_rows:
            return as_tensor(self.of_rows[name])
        rows = len(self.chunk.rows)
        return as_tensor(self.value(name)).narrow(0, position * rows, rows)

    def of_some(self, positions: Sequence[int], index: Tensor, names: Sequence[str]) -> Fold:
        """Return the fold of some of the samples, knowing only the named values.

        Args:
            positions: of the samples in this chunk.
            index: the same on the device.
            names: of values in folded form, in which those of a row lie together, of samples, or of
                others, which stay as they are.
        """
        chunk = Chunk([self.chunk.samples[at] for at in positions], self.chunk.rows)
        if len(chunk.samples) == len(self.chunk.samples):
            known = {name: self.values[name] for name in names if name in self.values}
            return replace(self, values=known)
        of_samples, values = Values(), Values()
        for name in names:
            layout = self.layouts[name]
            if not isinstance(layout, RowAxis) or layout.axis is None:
                continue
            if name in self.values:
                folded = as_tensor(self.values[name])
                shape = (len(self.chunk.samples), len(self.chunk.rows) * layout.per_row)
                some = unfolded(folded, layout.axis, shape).index_select(layout.axis, index)
                values[name] = some.flatten(layout.axis, layout.axis + 1)
            elif name in self.of_samples:
                of_samples[name] = as_tensor(self.of_samples[name]).index_select(layout.axis, index)
        return replace(self, chunk=chunk, of_samples=of_samples, values=values)

    def _node(self, node: Node, steps: Steps) -> Value:
        layout = self.layouts[node.name]
        if isinstance(layout, Size):
            return layout.at(self.chunk.folded)
        if node.op == "input":
            return self._repeated(self.inputs[str(node.args[0])], 0)
        overwrite = steps.overwrites.get(node.name)
        if node.op in _ARITHMETIC and self._broadcasts(node):
            return self._arithmetic(node, overwrite)
        known = {name: self.value(name) for name in steps.reads[node.name]}
        if node.op in _PRODUCTS and self.device.type == "cpu":
            known = {name: compact(value) for name, value in known.items()}
        if overwrite is not None:
            args = [bind(argument, known, self.device) for argument in node.args]
            if may_hold(*args):
                return overwrite(*args, **node.kwargs)
        return self.compute(node, known, {}, self.weights, self.source, self.device)

    @property
    def is_lowered(self) -> bool:
        """Whether products are in bfloat16."""
        return isinstance(self.compute, Lowered)

    def _masks(self, node: Node) -> bool:
        """Whether it multiplies by a value of the samples alone."""
        names = [part.name for part in node.args if isinstance(part, Ref)]
        return node.op == "aten.mul.Tensor" and any(name in self.of_samples for name in names)

    def _repeated(self, value: Tensor, axis: int) -> Tensor:
        times = len(self.chunk.samples)
        if times == 1:
            return value
        return value.repeat(*(times if at == axis else 1 for at in range(value.ndim)))

    def _broadcasts(self, node: Node) -> bool:
        """Whether both operands hold rows on the same axis, and one is not folded yet."""
        if node.kwargs or len(node.args) != 2:
            return False
        first, second = node.args
        if not isinstance(first, Ref) or not isinstance(second, Ref):
            return False
        if first.name in self.values and second.name in self.values:
            return False
        first_layout, second_layout = self.layouts[first.name], self.layouts[second.name]
        return (
            isinstance(first_layout, RowAxis)
            and isinstance(second_layout, RowAxis)
            and first_layout.axis is not None
            and (first_layout.axis, first_layout.ndim) == (second_layout.axis, second_layout.ndim)
            and first_layout.per_row == second_layout.per_row == 1
        )

    def _arithmetic(self, node: Node, overwrite: Callable[..., Tensor] | None) -> Tensor:
        """The operator on axes (..., samples, rows, ...), where one operand lacks one of them."""
        layout = self.layouts[node.name]
        assert isinstance(layout, RowAxis)
        assert layout.axis is not None
        axis, shape = layout.axis, (len(self.chunk.samples), len(self.chunk.rows))
        operands: list[Tensor] = []
        for part in node.args:
            assert isinstance(part, Ref)
            if part.name in self.values:
                folded = as_tensor(self.values[part.name])
                operands.append(unfolded(folded, axis, shape))
            elif part.name in self.of_rows:
                operands.append(as_tensor(self.of_rows[part.name]).unsqueeze(axis))
            elif part.name in self.of_samples:
                operands.append(as_tensor(self.of_samples[part.name]).unsqueeze(axis + 1))
            else:
                folded = as_tensor(self.value(part.name))
                operands.append(unfolded(folded, axis, shape))
        operator = overwrite if overwrite and may_hold(*operands) else resolve(node.op)
        if self.is_lowered and self._masks(node):
            operator = masked
        result = as_tensor(operator(*operands))
        size = list(result.shape)
        size[axis : axis + 2] = shape
        return result.expand(size).flatten(axis, axis + 1)


def steps_with(nodes: Sequence[Node], forms: Sequence[Form], result: str) -> Steps:
    """The nodes in order, with each form in the place of the last of the nodes that it covers."""
    covered = {name: form for form in forms for name in form.nodes}
    steps: list[Step] = []
    for node in nodes:
        form = covered.get(node.name)
        if form is None:
            steps.append(node)
        elif node.name == form.nodes[-1]:
            steps.append(form)
    reads = {node.name: tuple(node.references()) for node in nodes}
    last: dict[str, int] = {}
    for position, current in enumerate(steps):
        names = reads[current.name] if isinstance(current, Node) else current.reads
        last.update(dict.fromkeys(names, position))
    dying: dict[int, list[str]] = {}
    for name, position in last.items():
        if name != result:
            dying.setdefault(position, []).append(name)
    plain = [node for node in nodes if node.name not in covered]
    read_elsewhere = {result, *(name for form in forms for name in form.reads)}
    return Steps(tuple(steps), dying, reads, overwriting(plain, read_elsewhere), result)


def unfolded(value: Tensor, axis: int, shape: tuple[int, int]) -> Tensor:
    """Return the value with its folded axis as two: samples, rows."""
    return value.view(*value.shape[:axis], *shape, *value.shape[axis + 1 :])


def repeated_each(value: Tensor, times: int, axis: int) -> Tensor:
    """Every entry of an axis several times, without a tensor of numbers on its way to a device."""
    size = list(value.shape)
    size.insert(axis + 1, times)
    return value.unsqueeze(axis + 1).expand(size).flatten(axis, axis + 1)


def compact(value: Value) -> Value:
    """Matrices whose rows lie together in memory.

    Attention's heads are cut out of wider rows, so that a matrix is spread over many pages. On a
    CPU its product then takes several times as long as with a copy.
    """
    if not isinstance(value, Tensor) or value.ndim < 3:
        return value
    row, column = value.stride()[-2:]
    if column == 1 and row >= _FAR * value.shape[-1]:
        return value.contiguous()
    if row == 1 and column >= _FAR * value.shape[-2]:
        return value.mT.contiguous().mT
    return value


def as_tensor(value: object) -> Tensor:
    """Return a value that must be a tensor."""
    assert isinstance(value, Tensor)
    return value
