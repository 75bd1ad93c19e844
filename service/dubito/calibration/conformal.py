"""Split conformal prediction: sets for classes, intervals for numbers, p-values for scores.

Flow: held-out scores, sorted once → a threshold per coverage → sets or intervals. The record keeps
the scores, so any coverage may be asked of it later.

For n held-out rows exchangeable with the one asked about, the coverage of the set at c is at least
c, and at most c + 1/(n+1) where no scores tie. Over many rows it is distributed as
Beta(k, n+1-k), k = ceil((n+1)c).

Dimensions: B rows, C classes, D outputs, n held-out rows.

Source: Vovk, Gammerman and Shafer 2005, "Algorithmic Learning in a Random World"; Lei et al. 2018,
arXiv:1604.04173; LAC: Sadinle, Lei and Wasserman 2019, arXiv:1609.00451.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, inf

import numpy as np
from numpy.typing import NDArray

from dubito.errors import InputError


@dataclass(frozen=True, slots=True)
class ConformalScores:
    """Sorted held-out scores: one column for classes, one per output for numbers.

    Args:
        columns: ascending scores, each column with the same number of held-out rows.
    """

    columns: tuple[tuple[float, ...], ...]

    @property
    def num_rows(self) -> int:
        """Held-out rows behind the scores."""
        return len(self.columns[0])

    def thresholds(self, coverage: float) -> NDArray[np.float64]:
        """The k-th smallest score of each column, infinite where k > n; shape (columns,)."""
        k = order(self.num_rows, coverage)
        return np.array([column[k - 1] if k <= len(column) else inf for column in self.columns])

    def prediction_sets(self, mean_BC: NDArray[np.float64], coverage: float) -> NDArray[np.bool_]:
        """Which classes each row's set holds, shape (B, C); a set may be empty.

        {c : 1 - p̄_c <= k-th smallest held-out score}
        """
        sets_BC: NDArray[np.bool_] = class_scores(mean_BC) <= self.thresholds(coverage)[0]
        return sets_BC

    def intervals(
        self, mean_BD: NDArray[np.float64], variance_BD: NDArray[np.float64], coverage: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper end for each row and output, in target units.

        [ȳ - q σ, ȳ + q σ], with q the k-th smallest held-out |y - ȳ| / σ of that output
        """
        half_BD = self.thresholds(coverage) * np.sqrt(_positive(variance_BD))
        return mean_BD - half_BD, mean_BD + half_BD


def order(num_rows: int, coverage: float) -> int:
    """Rank of the held-out score that bounds a set: k = ceil((n+1) coverage), exactly.

    The coverage is read as the decimal it prints as, so that 0.95 of 20 is 19 and not 20.

    Raises:
        InputError: where the coverage is not inside (0, 1).
    """
    return ceil((num_rows + 1) * exact_decimal("coverage", coverage))


def rows_needed(coverage: float) -> int:
    """Held-out rows without which k > n and every set is the whole set: ceil(1/(1-c)) - 1."""
    return ceil(1 / (1 - exact_decimal("coverage", coverage))) - 1


def rows_needed_for_alarm(alpha: float) -> int:
    """Held-out rows without which no p-value reaches α: ceil(1/α) - 1."""
    return ceil(1 / exact_decimal("alpha", alpha)) - 1


def fit_classes(mean_BC: NDArray[np.float64], label_B: NDArray[np.int64]) -> ConformalScores:
    """Scores 1 - p̄_y of held-out rows."""
    score_B = class_scores(mean_BC)[np.arange(len(label_B)), label_B]
    return ConformalScores((tuple(np.sort(score_B).tolist()),))


def fit_numbers(
    mean_BD: NDArray[np.float64],
    variance_BD: NDArray[np.float64],
    target_BD: NDArray[np.float64],
) -> ConformalScores:
    """Scores |y - ȳ| / σ of held-out rows, for each output on its own."""
    score_BD = np.abs(target_BD - mean_BD) / np.sqrt(_positive(variance_BD))
    return ConformalScores(tuple(tuple(np.sort(score_B).tolist()) for score_B in score_BD.T))


def class_scores(mean_BC: NDArray[np.float64]) -> NDArray[np.float64]:
    """How badly each class fits each row: 1 - p̄_c, in [0, 1]."""
    return 1.0 - mean_BC


def p_values(held_out: NDArray[np.float64], score_B: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of scores at least as strange, the row itself counted: in [1/(n+1), 1].

    p = (1 + #{held-out scores >= s}) / (n + 1)

    P(p <= α) = floor(α(n+1)) / (n+1) <= α for exchangeable scores that do not tie. A tie with a
    held-out score counts against the flag, so that ties only lower the false-alarm rate.

    Args:
        held_out: ascending scores of n held-out rows.
        score_B: scores, higher is stranger.
    """
    below_B = np.searchsorted(held_out, score_B, side="left")
    at_least_B = (1 + len(held_out) - below_B).astype(np.float64)
    return at_least_B / (len(held_out) + 1.0)


def exact_decimal(name: str, value: float) -> Fraction:
    """A rate in (0, 1) as the decimal that it prints as.

    Raises:
        InputError: where it is not inside (0, 1).
    """
    if not 0 < value < 1:
        raise InputError(f"`{name}` expects a number between 0 and 1, got {value}: say 0.1 or 0.9")
    return Fraction(repr(float(value)))


def _positive(variance_BD: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variances kept off zero, so that a row without spread has a finite score."""
    return np.maximum(variance_BD, np.finfo(np.float64).tiny)
