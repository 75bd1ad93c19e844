"""The figures of rows with numbers at every position: of positions, with the rows resampled.

Positions of one row depend on each other, so a resample draws rows, each with all its positions.

Dimensions: T samples, B rows, P positions, N measured positions of all rows, D outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dubito.report.crps import mixture_crps
from dubito.report.curves import Curves, left_out_curves, mixture_curves
from dubito.report.likelihood import mixture_nll
from dubito.report.positions import ratio_of, summed
from dubito.report.rejection import ause
from dubito.report.statistics import (
    Check,
    Floats,
    Statistic,
    Statistics,
    mean_of,
    no_check,
)

MOST_CELLS = 2**16
"""Positions that CRPS and the curves of the mixture are made of, at most: they take T² or T·50."""


@dataclass(frozen=True, eq=False)
class MeasuredPositions:
    """All measured positions of some rows, row by row.

    Args:
        mean: (T, N, D) means of the passes.
        variance: (T, N, D) their calibrated variances, or (1, 1, D) where all have the same.
        target: (N, D) what was measured.
        row: (N,) its row, from 0.
        num_rows: B.
    """

    mean: Floats
    variance: Floats
    target: Floats
    row: NDArray[np.int64]
    num_rows: int

    @classmethod
    def of(cls, mean_TBPD: Floats, variance_TBPD: Floats, target_BPD: Floats) -> Self:
        """The positions that have a target: not NaN."""
        row_N, position_N = np.nonzero(np.isfinite(target_BPD).all(axis=-1))
        is_common = variance_TBPD.shape[:2] == (1, 1)
        variance = variance_TBPD if is_common else variance_TBPD[:, row_N, position_N]
        mean_TND, target_ND = mean_TBPD[:, row_N, position_N], target_BPD[row_N, position_N]
        return cls(mean_TND, variance, target_ND, row_N, len(target_BPD))

    def some(self) -> Self:
        """At most `MOST_CELLS` of them, drawn from all alike; the same every time."""
        count = len(self.row)
        if count <= MOST_CELLS:
            return self
        drawn = np.random.Generator(np.random.Philox(0)).permutation(count)[:MOST_CELLS]
        at = np.sort(drawn)
        variance = self.variance if self.variance.shape[1] == 1 else self.variance[:, at]
        return type(self)(self.mean[:, at], variance, self.target[at], self.row[at], self.num_rows)

    @property
    def error(self) -> Floats:
        """Of the mean over the passes, (N, D)."""
        error_ND: Floats = self.mean.mean(axis=0) - self.target
        return error_ND

    @property
    def count(self) -> Floats:
        """Measured positions of each row."""
        return summed(self.row, np.ones(len(self.row)), self.num_rows)

    def row_error(self) -> Floats:
        """Root of the mean square over the positions of each row, (B, D)."""
        square_DN = (self.error**2).T
        square_DB = [summed(self.row, of_output, self.num_rows) for of_output in square_DN]
        error_BD: Floats = np.sqrt(np.stack(square_DB, axis=-1) / self.count[:, None])
        return error_BD

    def mean_of(self, value_ND: NDArray[np.generic]) -> Statistic:
        """The mean of one number per position and output."""
        sum_B = summed(self.row, value_ND.mean(axis=-1), self.num_rows)
        return ratio_of(sum_B, self.count)


def number_position_statistics(
    rows: MeasuredPositions,
    variance_BD: Floats,
    ends: tuple[Floats, Floats] | None,
    is_covered_BD: NDArray[np.bool_] | None,
    check: Check = no_check,
) -> Statistics:
    """RMSE, NLL and CRPS of positions, AUSE of rows; coverage of both, and width of intervals.

    rmse, nll and crps are those of `regression_statistics` over all measured positions, crps over
    at most 65,536 of them; ause orders rows by their variance against the root of their mean square
    error.

    Args:
        rows: their measured positions.
        variance_BD: of the rows, as they are served.
        ends: lower and upper ends at the measured positions, (N, D); None before a calibration.
        is_covered_BD: rows and outputs for which the promise of the intervals is kept.
        check: called now and then; whatever it raises ends the work.
    """
    square, nll, some = rows.mean_of(rows.error**2), None, rows.some()
    if (rows.variance > 0).all():
        nll = rows.mean_of(mixture_nll(rows.mean, rows.variance, rows.target, check))
    check()

    statistics: dict[str, Statistic | None] = {
        "rmse": Statistic(lambda counts: np.sqrt(square.value(counts))),
        "nll": nll,
        "crps": some.mean_of(mixture_crps(some.mean, some.variance, some.target, check)),
        "ause": ause(variance_BD, rows.row_error()),
    }
    if ends is None or is_covered_BD is None:
        return statistics | dict.fromkeys(
            ("interval_coverage", "position_coverage", "interval_width")
        )
    is_inside_ND = (ends[0] <= rows.target) & (rows.target <= ends[1])
    return statistics | {
        "interval_coverage": mean_of(is_covered_BD.mean(axis=-1)),
        "position_coverage": rows.mean_of(is_inside_ND),
        "interval_width": rows.mean_of(ends[1] - ends[0]),
    }


def number_position_curves(rows: MeasuredPositions, variance_BD: Floats) -> Curves:
    """The curves: of the mixture at positions, and the error of rows by their variance."""
    some = rows.some()
    curves = mixture_curves(some.mean, some.variance, some.target)
    return left_out_curves(curves, variance_BD, rows.row_error())
