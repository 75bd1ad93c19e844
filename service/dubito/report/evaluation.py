"""A report with its intervals and curves.

Dimensions: B rows, N out-of-distribution rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dubito.report.curves import Curves
from dubito.report.reliability import ReliabilityBin
from dubito.report.statistics import Check, Intervals, Report, Statistics, figures, intervals


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A report, its 95 % intervals by figure, what its pictures need, and what is missing.

    `confusion` counts the rows of each class (first) by the class that they are taken for; empty
    where a row has no one class, and for what a record kept.
    """

    report: Report
    intervals: Intervals
    curves: Curves
    warnings: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()

    @property
    def bins(self) -> tuple[ReliabilityBin, ...]:
        """The reliability bins behind the ECE; empty for a regression."""
        return self.curves.bins


def as_evaluation(
    statistics: Statistics,
    curves: Curves,
    score_B: NDArray[np.float64],
    ood_score_N: NDArray[np.float64] | None,
    seed: int,
    check: Check,
) -> Evaluation:
    """Return the figures with their intervals, beside their curves."""
    rows, strange = len(score_B), 0 if ood_score_N is None else len(ood_score_N)
    report = figures(statistics, rows, strange)
    check()
    of_figures = intervals(statistics, report, rows, strange, seed=seed, check=check)
    return Evaluation(report, of_figures, curves)
