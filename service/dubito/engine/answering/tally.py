"""What the passes of some rows say, while they come.

Its job: keep passes until there are enough to sum at once, hand their parts to the head's sums, and
make columns of these.

Dimensions: T samples, B rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubito.engine.calling.columns import Columns, Figures, Sums, left_out
from dubito.engine.heads.head import OutputHead
from dubito.engine.heads.scaling import Scaling
from dubito.engine.summing.figures import Draws
from dubito.engine.summing.sheet import Sheet, on_host, tensors
from dubito.engine.summing.statistics import RunningSums

_FEW = 2**16  # numbers of passes, below which no sums are made before all have come


_NOTHING = torch.empty(0)


@dataclass
class Waiting:
    """Passes that are not summed yet, copied together.

    One by one they would lie scattered between what a chunk takes and frees, and hold its memory.
    """

    _held: Tensor = _NOTHING
    _count: int = 0

    def add(self, raw: Tensor) -> None:
        """Take in one more chunk."""
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
        """How many numbers wait."""
        return self._held[: self._count].numel()

    @property
    def count(self) -> int:
        """How many passes wait."""
        return self._count

    @property
    def all(self) -> Tensor:
        """The passes that wait."""
        return self._held[: self._count]

    def taken_out(self, count: int) -> Tensor:
        """Return the first of the passes that wait."""
        raw, rest = self._held[:count], self._held[count : self._count]
        self._held, self._count = rest.clone() if len(rest) else _NOTHING, len(rest)
        return raw


@dataclass
class Tally:
    """What the passes of some rows say.

    Args:
        head: what the outputs mean.
        scaling: of each pass's logits; classes only.
        left: what a stratified draw leaves; None for `iid`.
        keeps_samples: keep every pass as well.
        is_lean: make the columns alone that need no spread over the passes.
    """

    head: OutputHead
    scaling: Scaling = 1.0
    left: float | None = None
    keeps_samples: bool = False
    is_lean: bool = False
    _sums: RunningSums | None = None
    _has_summed: bool = False
    _waiting: Waiting = field(default_factory=Waiting)
    _samples: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, raw: Tensor) -> None:
        """Take in the next passes, in order of t."""
        self._waiting.add(raw)
        if self._sums is None:
            if self._waiting.size < _FEW:
                return
            self._sums = self._no_sums(raw.device)
        whole = self._waiting.count // self._sums.step * self._sums.step
        if whole and self._waiting.size >= self._sums.enough:
            self._take_in(whole, is_last=False)

    @property
    def sums(self) -> RunningSums:
        """The sums of all passes, after which no more come."""
        if self._waiting.count:
            self._take_in(self._waiting.count, is_last=True)
        assert self._sums is not None
        return self._sums

    def _no_sums(self, device: torch.device) -> RunningSums:
        if self.is_lean:
            return self.head.lean_sums(self.scaling, device)
        return self.head.sums(self.left, self.scaling, device)

    def _take_in(self, count: int, *, is_last: bool) -> None:
        """Sum what waits: together, since many small operators cost more than a few."""
        raw = self._waiting.taken_out(count)
        if self._sums is None:
            self._sums = self._no_sums(raw.device)
        self._has_summed = True
        self._sums.add(raw, is_last=is_last)
        if self.keeps_samples:
            for parts in self.head.parts(raw, self.scaling):
                for name, part in zip(self.head.sample_names, parts, strict=False):
                    self._samples.setdefault(name, []).append(part)

    def columns(self) -> Columns:
        """Every column, by its name in a prediction."""
        columns = self._at_once() or self.figures(on_host(self.sums.sums()))
        if self.is_lean:
            left = self.head.spread_columns.items()
            columns |= {name: left_out(columns[like].shape) for name, like in left}
        for name, chunks in self._samples.items():
            columns[name] = torch.cat(chunks).cpu().numpy()
        return columns

    def _at_once(self) -> Columns | None:
        """The columns of passes of which none is summed yet, where they are few."""
        if self.keeps_samples or self._has_summed or not self._waiting.count:
            return None
        raw = self._waiting.all
        left = None if self.is_lean else self.left
        columns = self.head.columns_at_once(raw, left, self.scaling, is_lean=self.is_lean)
        if columns is None:
            return None
        columns["num_samples_used"] = np.full(raw.shape[1], float(raw.shape[0]))
        return columns

    def sheet(self) -> Sheet:
        """The sums in one tensor, on their device."""
        return Sheet.of(tensors(self.sums.sums()))

    @property
    def figures(self) -> Figures:
        """What turns its sums, on the host, into columns; it holds none of them."""
        return partial(_with_count, self.head.figures, self.sums.draws())

    def is_within(self, tolerance: float) -> NDArray[np.bool_]:
        """Whether a row varies, and the standard error of none of its outputs is above; (B,).

        Of passes so far, of which there are whole blocks of 16, or all.
        """
        if self._waiting.count:
            self._take_in(self._waiting.count, is_last=False)
        assert self._sums is not None
        return self._sums.draws().is_within(on_host(self._sums.spread()), tolerance)

    def take(self, rows: Tensor) -> Tally:
        """Return the tally of some rows, without the samples."""
        part = Tally(self.head, self.scaling, self.left)
        part._sums, part._has_summed = self.sums.take(rows), True
        return part


def _with_count(make: Callable[[Sums, Draws], Columns], draws: Draws, sums: Sums) -> Columns:
    columns = make(sums, draws)
    used_B = np.full(len(columns["mean"]), float(draws.count))
    return columns | {"num_samples_used": used_B}
