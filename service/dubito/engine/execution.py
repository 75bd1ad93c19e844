"""Run a plan: T samples of B rows in chunks, samples and rows folded into one axis.

Its job: every operator of the suffix sees samples · rows as its rows, which is right for any
operator since rows do not interact (proved at export). The order on that axis is sample-major:
entry t · B + b. Values that only rows or only samples have are broadcast in arithmetic, and
repeated only for operators that cannot broadcast.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dubito.engine.layout import Layouts, Rows, Size
from dubito.engine.masks import draw
from dubito.engine.plan import Plan
from dubito.engine.sampling import Key, Masks
from dubito_nn import Program, Site
from dubito_nn.operators import resolve
from dubito_nn.program import Node, Ref, Value, step

_ARITHMETIC = frozenset(f"aten.{name}.Tensor" for name in ("add", "sub", "mul", "div"))
Values = dict[str, Value]


@dataclass(frozen=True)
class Chunk:
    """Some samples of some rows.

    Args:
        samples: indices t.
        rows: places of the rows in their request.
    """

    samples: range
    rows: range

    @property
    def folded(self) -> int:
        """Length of the axis that holds samples and rows."""
        return len(self.samples) * len(self.rows)


@dataclass
class Execution:
    """A lifted graph on a device, planned for one way of sharing masks.

    Args:
        program: the lifted graph.
        sites: its random operations.
        weights: tensors by key, on the device.
        layouts: how its values hold their rows.
        plan: which node runs how often.
        device: to run on.
        masks: `shared` or `independent`.
        cache_bytes: bound of what is kept of the masks between requests.
    """

    program: Program
    sites: Sequence[Site]
    weights: Mapping[str, Tensor]
    layouts: Layouts
    plan: Plan
    device: torch.device
    masks: Masks
    cache_bytes: int
    _static: Values = field(default_factory=dict)
    _kept: OrderedDict[tuple[Key, range], Values] = field(default_factory=OrderedDict)
    _dying: Mapping[int, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wanted = frozenset(node.name for node in self.plan.static)
        self._static = self._run(self.plan.static, 1, {}, None, wanted)
        self._dying = _last_reads(self.plan.suffix, set(self.program.outputs.values()))

    def prefix(self, inputs: Mapping[str, Tensor]) -> Values:
        """What the suffix needs of the rows alone.

        Args:
            inputs: by name, rows first, on the device.
        """
        rows = len(next(iter(inputs.values())))
        return self._run(self.plan.prefix, rows, inputs, None, self.plan.from_prefix)

    def of_some_rows(self, before: Values, rows: Tensor) -> Values:
        """What `prefix` would return for some of its rows.

        Args:
            before: what it returned for all.
            rows: their places among all, on the device.
        """
        part = dict(before)
        for name, value in before.items():
            layout = self.layouts.of[name]
            if isinstance(layout, Rows) and layout.axis is not None:
                part[name] = _tensor(value).index_select(layout.axis, rows)
        return part

    def run(self, chunk: Chunk, inputs: Mapping[str, Tensor], before: Values, key: Key) -> Tensor:
        """The declared output of some samples of some rows.

        Args:
            chunk: which samples and rows.
            inputs: of those rows.
            before: what `prefix` returned for those rows.
            key: of the draws.

        Returns:
            Shape (samples, rows, ...).
        """
        of_samples = self._of_samples(chunk.samples, key) if self.plan.masks else {}
        fold = _Fold(self, chunk, key, inputs, before, of_samples)
        folded = fold.run()
        layout = self.layouts.of[self.program.outputs["output"]]
        assert isinstance(layout, Rows)
        assert layout.axis == 0
        return folded.reshape(len(chunk.samples), len(chunk.rows), *folded.shape[1:])

    def draws(
        self, chunk: Chunk, key: Key, *, per_row: bool
    ) -> Callable[[int, tuple[int, ...], torch.dtype], Tensor]:
        """A source of draws for a chunk, in the folded size that the graph asks for."""

        def source(index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            site = self.sites[index]
            rows = len(chunk.rows) if per_row else 1
            own = list(size)
            if site.batch_dim is not None:
                own[site.batch_dim] //= len(chunk.samples) * rows
            masks: Masks = self.masks if per_row else "shared"
            drawn = draw(
                site,
                key.seed,
                chunk.samples,
                tuple(own),
                masks=masks,
                rows=chunk.rows,
                kind=key.draw,
                dtype=dtype,
            ).to(self.device)
            if site.batch_dim is None:
                return drawn.reshape(size)
            if masks == "shared":
                drawn = drawn.unsqueeze(1).expand(-1, rows, *own)
            return _placed(drawn, site, size)

        return source

    def _of_samples(self, samples: range, key: Key) -> Values:
        place = (key, samples)
        if place not in self._kept:
            chunk = Chunk(samples, range(1))
            source = self.draws(chunk, key, per_row=False)
            self._kept[place] = self._run(
                self.plan.masks, len(samples), {}, source, self.plan.from_masks
            )
            while len(self._kept) > 1 and sum(map(_bytes, self._kept.values())) > self.cache_bytes:
                self._kept.popitem(last=False)
        self._kept.move_to_end(place)
        return self._kept[place]

    def _run(
        self,
        nodes: Sequence[Node],
        rows: int,
        inputs: Mapping[str, Tensor],
        source: Callable[[int, tuple[int, ...], torch.dtype], Tensor] | None,
        wanted: frozenset[str],
    ) -> Values:
        values = dict(self._static)
        for node in nodes:
            layout = self.layouts.of[node.name]
            if isinstance(layout, Size):
                values[node.name] = layout.at(rows)
                continue
            for name in node.references():
                needed = self.layouts.of[name]
                if isinstance(needed, Size):
                    values[name] = needed.at(rows)
            values[node.name] = step(node, values, inputs, self.weights, source, self.device)
        return {name: values[name] for name in wanted}


@dataclass
class _Fold:
    """One run of the suffix."""

    execution: Execution
    chunk: Chunk
    key: Key
    inputs: Mapping[str, Tensor]
    of_rows: Values
    of_samples: Values

    def run(self) -> Tensor:
        execution, chunk = self.execution, self.chunk
        source = execution.draws(chunk, self.key, per_row=True)
        values: Values = {}
        for position, node in enumerate(execution.plan.suffix):
            layout = execution.layouts.of[node.name]
            if isinstance(layout, Size):
                values[node.name] = layout.at(chunk.folded)
            elif node.op == "input":
                values[node.name] = self._repeated(self.inputs[str(node.args[0])], 0)
            elif node.op in _ARITHMETIC and self._broadcasts(node, values):
                values[node.name] = self._arithmetic(node, values)
            else:
                known = {name: self._value(name, values) for name in node.references()}
                values[node.name] = step(
                    node, known, {}, execution.weights, source, execution.device
                )
            for name in execution._dying.get(position, ()):
                values.pop(name, None)
        output = self._value(execution.program.outputs["output"], values)
        assert isinstance(output, Tensor)
        return output

    def _value(self, name: str, values: Values) -> Value:
        """A value in folded form."""
        if name in values:
            return values[name]
        layout = self.execution.layouts.of[name]
        if isinstance(layout, Size):
            return layout.at(self.chunk.folded)
        if name in self.of_rows:
            value = self.of_rows[name]
        elif name in self.of_samples:
            value = self.of_samples[name]
        else:
            return self.execution._static[name]
        assert isinstance(layout, Rows)
        if layout.axis is None:
            return value
        assert isinstance(value, Tensor)
        if name in self.of_rows:
            return self._repeated(value, layout.axis)
        return value.repeat_interleave(len(self.chunk.rows), dim=layout.axis)

    def _repeated(self, value: Tensor, axis: int) -> Tensor:
        times = len(self.chunk.samples)
        if times == 1:
            return value
        return value.repeat(*(times if at == axis else 1 for at in range(value.ndim)))

    def _broadcasts(self, node: Node, values: Values) -> bool:
        """Whether both operands hold rows on the same axis, and one is not folded yet."""
        layouts = [
            self.execution.layouts.of[part.name] for part in node.args if isinstance(part, Ref)
        ]
        first = layouts[0]
        return (
            len(layouts) == 2
            and not node.kwargs
            and isinstance(first, Rows)
            and first.axis is not None
            and all(
                isinstance(other, Rows)
                and (other.axis, other.ndim, other.per_row) == (first.axis, first.ndim, 1)
                for other in layouts
            )
            and any(isinstance(part, Ref) and part.name not in values for part in node.args)
        )

    def _arithmetic(self, node: Node, values: Values) -> Tensor:
        """The operator on axes (..., samples, rows, ...), where one operand lacks one of them."""
        layout = self.execution.layouts.of[node.name]
        assert isinstance(layout, Rows)
        assert layout.axis is not None
        axis, shape = layout.axis, (len(self.chunk.samples), len(self.chunk.rows))
        operands: list[object] = []
        for part in node.args:
            assert isinstance(part, Ref)
            if part.name in self.of_rows:
                operands.append(_tensor(self.of_rows[part.name]).unsqueeze(axis))
            elif part.name in self.of_samples:
                operands.append(_tensor(self.of_samples[part.name]).unsqueeze(axis + 1))
            else:
                operands.append(_unfolded(_tensor(self._value(part.name, values)), axis, shape))
        result = _tensor(resolve(node.op)(*operands))
        size = list(result.shape)
        size[axis : axis + 2] = shape
        return result.expand(size).flatten(axis, axis + 1)


def _unfolded(value: Tensor, axis: int, shape: tuple[int, int]) -> Tensor:
    """The folded axis as two: samples, rows."""
    return value.reshape(*value.shape[:axis], *shape, *value.shape[axis + 1 :])


def _placed(drawn: Tensor, site: Site, size: tuple[int, ...]) -> Tensor:
    """(samples, rows, ...) → the graph's size, rows slowest or fastest on their axis."""
    assert site.batch_dim is not None
    flat = drawn.flatten(0, 1)
    to = site.batch_dim if site.rows_outer else site.batch_dim + 1
    return flat.movedim(0, to).reshape(size)


def _last_reads(nodes: Sequence[Node], kept: set[str]) -> dict[int, list[str]]:
    last = {name: position for position, node in enumerate(nodes) for name in node.references()}
    dying: dict[int, list[str]] = {}
    for name, position in last.items():
        if name not in kept:
            dying.setdefault(position, []).append(name)
    return dying


def _bytes(values: Values) -> int:
    return sum(part.nbytes for part in values.values() if isinstance(part, Tensor))


def _tensor(value: object) -> Tensor:
    assert isinstance(value, Tensor)
    return value
