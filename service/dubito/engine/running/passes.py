"""In which pieces T samples of B rows are run.

Its job: cut rows into blocks and a block's samples into chunks, so that a call keeps to its memory
budget and, on the CPU, a chunk to what lies near the cache. Where memory runs out all the same, a
chunk is cut in half and the run goes on.

    budget    a quarter each for masks, for gathered weights, for the prefix, for a chunk
    block     rows whose prefix is computed at once
    tile      rows of a block, and the samples of them that are folded at once
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from dubito.engine.calling.arguments import Check
from dubito.engine.calling.sampling import Key, Sampling
from dubito.engine.planning.layout import RowAxis
from dubito.engine.running.execution import Execution
from dubito.engine.running.fold import Form, Packs, Values, as_tensor
from dubito.engine.running.options import Option, in_use
from dubito.errors import InputError

CPU_CHUNK_BYTES = 16 * 2**20  # what a chunk may keep alive and still stay near the cache
_SUMMED_NUMBERS = 2**22  # of all passes of a tile, which are then summed at once
_USUAL_SAMPLES = 64
_UNBOUNDED = 2**62
_MAX_KNOWN = 1024  # sizes of calls that are remembered
BUDGET_PARTS = 4


@dataclass(frozen=True)
class Tile:
    """Some rows of a request, ready for any samples.

    Args:
        execution: the planned graph.
        inputs: of these rows, on the device.
        before: what the prefix made of them.
        rows: their places in the request.
        at_once: samples that are folded at once.
        key: of the draws.
        forms: in use.
        packs: gathered weights.
        check: called before every chunk; whatever it raises ends the passes.
    """

    execution: Execution
    inputs: Mapping[str, Tensor]
    before: Values
    rows: range
    at_once: int
    key: Key
    forms: tuple[Form, ...]
    packs: Packs
    check: Check | None

    def passes(self, samples: range) -> Iterator[Tensor]:
        """The raw outputs of some samples in chunks, each (T, B, ...), in order of t."""
        first, at_once = samples.start, self.at_once
        while first < samples.stop:
            if self.check is not None:
                self.check()
            chunk = range(first, min(first + at_once, samples.stop))
            try:
                raw = self.execution.run(
                    chunk, self.rows, self.inputs, self.before, self.key, self.forms, self.packs
                )
            except RuntimeError as error:
                if not is_out_of_memory(error) or at_once == 1:
                    raise
                at_once = max(1, at_once // 2)
                continue
            first = chunk.stop
            yield raw
            del raw  # else it would lie beside the next

    def cut(self, part: range) -> Tile:
        """Neighbouring rows, as views.

        Args:
            part: places among these rows.
        """
        within = slice(part.start, part.stop)
        return replace(
            self,
            inputs={name: tensor[within] for name, tensor in self.inputs.items()},
            before=self._before(lambda value, axis: value.narrow(axis, part.start, len(part))),
            rows=self.rows[within],
        )

    def take(self, places: Tensor) -> Tile:
        """Some of the rows, copied; for independent masks they must be neighbours.

        Args:
            places: among these rows, ascending, on the device.
        """
        start = self.rows.start + int(places[0])
        single = self.execution.plan.one_at_a_time
        return replace(
            self,
            inputs={name: tensor[places] for name, tensor in self.inputs.items()},
            before=self._before(lambda value, axis: value.index_select(axis, places)),
            rows=range(start, start + len(places)),
            at_once=1 if single else max(1, self.at_once * len(self.rows) // len(places)),
        )

    def _before(self, part: Callable[[Tensor, int], Tensor]) -> Values:
        """The prefix's values of some of the rows."""
        values = dict(self.before)
        for name, value in self.before.items():
            layout = self.execution.layouts.of[name]
            if isinstance(layout, RowAxis) and layout.axis is not None:
                values[name] = part(as_tensor(value), layout.axis)
        return values


@dataclass(frozen=True)
class _Pieces:
    """How calls of one size are cut.

    Args:
        forms: in use.
        tile_rows: of a tile.
        at_once: samples of a tile that are folded at once.
        block_rows: of a block.
    """

    forms: tuple[Form, ...]
    tile_rows: int
    at_once: int
    block_rows: int


@dataclass(frozen=True)
class Passes:
    """The pieces of one call.

    Args:
        execution: the planned graph.
        budget_bytes: of the whole engine.
        key: whose gathered weights are kept between calls.
        options: forms to choose from.
        forced: the forms to use, where they are not to be chosen.
        packs: gathered weights.
        chunk_share: of the usual chunk on a CPU, as found at load.
        first: place of a call's first row; masks that are not shared are keyed by places.
        sum_bytes: of the sums of one row, and of those without any spread; 0: not counted.
        is_lean: the latter are made.
    """

    execution: Execution
    budget_bytes: int
    key: Key | None = None
    options: Sequence[Option] = ()
    forced: tuple[Form, ...] | None = None
    packs: Packs = field(default_factory=partial(Packs, is_kept=True))
    chunk_share: float = 1.0
    first: int = 0
    sum_bytes: tuple[int, int] = (0, 0)
    is_lean: bool = False
    _known: dict[tuple[object, ...], _Pieces] = field(default_factory=dict, init=False, repr=False)

    def tiles(
        self,
        rows: Mapping[str, Tensor],
        sampling: Sampling,
        check: Check | None,
    ) -> Iterator[Tile]:
        """Some rows after the others, ready for any of their samples.

        Args:
            rows: by input name.
            sampling: T, seed and masks.
            check: called before every chunk; whatever it raises ends the passes.
        """
        total, key = next(iter(rows.values())).shape[0], sampling.key
        pieces = self._pieces(total, sampling)
        packs = self.packs if key == self.key else Packs()
        for block in _cut(total, pieces.block_rows):
            inputs = self._on_device(rows, block)
            whole = Tile(
                self.execution,
                inputs,
                self.execution.prefix(inputs),
                range(self.first + block.start, self.first + block.stop),
                pieces.at_once,
                key,
                pieces.forms,
                packs,
                check,
            )
            for part in _cut(len(block), pieces.tile_rows):
                yield whole if len(part) == len(block) else whole.cut(part)

    def is_repeatable(self, total: int, sampling: Sampling) -> bool:
        """Whether a call is one chunk that reads only its rows and what is kept between calls.

        Args:
            total: rows of the call.
            sampling: whose masks are shared.
        """
        if sampling.key != self.key or not self.execution.keeps(sampling.num_samples):
            return False
        pieces = self._pieces(total, sampling)
        return pieces.tile_rows >= total and pieces.at_once >= sampling.num_samples

    def held(self, sampling: Sampling) -> object:
        """What such a call reads beside its rows, once it has run."""
        return self, self.execution.masks_of(sampling.key), dict(self.packs)

    def rows(self, rows: Mapping[str, Tensor]) -> Iterator[Mapping[str, Tensor]]:
        """The rows on the device, as many at once as one pass of them may take.

        Args:
            rows: by input name.
        """
        total = len(next(iter(rows.values())))
        for block in _cut(total, min(self._folded_rows(), self.most_rows)):
            yield self._on_device(rows, block)

    @property
    def has_room(self) -> bool:
        """Whether the budget holds the sums of a row with all spreads."""
        return self.sum_bytes[0] <= self.budget_bytes // BUDGET_PARTS

    @cached_property
    def lean(self) -> Passes:
        """The same for calls of which no spread over the passes is wanted."""
        return replace(self, is_lean=True)

    @property
    def most_rows(self) -> int:
        """How many rows may be summed at once.

        Raises:
            InputError: the budget does not hold the sums of one.
        """
        limit, (full, lean) = self.budget_bytes // BUDGET_PARTS, self.sum_bytes
        row_bytes = lean if self.is_lean else full
        if row_bytes > limit:
            fewer = "" if lean > limit else ", ask for `outputs` without variances and errors"
            raise InputError(
                f"the memory budget expects the sums over the positions of one row, {row_bytes} "
                f"bytes, to fit {limit}: raise DUBITO_MEMORY_BUDGET_BYTES to {BUDGET_PARTS} times "
                f"that{fewer}, or predict smaller maps"
            )
        return limit // row_bytes if row_bytes else _UNBOUNDED

    def _on_device(self, rows: Mapping[str, Tensor], part: range) -> Mapping[str, Tensor]:
        device = self.execution.device
        return {name: tensor[part.start : part.stop].to(device) for name, tensor in rows.items()}

    def chosen(self, total: int, sampling: Sampling) -> tuple[Form, ...]:
        """The forms for calls of that size: the same for every tile of a call.

        A form that pays for many rows must find them in a tile, where it does its work.
        """
        if self.forced is not None:
            return self.forced
        forms = self._paying(total, sampling)
        rows, _ = self._tile(total, sampling, forms)
        return forms if rows == total else self._paying(rows, sampling)

    def _pieces(self, total: int, sampling: Sampling) -> _Pieces:
        """Forms and sizes for calls of a size, worked out at the first of them."""
        kind = total, sampling.num_samples, sampling.masks, sampling.key == self.key
        pieces = self._known.get(kind)
        if pieces is None:
            forms = self.chosen(total, sampling)
            tile_rows, at_once = self._tile(total, sampling, forms)
            pieces = _Pieces(forms, tile_rows, at_once, self._block_rows(tile_rows))
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[kind] = pieces
        return pieces

    def _paying(self, rows: int, sampling: Sampling) -> tuple[Form, ...]:
        return in_use(
            self.options,
            rows,
            sampling.num_samples,
            self.budget_bytes // BUDGET_PARTS,
            packed=sampling.key == self.key,
        )

    def _tile(self, total: int, sampling: Sampling, forms: tuple[Form, ...]) -> tuple[int, int]:
        """Rows of a tile, and the samples of them that are folded at once."""
        plan = self.execution.plan
        folded = self._folded_rows()
        most = min(total, folded, self.most_rows, self._summed_rows(sampling.num_samples))
        if any(form.wants_all_samples for form in forms):
            rows = max(1, folded // sampling.num_samples)
            return min(most, rows), min(sampling.num_samples, folded)
        if plan.one_at_a_time:
            return (1 if sampling.masks == "independent" else most), 1
        rows = math.ceil(total / math.ceil(total / most))  # tiles of about equal size
        at_once, group = max(1, folded // rows), max((form.group_size for form in forms), default=1)
        if group < at_once < sampling.num_samples:
            at_once -= at_once % group
        return rows, at_once

    def _summed_rows(self, num_samples: int) -> int:
        """How many rows of a tile are summed at once, on a processor.

        With many samples not ever fewer: sums over the first of them go on to the next.
        """
        if self.execution.device.type != "cpu":
            return self.most_rows
        samples = min(num_samples, _USUAL_SAMPLES)
        return max(1, _SUMMED_NUMBERS // (samples * self.execution.output_numbers))

    def _block_rows(self, tile: int) -> int:
        limit = self._near(self.budget_bytes // BUDGET_PARTS)
        return tile * max(1, limit // self.execution.plan.prefix_row_bytes // tile)

    def _near(self, limit: int) -> int:
        on_cpu = self.execution.device.type == "cpu"
        return min(limit, int(self.chunk_share * CPU_CHUNK_BYTES)) if on_cpu else limit

    def _folded_rows(self) -> int:
        """How many samples x rows a chunk may hold.

        Raises:
            InputError: where the budget does not hold one.
        """
        plan = self.execution.plan
        row_bytes = max(plan.prefix_row_bytes, plan.suffix_row_bytes)
        limit = self.budget_bytes // BUDGET_PARTS
        if row_bytes > limit:
            raise InputError(
                f"the memory budget of {self.budget_bytes} bytes expects a row of {row_bytes} bytes"
                f" to fit a quarter of it, which takes {BUDGET_PARTS * row_bytes}: raise"
                " memory_budget_bytes"
            )
        return max(1, self._near(limit) // plan.suffix_row_bytes)


def _cut(rows: int, at_once: int) -> Iterator[range]:
    """Yield ranges of neighbouring rows, so many at once."""
    for first in range(0, rows, at_once):
        yield range(first, min(first + at_once, rows))


def is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether an allocation failed: torch has a class for it on CUDA, a text on the CPU."""
    is_named = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return is_named or "can't allocate memory" in str(error)
