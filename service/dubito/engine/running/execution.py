"""Run a plan: T samples of B rows in chunks, each folded into one axis (`fold.py`).

Its job: keep what is computed once (static values, masks), compute what is computed once per row
(the prefix), and set up the folds of the suffix.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from cachetools import LRUCache
from torch import Tensor

from dubito.engine.calling.sampling import Key, Masks
from dubito.engine.draws.masks import draw
from dubito.engine.kernels.lowered import Lowered, multiplied, widened
from dubito.engine.kernels.products import Compute, compute
from dubito.engine.planning.layout import Layouts, RowAxis, Size
from dubito.engine.planning.plan import Plan
from dubito.engine.running.fold import (
    Chunk,
    Fold,
    Form,
    Packs,
    Steps,
    Values,
    as_tensor,
    steps_with,
)
from dubito_nn import Program, Site
from dubito_nn.program import Node, SiteSource

_PIECE_BYTES = 16 * 2**20  # of masks made at once: making them takes a few times their memory


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
        compute: makes the value of a node.
    """

    program: Program
    sites: Sequence[Site]
    weights: Mapping[str, Tensor]
    layouts: Layouts
    plan: Plan
    device: torch.device
    masks: Masks
    cache_bytes: int
    compute: Compute = compute
    static: Values = field(default_factory=dict)
    _masks: LRUCache[Key, _KeyMasks] = field(init=False)
    _steps: dict[tuple[Form, ...], Steps] = field(default_factory=dict)
    _last_uses: dict[frozenset[str], Mapping[int, list[str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._masks = LRUCache(self.cache_bytes, getsizeof=lambda masks: masks.bytes)
        wanted = frozenset(node.name for node in self.plan.static)
        self.static = self._run(self.plan.static, 1, {}, None, wanted)
        if self.is_lowered:
            self.static = multiplied(self.program.nodes, self.static)

    @property
    def is_lowered(self) -> bool:
        """Whether products are in bfloat16."""
        return isinstance(self.compute, Lowered)

    def prefix(self, inputs: Mapping[str, Tensor]) -> Values:
        """What the suffix needs of the rows alone.

        Args:
            inputs: by name, rows first, on the device.
        """
        rows = next(iter(inputs.values())).shape[0]
        return self._run(self.plan.prefix, rows, inputs, None, self.plan.from_prefix)

    def run(
        self,
        samples: range,
        rows: range,
        inputs: Mapping[str, Tensor],
        before: Values,
        key: Key,
        forms: tuple[Form, ...] = (),
        packs: Packs | None = None,
    ) -> Tensor:
        """The declared output of some samples of some rows.

        Args:
            samples: indices t.
            rows: places of the rows in their request.
            inputs: of those rows.
            before: what `prefix` returned for those rows.
            key: of the draws.
            forms: that take the place of nodes.
            packs: weights gathered for that key so far.

        Returns:
            Shape (samples, rows, ...).
        """
        fold = Fold(
            chunk=Chunk(samples, rows),
            layouts=self.layouts.of,
            weights=self.weights,
            device=self.device,
            source=self.draws(samples, rows, key, per_row=True),
            inputs=inputs,
            static=self.static,
            of_rows=before,
            of_samples=self.of_samples(samples, key),
            packs=Packs() if packs is None else packs,
            compute=self.compute,
        )
        folded = fold.run(self._steps_with(forms))
        if self.is_lowered:
            folded = widened(folded)
        layout = self.layouts.of[self.program.outputs["output"]]
        assert isinstance(layout, RowAxis)
        assert layout.axis == 0
        return folded.reshape(len(samples), len(rows), *folded.shape[1:])

    def draws(self, samples: range, rows: range, key: Key, *, per_row: bool) -> SiteSource:
        """A source of draws for samples of rows, in the folded size that the graph asks for."""

        def source(index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            site = self.sites[index]
            row_size = list(size)
            if site.batch_dim is not None:
                row_size[site.batch_dim] //= len(samples) * len(rows)
            masks: Masks = self.masks if per_row else "shared"
            drawn = draw(
                site,
                key.seed,
                samples,
                tuple(row_size),
                masks=masks,
                rows=rows,
                kind=key.draw,
                dtype=dtype,
            ).to(self.device)
            if site.batch_dim is None:
                return drawn.reshape(size)
            if masks == "shared":
                drawn = drawn.unsqueeze(1).expand(-1, len(rows), *row_size)
            return _placed(drawn, site, size)

        return source

    def of_samples(self, samples: range, key: Key) -> Values:
        """What the suffix needs of the samples alone; kept for the next request where it fits."""
        if not self.plan.masks:
            return {}
        if not self.keeps(samples.stop):
            return self._drawn(samples, key)
        masks = self._masks.get(key)
        if masks is None or masks.count < samples.stop:
            masks = self._masks.pop(key, None) or _KeyMasks()
            at_once = max(1, _PIECE_BYTES // max(1, self._sample_bytes))
            for first in range(masks.count, samples.stop, at_once):
                piece = range(first, min(first + at_once, samples.stop))
                masks.add(self._drawn(piece, key), piece, self.layouts)
            self._masks[key] = masks  # anew, as its size has grown
        return masks.of(samples, self.layouts)

    def keeps(self, num_samples: int) -> bool:
        """Whether what so many samples need of their masks is kept for the next request."""
        return not self.plan.one_at_a_time and num_samples * self._sample_bytes <= self.cache_bytes

    def masks_of(self, key: Key) -> Values:
        """Return what is kept of the masks of that key at the moment."""
        return dict(self._masks[key].values) if key in self._masks else {}

    @cached_property
    def output_numbers(self) -> int:
        """Numbers of the declared output of one pass of one row."""
        return max(1, math.prod(self.layouts.shape[self.program.outputs["output"]][1:]))

    @cached_property
    def crossing(self) -> tuple[str, int] | None:
        """The last value with something learnt that the suffix reads, and the axis of its rows."""
        learnt = set[str]()
        for node in self.program.nodes:
            of = self.layouts.of
            reads = [name for name in node.references() if not isinstance(of[name], Size)]
            if node.op == "weight" or any(name in learnt for name in reads):
                learnt.add(node.name)
        for node in reversed(self.program.nodes):
            layout = self.layouts.of[node.name]
            if node.name in self.plan.from_prefix & learnt and isinstance(layout, RowAxis):
                assert layout.axis is not None
                return node.name, layout.axis
        return None

    @cached_property
    def _sample_bytes(self) -> int:
        return sum(self.layouts.row_bytes[name] for name in self.plan.from_masks)

    @cached_property
    def _sizes(self) -> dict[str, tuple[tuple[str, Size], ...]]:
        """Sizes that a node reads, by its name."""
        return {
            node.name: tuple(
                (name, size)
                for name in node.references()
                if isinstance(size := self.layouts.of[name], Size)
            )
            for node in self.program.nodes
        }

    def _drawn(self, samples: range, key: Key) -> Values:
        source = self.draws(samples, range(1), key, per_row=False)
        return self._run(self.plan.masks, len(samples), {}, source, self.plan.from_masks)

    def _steps_with(self, forms: tuple[Form, ...]) -> Steps:
        if forms not in self._steps:
            self._steps[forms] = steps_with(self.plan.suffix, forms, self.program.outputs["output"])
        return self._steps[forms]

    def _run(
        self,
        nodes: Sequence[Node],
        rows: int,
        inputs: Mapping[str, Tensor],
        source: SiteSource | None,
        wanted: frozenset[str],
    ) -> Values:
        values, dying = dict(self.static), self._dying(nodes, wanted)
        for position, node in enumerate(nodes):
            layout = self.layouts.of[node.name]
            if isinstance(layout, Size):
                values[node.name] = layout.at(rows)
                continue
            for name, size in self._sizes[node.name]:
                values[name] = size.at(rows)
            values[node.name] = self.compute(
                node, values, inputs, self.weights, source, self.device
            )
            for name in dying.get(position, ()):
                del values[name]
        return {name: values[name] for name in wanted}

    def _dying(self, nodes: Sequence[Node], wanted: frozenset[str]) -> Mapping[int, list[str]]:
        """Names of the values that a part no longer needs, by the position of their last reader."""
        if wanted not in self._last_uses:
            made = {node.name for node in nodes}
            last = Program(tuple(nodes), {name: name for name in wanted}).last_uses
            self._last_uses[wanted] = {
                position: [name for name in names if name in made]
                for position, names in last.items()
            }
        return self._last_uses[wanted]


@dataclass
class _KeyMasks:
    """The masks of the first samples of a key."""

    count: int = 0
    values: Values = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(part.nbytes for part in self.values.values() if isinstance(part, Tensor))

    def add(self, values: Values, samples: range, layouts: Layouts) -> None:
        assert samples.start == self.count
        for name, value in values.items():
            before = [self.values[name]] if self.count else []
            parts = [as_tensor(part) for part in (*before, value)]
            self.values[name] = torch.cat(parts, dim=_axis(layouts, name))
        self.count = samples.stop

    def of(self, samples: range, layouts: Layouts) -> Values:
        return {
            name: as_tensor(value).narrow(_axis(layouts, name), samples.start, len(samples))
            for name, value in self.values.items()
        }


def _axis(layouts: Layouts, name: str) -> int:
    layout = layouts.of[name]
    assert isinstance(layout, RowAxis)
    assert layout.axis is not None
    return layout.axis


def _placed(drawn: Tensor, site: Site, size: tuple[int, ...]) -> Tensor:
    """(samples, rows, ...) → the graph's size, rows slowest or fastest on their axis."""
    assert site.batch_dim is not None
    flat = drawn.flatten(0, 1)
    to = site.batch_dim if site.rows_outer else site.batch_dim + 1
    return flat.movedim(0, to).reshape(size)
