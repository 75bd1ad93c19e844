"""Several scores as one, by how rare each value is among held-out rows.

Flow: each part's scores on rows set aside → `Tail` → minus log p of each → their sum.

    combined_B = Σ_i -log p_i(s_i)                                             Fisher 1925
    overall_B  = Σ_i -w_i log p_i(s_i)             weights w: see `overall`

p_i is the share of the rows set aside that are at least as strange. The share is a straight line
between neighbouring scores, so that ties are few, and flat as far as a tie with one of them
reaches, so that rounding moves no surprise. Above the greatest score it would stay at
1/(n+1) for all; there it falls as an exponential, whose scale is the mean excess of the top tenth
of the rows, so that rows beyond all held-out ones keep their order.

The sum is a score like any other: its threshold comes from rows of its own, and parts that depend
on each other cost power but no validity.

Dimensions: B rows, n rows set aside.

Source: Fisher 1925, "Statistical Methods for Research Workers"; Haroush et al. 2022,
arXiv:2102.12967 (for out-of-distribution scores); Pickands 1975, Annals of Statistics 3:119-131
(the tail).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dubito import ties
from dubito.calibration.flags.packed import PackedArray
from dubito.errors import InputError

MAX_KNOTS = 512
_TOP = 0.1
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tail:
    """How rare the values of one score are.

    Args:
        score: its name.
        knots: (2, m) ascending values of the score, and -w log of the share of rows at or above;
            two for every score, as far as a tie with it reaches.
        slope: by which -w log p rises above the last knot, per unit of the score; at least 0.
    """

    score: str
    knots: PackedArray
    slope: float

    def __post_init__(self) -> None:
        """Refuse knots that do not rise."""
        is_pair = len(self.knots.shape) == 2 and self.knots.shape[0] == 2 and self.knots.shape[1]
        if not is_pair or not (np.diff(self.knots.array()) >= 0).all() or not self.slope >= 0:
            raise InputError("a combined score expects knots that rise: calibrate again")

    @classmethod
    def fit(cls, score: str, score_B: Floats, weight: float = 1.0) -> Tail:
        """The tail of the scores of rows set aside, all surprises times the weight."""
        ordered_B = np.sort(score_B)
        count = len(ordered_B)
        least = ties.least_of(score)
        start_m = ties.starts(ordered_B, least)
        rank_m = np.linspace(0, len(start_m) - 1, min(len(start_m), MAX_KNOTS // 2))
        start_m = start_m[rank_m.round().astype(int)]
        surprise_m = -weight * np.log((1 + count - start_m) / (count + 1))
        knots = np.stack([ties.plateaus(ordered_B[start_m], least), np.repeat(surprise_m, 2)])
        top_B = ordered_B[int(count * (1 - _TOP)) :]
        excess = float((top_B - top_B[0]).mean())
        is_tied = ties.lowered(top_B[-1], least) <= ties.raised(top_B[0], least)
        return cls(score, PackedArray.of(knots), 0.0 if is_tied else weight / excess)

    def surprise(self, score_B: Floats) -> Floats:
        """-w log p of each score, at least 0; it never falls as the score rises."""
        value_m, surprise_m = self.knots.array()
        next_B = np.searchsorted(value_m, score_B)
        least_B = surprise_m[np.maximum(next_B - 1, 0)]
        most_B = surprise_m[np.minimum(next_B, len(surprise_m) - 1)]
        # rounding may lead a straight line past its end
        inside_B = np.clip(np.interp(score_B, value_m, surprise_m), least_B, most_B)
        beyond_B = np.maximum(score_B - value_m[-1], 0.0) * self.slope
        surprise_B: Floats = inside_B + beyond_B
        return surprise_B
