"""How well the score parts out-of-distribution rows from others, and how often it flags.

Flow: scores of ordinary rows and of rows known to be strange, which are the positive class → rates
at every threshold → areas.

Dimensions: R resamples, B rows, N out-of-distribution rows, G distinct scores.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dubito import ties
from dubito.report.ranking import Ranking
from dubito.report.statistics import (
    Floats,
    RowCounts,
    Statistic,
    Statistics,
    mean_of,
)


def ood_statistics(
    flag_B: NDArray[np.bool_] | None, score_B: Floats, ood_score_N: Floats | None, name: str = ""
) -> Statistics:
    """Share of in-distribution rows flagged; with strange rows, how well the score parts them.

    `name` is the score's, by which scores tie (`dubito.ties`).

    `ood_auroc` is the chance that a strange row scores above another, ties counted half;
    `ood_aupr` the average precision Σ_k (recall_k - recall_{k-1}) precision_k; `ood_fpr95` the
    least share of in-distribution rows above a threshold that at least 95 % of the strange ones
    reach.
    """
    flagged = None if flag_B is None else mean_of(flag_B.astype(np.float64))
    if ood_score_N is None:
        return {"ood_flag_rate": flagged}
    score = np.r_[score_B, ood_score_N]
    if len(score_B) == 0 or len(ood_score_N) == 0 or not np.isfinite(score).all():
        return {"ood_flag_rate": flagged} | dict.fromkeys(("ood_auroc", "ood_aupr", "ood_fpr95"))
    rates = _Rates(Ranking.of(-score, ties.least_of(name)))
    return {
        "ood_flag_rate": flagged,
        "ood_auroc": Statistic(rates.auroc),
        "ood_aupr": Statistic(rates.aupr),
        "ood_fpr95": Statistic(rates.fpr95),
    }


class _Rates:
    """Shares of rows at or above each threshold, by falling threshold."""

    def __init__(self, ranking: Ranking) -> None:
        self._ranking = ranking

    def auroc(self, counts: RowCounts) -> Floats:
        true_RG, false_RG = self._counted(counts)
        true_RG, false_RG = true_RG / true_RG[:, -1:], false_RG / false_RG[:, -1:]
        height_RG = 0.5 * (true_RG[:, 1:] + true_RG[:, :-1])
        area_R: Floats = (np.diff(false_RG, axis=1) * height_RG).sum(axis=1)
        return area_R

    def aupr(self, counts: RowCounts) -> Floats:
        true_RG, false_RG = self._counted(counts)
        precision_RG = true_RG[:, 1:] / np.maximum(true_RG + false_RG, 1.0)[:, 1:]
        area_R: Floats = (np.diff(true_RG / true_RG[:, -1:], axis=1) * precision_RG).sum(axis=1)
        return area_R

    def fpr95(self, counts: RowCounts) -> Floats:
        true_RG, false_RG = self._counted(counts)
        reached_RG = true_RG / true_RG[:, -1:] >= 0.95
        first_R = reached_RG.argmax(axis=1)
        rate_R: Floats = false_RG[np.arange(len(first_R)), first_R] / false_RG[:, -1]
        return rate_R

    def _counted(self, counts: RowCounts) -> tuple[Floats, Floats]:
        """Strange rows and others at or above each threshold, each (R, G + 1), from 0."""
        nothing_RB, nothing_RN = np.zeros_like(counts.rows), np.zeros_like(counts.strange)
        true_RG = self._ranking.running(np.hstack([nothing_RB, counts.strange]))
        false_RG = self._ranking.running(np.hstack([counts.rows, nothing_RN]))
        return true_RG, false_RG
