"""The sums of a regression, as kernels.

Dimensions: T samples, B rows, D outputs, maybe after axes of positions.
"""

from __future__ import annotations

from copy import copy
from typing import ClassVar

from torch import Tensor

from dubito.engine.draws.strata import BLOCK
from dubito.engine.summing.cuda.columns import ColumnSums
from dubito.engine.summing.cuda.tiles import Tiles
from dubito.engine.summing.figures import Draws
from dubito.engine.summing.statistics import Parts


class LaunchedNumberSums:
    """What a regression reports is made of these.

    Args:
        parts: finds means, (T, B, ...), and what stands beside them, of some passes after others:
            whole blocks of 16, or the last.
        left: what a stratified draw leaves; None for `iid`.
        tiles: of a program.
    """

    enough: ClassVar[int] = 2**22
    """Numbers of passes, from which they are summed without waiting for more."""
    step: ClassVar[int] = BLOCK

    def __init__(self, parts: Parts, left: float | None, tiles: Tiles | None = None) -> None:
        self.left = left
        self._parts = parts
        self._columns = ColumnSums(left, tiles)
        self._shape: tuple[int, ...] = ()
        self._beside: Tensor | None = None

    def add(self, raw: Tensor, *, is_last: bool) -> None:
        """Take in the next samples, in order of t: whole blocks of 16, or the last.

        Args:
            raw: declared outputs, (T, B, ...).
            is_last: no more will come.
        """
        for mean, beside in self._parts(raw):
            self._shape = tuple(mean.shape[1:])
            self._columns.add(mean.flatten(1))
            total = beside.sum(0)
            self._beside = total if self._beside is None else self._beside + total

    def spread(self) -> dict[str, Tensor]:
        """Mean and variance of the outputs, by which rows stop early."""
        return self._columns.sums(self._shape)

    def sums(self) -> dict[str, Tensor]:
        """Return the sums by name, rows first."""
        assert self._beside is not None
        return self.spread() | {"beside": self._beside}

    def draws(self) -> Draws:
        """Return what the sums are of."""
        count = self._columns.count
        return Draws(count, self.left, 0 if self.left is None else count // BLOCK)

    def take(self, rows: Tensor) -> LaunchedNumberSums:
        """Return the sums of some rows."""
        assert self._beside is not None
        part, count = copy(self), self._shape[0]
        part._columns = self._columns.take(rows, count)
        part._shape = (len(rows), *self._shape[1:])
        part._beside = self._beside[rows]
        return part
