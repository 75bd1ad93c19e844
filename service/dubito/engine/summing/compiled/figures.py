"""What the sums of a classification say, on the host."""

from __future__ import annotations

from math import nan, prod

import numpy as np

from dubito.engine.calling.columns import Column, Columns, Sums
from dubito.engine.summing.blocks import factor_line
from dubito.engine.summing.compiled.figure_loops import ClassFigures, Of, write_figures
from dubito.engine.summing.compiled.tiles import Totals
from dubito.engine.summing.figures import Draws

_SPREAD = ("mean", "squares", "slope", "between")
BY_CLASS = ("mean", "variance", "standard_error", "vote_share")
"""Columns of a number for each class."""


def classification(sums: Sums, draws: Draws) -> Columns:
    """The columns of a classification, by their names in a reply.

    Args:
        sums: as `ClassificationSums` names them.
        draws: that they are of.
    """
    shape, count = sums["mean"].shape, draws.count
    numbers, distributions = prod(shape), prod(shape[:-1])
    none = np.zeros(numbers)
    totals = Totals(*[_of_all(sums.get(name, none)) for name in _SPREAD])
    votes, entropy, jackknife = (_of_all(sums[name]) for name in ("votes", "entropy", "jackknife"))
    answer = np.empty(4 * numbers + 6 * distributions)
    of = Of(
        count,
        nan if draws.left is None else draws.left,
        draws.blocks,
        factor_line(count),
        factor_line(draws.group_size),
    )
    write_figures(totals, votes, entropy, jackknife, of, answer)
    columns: Columns = {}
    for name in ClassFigures._fields:
        size = shape if name in BY_CLASS else shape[:-1]
        columns[name], answer = answer[: prod(size)].reshape(size), answer[prod(size) :]
    columns["energy"] = -sums["sizes"][:, 0]
    columns["energy_spread"] = np.sqrt(sums["size_squares"][:, 0] / count)
    columns["max_logit"] = sums["sizes"][:, 1]
    return columns


def _of_all(sums: Column) -> Column:
    """Sums of all distributions one after the other, as the loops are compiled for."""
    laid_out = sums if sums.flags.c_contiguous else np.ascontiguousarray(sums)
    return laid_out.reshape(-1)
