"""Rows on their way through the passes, until T or until their standard error is small enough.

Its job: run chunks of passes, hand them to the sums, and with a `tolerance` look at every row now
and then: a row whose standard error is at most the tolerance, over all its outputs, is answered and
leaves the batch.

    looks at T = 32, 48, 64, 96, 128, 192, 256, ...      all multiples of 16

Not before 32, where a stratified draw has two blocks to compare, nor, with a tolerance of
probabilities, before 0.3 / tolerance (of .003: before 128). The rare passes that such a tolerance
hangs on have hardly come by then, so that, of rows that need many more, just those would stop that
have met none. Not where the row's samples are still all equal: a spread of 0 says nothing yet. A
row's figures are made of its own samples, so who else is in the batch does not decide when it
stops.

Dimensions: T samples, B rows, C classes, D outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from math import inf
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubito.engine.calling.columns import Column, Columns, Figures, Sums
from dubito.engine.heads.heads import few_parts, parts_of
from dubito.engine.heads.positions import AnySums, empty_sums
from dubito.engine.heads.scaling import Scaling
from dubito.engine.running.passes import Tile
from dubito.engine.summing.arrays import is_small
from dubito.engine.summing.figures import QUIET, Draws, classification, regression
from dubito.engine.summing.sheet import Sheet, on_host, tensors
from dubito_nn import Manifest

Places: TypeAlias = NDArray[np.intp]
SAMPLES = ("samples", "noise_samples")  # columns whose first axis is T
_FIRST_LOOK = 32
_LEAST_PRODUCT = 0.3  # of passes and tolerance at a look
_ENOUGH = 2**16  # numbers of passes, from which they are summed without waiting for more


@dataclass
class Waiting:
    """Passes that are not summed yet, copied together.

    One by one they would lie scattered between what a chunk takes and frees, and hold its memory.
    """

    _held: Tensor = field(default_factory=partial(torch.empty, 0))
    _count: int = 0

    def add(self, raw: Tensor) -> None:
        """One chunk more."""
        before, after = self._count, self._count + raw.shape[0]
        if not before:
            is_part = raw.untyped_storage().nbytes() > raw.nbytes  # of a chunk's larger value
            self._held = raw.clone() if is_part else raw
        else:
            if after > self._held.shape[0]:
                grown = raw.new_empty((max(after, 2 * before), *raw.shape[1:]))
                grown[:before] = self._held[:before]
                self._held = grown
            self._held[before:after] = raw
        self._count = after

    @property
    def size(self) -> int:
        """How many numbers."""
        return self._held[: self._count].numel()

    def taken_out(self) -> Tensor:
        """All of them; none is left."""
        raw = self._held[: self._count]
        self._held, self._count = torch.empty(0), 0
        return raw


@dataclass
class Tally:
    """What the passes of some rows say.

    Args:
        manifest: what the outputs are.
        temperature: on each pass's logits; classification only.
        left: what a stratified draw leaves; None for `iid`.
        keeps_samples: keep every pass as well.
    """

    manifest: Manifest
    temperature: Scaling = 1.0
    left: float | None = None
    keeps_samples: bool = False
    _sums: AnySums = field(init=False)
    _waiting: Waiting = field(default_factory=Waiting)
    _in_numpy: bool | None = None
    _kept: dict[str, list[Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._sums = empty_sums(self.manifest, self.left)

    def add(self, raw: Tensor) -> None:
        """Take in the next passes, in order of t."""
        self._waiting.add(raw)
        if self._waiting.size >= _ENOUGH:
            self._take_in()

    @property
    def sums(self) -> AnySums:
        """Of all passes so far."""
        if self._waiting.size:
            self._take_in()
        return self._sums

    @QUIET
    def _take_in(self) -> None:
        """Sum what waits: together, since many small operators cost more than a few."""
        raw = self._waiting.taken_out()
        if self._in_numpy is None:
            self._in_numpy = is_small(raw)
        read = few_parts if self._in_numpy else parts_of
        for parts in read(raw, self.manifest, self.temperature):
            self._sums.add(*parts)
            self._keep(parts)

    def _keep(self, parts: Sequence[Tensor] | Sequence[Column]) -> None:
        if self.keeps_samples:
            names = SAMPLES[:1] if self.manifest.family == "classification" else SAMPLES
            for name, part in zip(names, parts, strict=False):
                self._kept.setdefault(name, []).append(torch.as_tensor(part))

    @QUIET
    def columns(self) -> Columns:
        """Every column, by its name in a prediction."""
        found = self.figures(on_host(self.sums.sums()))
        for name, chunks in self._kept.items():
            found[name] = torch.cat(chunks).cpu().numpy()
        return found

    def sheet(self) -> Sheet:
        """The sums in one tensor, on their device."""
        return Sheet.of(tensors(self.sums.sums()))

    @property
    def figures(self) -> Figures:
        """What turns its sums, on the host, into columns; it holds none of them."""
        make = classification if self.manifest.family == "classification" else regression
        return partial(_with_count, make, self.sums.draws())

    @QUIET
    def is_within(self, tolerance: float) -> NDArray[np.bool_]:
        """Whether a row varies, and the standard error of none of its outputs is above; (B,)."""
        spread = self.sums.spread
        return spread.draws().is_within(on_host(spread.sums()), tolerance)

    def take(self, rows: Tensor) -> Tally:
        """The same of some rows; samples are not kept."""
        part = Tally(self.manifest, self.temperature, self.left)
        part._sums, part._in_numpy = self.sums.take(rows), self._in_numpy
        return part


def _with_count(make: Callable[[Sums, Draws], Columns], draws: Draws, sums: Sums) -> Columns:
    found = make(sums, draws)
    return found | {"num_samples_used": np.full(len(found["mean"]), float(draws.count))}


def joined(parts: Sequence[Columns]) -> Columns:
    """The columns of all rows."""
    if len(parts) == 1:
        return parts[0]
    return {
        key: np.concatenate([part[key] for part in parts], axis=1 if key in SAMPLES else 0)
        for key in parts[0]
    }


def looks(num_samples: int, tolerance: float = inf) -> Iterator[int]:
    """How many samples there are at every look, the last time all of them.

    Args:
        num_samples: T, the most.
        tolerance: of probabilities.
    """
    for doubling in count():
        for number in (_FIRST_LOOK << doubling, (_FIRST_LOOK << doubling) * 3 // 2):
            if number >= num_samples:
                yield num_samples
                return
            if number * tolerance >= _LEAST_PRODUCT:
                yield number


def until(tile: Tile, tally: Tally, num_samples: int, tolerance: float) -> Columns:
    """The columns of rows that each take as many samples as they need.

    Args:
        tile: the rows.
        tally: empty.
        num_samples: T, the most.
        tolerance: bounds the standard error of every output.
    """
    answered: list[tuple[Places, Columns]] = []
    going = [(tile, tally, np.arange(len(tile.rows)))]
    start, of_probabilities = 0, tally.manifest.family == "classification"
    for stop in looks(num_samples, tolerance if of_probabilities else inf):
        still = []
        for part, sums, places in going:
            for raw in part.passes(range(start, stop)):
                sums.add(raw)
            done = sums.is_within(tolerance) | (stop == num_samples)
            if done.any():
                own = _on(part, np.flatnonzero(done))
                answered.append((places[done], sums.take(own).columns()))
            for kept in _runs(np.flatnonzero(~done), tile.execution.masks):
                own = _on(part, kept)
                rest = part if len(kept) == len(done) else part.take(own)
                still.append((rest, sums.take(own), places[kept]))
        going, start = still, stop
    order = np.concatenate([places for places, _ in answered]).argsort()
    return {name: column[order] for name, column in joined([one for _, one in answered]).items()}


def _on(tile: Tile, places: Places) -> Tensor:
    return torch.from_numpy(places).to(tile.execution.device)


def _runs(places: Places, masks: str) -> list[Places]:
    """All places, or where masks hang on the place in the request, each run of neighbours."""
    if masks == "shared" or not len(places):
        return [places] if len(places) else []
    return np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
