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


def classification(sums: Sums, draws: Draws) -> Columns:
    """The columns of a classification, by their names in a reply.

    Args:
        sums: as `ClassificationSums` names them.
        draws: that they are of.
    """
    shape, count = sums["mean"].shape, draws.count
    flat = (prod(shape[:-1]), shape[-1])
    none = np.zeros(flat)
    totals = Totals(*[_of_all(sums.get(name, none), flat) for name in _SPREAD])
    votes, entropy = _of_all(sums["votes"], flat), _of_all(sums["entropy"], flat[:1])
    jackknife = _of_all(sums["jackknife"], flat[:1])
    figures = ClassFigures(
        *[np.empty(flat) for _ in range(4)], *[np.empty(flat[0]) for _ in range(6)]
    )
    of = Of(
        count,
        nan if draws.left is None else draws.left,
        draws.blocks,
        factor_line(count),
        factor_line(draws.group_size),
    )
    write_figures(totals, votes, entropy, jackknife, of, figures)
    columns: Columns = {
        name: column.reshape(shape if column.ndim > 1 else shape[:-1])
        for name, column in zip(ClassFigures._fields, figures, strict=True)
    }
    columns["energy"] = -sums["sizes"][:, 0]
    columns["energy_spread"] = np.sqrt(sums["size_squares"][:, 0] / count)
    columns["max_logit"] = sums["sizes"][:, 1]
    return columns


def _of_all(sums: Column, shape: tuple[int, ...]) -> Column:
    """Sums of all distributions one after the other, as the loops are compiled for."""
    laid_out = sums if sums.flags.c_contiguous else np.ascontiguousarray(sums)
    return laid_out.reshape(shape)
