"""The decision: a p-value and a flag per row, from the scores of held-out rows.

Flow: held-out scores, sorted → `p_values` → `flags` at the false-alarm rate α. A flag is raised
where p <= α; for n held-out rows without ties its rate on rows like them is
floor(α(n+1)) / (n+1), and among m of them the count is beta-binomial. Ties only lower it.

Dimensions: B rows, n held-out rows.

Source: Laxhammar and Falkman 2010, "Conformal prediction for distribution-independent anomaly
detection"; Bates et al. 2023, arXiv:2104.08279.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, inf

import numpy as np
from numpy.typing import NDArray

from dubito import ties
from dubito.calibration.promises import conformal


@dataclass(frozen=True, slots=True)
class Detector:
    """A named score, its held-out values in ascending order, and the false-alarm rate α."""

    score: str
    alpha: float
    held_out: tuple[float, ...]

    @classmethod
    def fit(cls, score: str, score_B: NDArray[np.float64], alpha: float) -> Detector:
        """The detector of held-out rows, given their scores."""
        return cls(score, alpha, tuple(np.sort(score_B).tolist()))

    @property
    def threshold(self) -> float:
        """A row is flagged where its score is above this, no tie; infinite where α(n+1) < 1."""
        num_rows = len(self.held_out)
        num_flagged = floor((num_rows + 1) * conformal.exact_decimal("alpha", self.alpha))
        return self.held_out[num_rows - num_flagged] if num_flagged else inf

    def p_values(self, score_B: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of held-out rows at least as strange, in [1/(n+1), 1]."""
        return conformal.p_values(
            np.asarray(self.held_out), ties.lowered(score_B, ties.least_of(self.score))
        )

    def flags(self, score_B: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which rows are out of distribution: p <= α."""
        return self.p_values(score_B) <= self.alpha
