"""Mean and variance of any numbers, as the loops keep them, on their way in and out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dubito.engine.calling.columns import Column
from dubito.engine.summing.compiled.tiles import BLOCK, Totals


def no_spread(numbers: int) -> Totals:
    """Sums of no samples."""
    return Totals(*(np.zeros(numbers) for _ in range(4)))


def by_name(
    spread: Totals, shape: tuple[int, ...], left: float | None, count: int
) -> dict[str, Column]:
    """The sums as `Draws` reads them, rows first.

    Args:
        spread: of all numbers, one after the other.
        shape: rows, and what there is of each.
        left: what a stratified draw leaves; None for `iid`.
        count: samples so far.
    """
    sums = {"mean": spread.mean, "squares": spread.squares}
    if left is not None:
        sums["slope"] = spread.slope
        if count >= 2 * BLOCK:
            sums["between"] = spread.between
    return {name: numbers.reshape(shape) for name, numbers in sums.items()}


def rows_of(sums: Column, count: int, places: NDArray[np.int64]) -> Column:
    """Sums of some rows, one after the other.

    Args:
        sums: of all rows, one after the other.
        count: how many rows those are.
        places: among them.
    """
    taken: Column = sums.reshape(count, -1)[places].reshape(-1)
    return taken
