"""What leaving out the least certain rows gains: risk over coverage, error over sparsification.

Flow: an order of the rows, and their errors → curve → area. Rows of equal certainty count as in
the mean over their orders.

Dimensions: R resamples, B rows, D outputs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dubito.report.ranking import Ranking
from dubito.report.reliability import confidence
from dubito.report.statistics import Floats, RowCounts, Statistic

_MOST_CELLS = 1_000_000  # rows x outputs; beyond it `ause` is not resampled


def aurc(mean_BC: Floats, label_B: NDArray[np.int64]) -> Statistic:
    """Mean error rate of the i most confident rows, over i = 1..B; lower is better.

    AURC = 1/B Σ_i 1/i Σ_{j <= i} [row j wrong], rows by falling largest probability

    Source: Geifman and El-Yaniv 2017, arXiv:1705.08500; Geifman et al. 2019, arXiv:1805.08206.
    """
    return Statistic(lambda counts: _risk(mean_BC, label_B, counts.rows).mean(axis=1))


def e_aurc(mean_BC: Floats, label_B: NDArray[np.int64]) -> Statistic:
    """AURC above that of the best order: all right rows before all wrong ones.

    E-AURC = AURC - 1/B Σ_{i > B-k} (i - (B-k))/i, with k wrong rows of B

    Source: Geifman et al. 2019, arXiv:1805.08206.
    """
    num_rows = len(label_B)
    harmonic = np.r_[0.0, np.cumsum(1.0 / np.arange(1, num_rows + 1))]

    def value(counts: RowCounts) -> Floats:
        risk_RB = _risk(mean_BC, label_B, counts.rows)
        wrong_R = np.rint(risk_RB[:, -1] * num_rows).astype(np.int64)
        right_R = num_rows - wrong_R
        best_R = (wrong_R - right_R * (harmonic[-1] - harmonic[right_R])) / num_rows
        # Never below 0, but for rounding.
        excess_R: Floats = np.maximum(risk_RB.mean(axis=1) - best_R, 0.0)
        return excess_R

    return Statistic(value)


def risk_coverage(mean_BC: Floats, label_B: NDArray[np.int64]) -> Floats:
    """Error rate of the i most confident rows, i = 1..B."""
    risk_B: Floats = _risk(mean_BC, label_B, np.ones((1, len(label_B))))[0]
    return risk_B


def ause(variance_BD: Floats, error_BD: Floats) -> Statistic:
    """Area between the sparsification curve by predicted variance and that by true error.

    AUSE = 1/B Σ_i (s_i - o_i), s_i = RMSE of the i rows of least variance / RMSE of all, and o_i
    the same for the i rows of least error; each output on its own, then the mean over outputs.
    0 where the variance orders rows as their errors do.

    Source: Ilg et al. 2018, arXiv:1802.07095.
    """
    square_BD = error_BD**2
    pairs = [
        (Ranking.of(variance_B, 0.0), Ranking.of(square_B, 0.0), square_B)
        for variance_B, square_B in zip(variance_BD.T, square_BD.T, strict=True)
    ]

    def value(counts: RowCounts) -> Floats:
        area_RD = [
            (
                _relative_error(by_variance, square_B, counts.rows)
                - _relative_error(by_error, square_B, counts.rows)
            ).mean(axis=1)
            for by_variance, by_error, square_B in pairs
        ]
        area_R: Floats = np.mean(area_RD, axis=0)
        return area_R

    return Statistic(value, is_dear=error_BD.size > _MOST_CELLS)


def sparsification(variance_BD: Floats, error_BD: Floats) -> tuple[Floats, Floats]:
    """RMSE of the i rows of least variance, and of least error, over that of all; i = 1..B.

    The mean over outputs of each; NaN where all errors are 0.
    """
    row_RB, square_BD = np.ones((1, len(error_BD))), error_BD**2
    by_variance, by_error = (
        np.mean(
            [
                _relative_error(Ranking.of(key_B, 0.0), square_B, row_RB)[0]
                for key_B, square_B in zip(key_BD.T, square_BD.T, strict=True)
            ],
            axis=0,
        )
        for key_BD in (variance_BD, square_BD)
    )
    return by_variance, by_error


def _risk(mean_BC: Floats, label_B: NDArray[np.int64], row_RB: Floats) -> Floats:
    """Error rate of the i most confident rows of each resample, i = 1..B, shape (R, B)."""
    confidence_B, is_right_B = confidence(mean_BC, label_B)
    return Ranking.of(1 - confidence_B).means(row_RB, 1 - is_right_B)


def _relative_error(ranking: Ranking, square_B: Floats, row_RB: Floats) -> Floats:
    """RMSE of the first i rows over that of all, i = 1..B, shape (R, B)."""
    with np.errstate(divide="ignore", invalid="ignore"):  # no errors at all: not defined
        mean_RB = ranking.means(row_RB, square_B)
        relative_RB: Floats = np.sqrt(mean_RB / mean_RB[:, -1:])
    return relative_RB
