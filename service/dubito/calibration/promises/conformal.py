"""Split conformal prediction: ranks, thresholds and p-values of held-out scores.

Flow: held-out scores, sorted once → a threshold per coverage → `sets` or `intervals`. The record
keeps the scores, so any coverage may be asked of it later.

For n held-out rows exchangeable with the one asked about, the coverage of the set at c is at least
c, and at most c + 1/(n+1) where no scores tie. Over many rows it is distributed as
Beta(k, n+1-k), k = ceil((n+1)c).

Dimensions: B rows, n held-out rows.

Source: Vovk, Gammerman and Shafer 2005, "Algorithmic Learning in a Random World"; Lei et al. 2018,
arXiv:1604.04173.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, inf

import numpy as np
from numpy.typing import NDArray

from dubito.errors import InputError


@dataclass(frozen=True, slots=True)
class ConformalScores:
    """Sorted held-out scores: one column for classes (or one per class), one per output of numbers.

    Args:
        columns: ascending scores of held-out rows.
    """

    columns: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, columns: Sequence[NDArray[np.float64]]) -> ConformalScores:
        """The scores in ascending order, column by column."""
        return cls(tuple(tuple(np.sort(column).tolist()) for column in columns))

    @property
    def num_rows(self) -> int:
        """Held-out rows behind a threshold: of the shortest column."""
        return min(map(len, self.columns))

    def thresholds(self, coverage: float) -> NDArray[np.float64]:
        """The k-th smallest score of each column, infinite where k > n; shape (columns,)."""
        threshold = []
        for column in self.columns:
            k = order(len(column), coverage)
            threshold.append(column[k - 1] if k <= len(column) else inf)
        return np.array(threshold)


@dataclass(frozen=True, slots=True)
class Promise:
    """What sets or intervals are made of, at a coverage.

    Args:
        coverage: that they were fitted for, and have where a request names none.
        held_out: scores of the rows held out for them.
    """

    coverage: float
    held_out: ConformalScores

    def level(self, coverage: float | None) -> float:
        """Return the coverage that is asked for, or the promise's own for None."""
        return self.coverage if coverage is None else coverage


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


def p_values(held_out: NDArray[np.float64], score_B: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of scores at least as strange, the row itself counted: in [1/(n+1), 1].

    p = (1 + #{held-out scores >= s}) / (n + 1)

    P(p <= α) = floor(α(n+1)) / (n+1) <= α for exchangeable scores that do not tie. A tie with a
    held-out score counts against the flag, so that ties only lower the false-alarm rate.

    Args:
        held_out: ascending scores of n held-out rows.
        score_B: the least that the scores may be (`ties.lowered`); higher is stranger.
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
