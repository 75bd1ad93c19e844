"""What the sums of a classification say, on the host."""

from __future__ import annotations

from math import nan, prod

import numpy as np

from dubito.engine.calling.columns import Column, Columns, Sums
from dubito.engine.summing.blocks import factor_line
from dubito.engine.summing.compiled.figure_loops import ClassFigures, Of, write_figures
from dubito.engine.summing.compiled.tiles import Totals
from dubito.engine.summing.figures import Draws


def classification(sums: Sums, draws: Draws) -> Columns:
    """The columns of a classification, by their names in a reply.

    Args:
        sums: as `ClassificationSums` names them.
        draws: that they are of.
    """
    shape, count = sums["mean"].shape, draws.count
    flat = (prod(shape[:-1]), shape[-1])
    none = np.zeros(flat)

    def of_all(name: str, shape: tuple[int, ...] = flat) -> Column:
        return np.ascontiguousarray(sums.get(name, none)).reshape(shape)

    spread = Totals(*map(of_all, ("mean", "squares", "slope", "between")))
    figures = ClassFigures(
        *(np.empty(flat) for _ in range(4)), *(np.empty(flat[0]) for _ in range(5))
    )
    of = Of(
        count,
        nan if draws.left is None else draws.left,
        draws.blocks,
        factor_line(count),
        factor_line(draws.group_size),
    )
    write_figures(
        spread,
        of_all("votes"),
        of_all("entropy", flat[:1]),
        of_all("jackknife", flat[:1]),
        of,
        figures,
    )
    columns = {
        name: column.reshape(shape if column.ndim > 1 else shape[:-1])
        for name, column in figures._asdict().items()
    }
    return {
        **columns,
        "energy": -sums["sizes"][:, 0],
        "energy_spread": np.sqrt(sums["size_squares"][:, 0] / count),
        "max_logit": sums["sizes"][:, 1],
    }
