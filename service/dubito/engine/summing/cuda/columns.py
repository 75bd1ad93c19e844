"""Mean and spread of columns of numbers that stream, in one kernel a chunk.

Dimensions: T samples, N numbers of each.
"""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor

from dubito.engine.draws.strata import BLOCK
from dubito.engine.kernels.constants import constant
from dubito.engine.summing.blocks import normal_scores
from dubito.engine.summing.cuda.launching import launch
from dubito.engine.summing.cuda.spreads import sum_numbers
from dubito.engine.summing.cuda.tiles import Tiles, warps


class ColumnSums:
    """Mean and squares of columns, and what a stratified draw needs.

    Args:
        left: what a stratified draw leaves; None where nothing is wanted of its blocks.
        tiles: of a program.
    """

    def __init__(self, left: float | None, tiles: Tiles | None = None) -> None:
        self.count = 0
        self._left, self._tiles = left, tiles or Tiles()
        self._state: Tensor | None = None

    def add(self, numbers_TN: Tensor) -> None:
        """Take in the next samples, in order of t: whole blocks of 16, or the last.

        Args:
            numbers_TN: in float64.
        """
        samples, places = numbers_TN.shape
        has_blocks, numbers_TN = self._left is not None, numbers_TN.contiguous()
        state = numbers_TN.new_empty((4 if has_blocks else 2, places))
        past = state if self._state is None else self._state
        width, blocks = self._tiles.of_samples(samples, places)
        launch(
            sum_numbers, (-(-places // width),), numbers_TN,
            numbers_TN, past, state, scores(samples, numbers_TN), samples, self.count,
            sorted_blocks(samples, self.count), places, has_blocks, width, blocks,
            warps=warps(width * blocks),
        )  # fmt: skip
        self._state = state
        self.count += samples

    def sums(self, shape: tuple[int, ...]) -> dict[str, Tensor]:
        """Return the sums by name.

        Args:
            shape: of the columns.
        """
        assert self._state is not None
        return by_name(self._state, shape, self._left, self.count)

    def take(self, rows: Tensor, count: int) -> ColumnSums:
        """Return the sums of some rows.

        Args:
            rows: places among them.
            count: how many there are, each of as many columns after the other.
        """
        assert self._state is not None
        part = copy(self)
        part._state = rows_of(self._state, rows, count)
        return part


def rows_of(state: Tensor, rows: Tensor, count: int) -> Tensor:
    """Some rows of sums, whose numbers lie one after the other on the last axis.

    Args:
        state: (K, N).
        rows: places among them.
        count: how many there are.
    """
    taken = state.reshape(len(state), count, -1)[:, rows]
    return taken.reshape(len(state), taken.shape[1:].numel())


def by_name(
    state: Tensor, shape: tuple[int, ...], left: float | None, count: int
) -> dict[str, Tensor]:
    """The rows of a state as `Draws` reads them.

    Args:
        state: (2 or more, N) mean, squares, slope, between.
        shape: of one of them.
        left: what a stratified draw leaves; None for `iid`.
        count: samples so far.
    """
    names = ("mean", "squares", "slope", "between")
    known = 2 if left is None else 3 if count < 2 * BLOCK else 4
    return {name: row.reshape(shape) for name, row in zip(names[:known], state, strict=False)}


def scores(samples: int, like: Tensor) -> Tensor:
    """Normal scores of a block over their sum of squares, on the device of a tensor."""
    weights = tuple(map(float, normal_scores(min(samples, BLOCK))))
    return constant(weights, like.new_empty(0, dtype=torch.float32))


def sorted_blocks(samples: int, before: int) -> int:
    """Blocks of a chunk that are sorted: whole ones, or the only one."""
    return samples // BLOCK if samples >= BLOCK or before else 1
