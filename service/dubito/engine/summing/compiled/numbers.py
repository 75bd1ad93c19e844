"""The sums of a regression, in compiled loops.

Dimensions: T samples, B rows, D outputs, maybe after axes of positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from typing import ClassVar

import numpy as np
from torch import Tensor

from dubito.engine.calling.columns import Column
from dubito.engine.summing.blocks import normal_scores
from dubito.engine.summing.compiled.number_loops import sum_numbers
from dubito.engine.summing.compiled.spread import by_name, no_spread, rows_of
from dubito.engine.summing.compiled.threads import in_parts
from dubito.engine.summing.compiled.tiles import BLOCK, STRIP, Totals
from dubito.engine.summing.figures import Draws


class CompiledNumberSums:
    """What a regression reports is made of these.

    Args:
        parts: finds means, (T, B, ...), and what stands beside them, of some passes after others:
            whole blocks of 16, or the last.
        left: what a stratified draw leaves; None for `iid`.
    """

    enough: ClassVar[int] = 2**20
    """Numbers of passes, from which they are summed without waiting for more."""
    step: ClassVar[int] = BLOCK

    def __init__(
        self, parts: Callable[[Tensor], Iterator[tuple[Tensor, Tensor]]], left: float | None
    ) -> None:
        self.left = left
        self.count = 0
        self._parts = parts
        self._shape: tuple[int, ...] = ()
        self._spread: Totals | None = None
        self._beside: Column | None = None

    def add(self, raw: Tensor, *, is_last: bool) -> None:
        """Take in the next samples, in order of t: whole blocks of 16, or the last.

        Args:
            raw: declared outputs, (T, B, ...).
            is_last: no more will come.
        """
        for mean, beside in self._parts(raw):
            self._add(np.ascontiguousarray(mean.numpy()), beside.sum(0).numpy())

    def _add(self, mean: Column, beside: Column) -> None:
        assert self.count % BLOCK == 0
        samples, self._shape = len(mean), mean.shape[1:]
        numbers = mean.reshape(samples, -1)
        if self._spread is None:
            self._spread = no_spread(numbers.shape[1])
        spread, before, has_blocks = self._spread, self.count, self.left is not None
        weights, total = normal_scores(min(samples, BLOCK)), numbers.shape[1]

        def loop(strips: tuple[int, int]) -> None:
            part = (strips[0] * STRIP, min(strips[1] * STRIP, total))
            sum_numbers(numbers, before, has_blocks, weights, spread, part)

        in_parts(loop, -(-total // STRIP), numbers.size)
        self._beside = beside if self._beside is None else self._beside + beside
        self.count += samples

    def spread(self) -> dict[str, Column]:
        """Mean and variance of the outputs, by which rows stop early."""
        assert self._spread is not None
        return by_name(self._spread, self._shape, self.left, self.count)

    def sums(self) -> dict[str, Column]:
        """Return the sums by name, rows first."""
        assert self._beside is not None
        return self.spread() | {"beside": self._beside}

    def draws(self) -> Draws:
        """Return what the sums are of."""
        return Draws(self.count, self.left, self.count // BLOCK)

    def take(self, rows: Tensor) -> CompiledNumberSums:
        """Return the sums of some rows."""
        assert self._spread is not None
        assert self._beside is not None
        part, count, places = copy(self), self._shape[0], rows.numpy()
        part._shape = (len(rows), *self._shape[1:])
        part._spread = Totals(*(rows_of(sums, count, places) for sums in self._spread))
        part._beside = self._beside[places]
        return part
