"""Whether confidence is accuracy: reliability bins, and three errors of calibration.

All equal-width bins are 15 over [0, 1], with 1.0 in the last; other packages take 10 or 20, leave
out rows, or bin the observed range only, so figures of theirs may differ.

Dimensions: R resamples, B rows, C classes, M = 15 bins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from dubito import ties
from dubito.report.ranking import Ranking
from dubito.report.statistics import NUM_RESAMPLES, Floats, RowCounts, Statistic

NUM_BINS = 15
_Z = 1.959964  # of a normal number, whose 2.5 % lie beyond
_MOST_CELLS = 1_000_000  # rows x classes; beyond it `classwise_ece` is not resampled


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Rows whose confidence lies in [lower, upper), or [lower, 1] for the last bin.

    `confidence` is the mean largest probability, `accuracy` the share of right labels; None where
    the bin is empty. Bins of equal mass are [lower, upper], the least and greatest of their rows.
    """

    lower: float
    upper: float
    count: int
    confidence: float | None
    accuracy: float | None


Bins = tuple[ReliabilityBin, ...]


def reliability_bins(mean_BC: Floats, label_B: NDArray[np.int64]) -> Bins:
    """All 15 equal-width bins of the largest probability over [0, 1], with 1.0 in the last."""
    confidence_B, is_right_B = confidence(mean_BC, label_B)
    bin_B = bin_of(confidence_B)
    bins = []
    for index, (lower, upper) in enumerate(pairwise(_edges().tolist())):
        inside_B = bin_B == index
        count = int(inside_B.sum())
        mean = float(confidence_B[inside_B].mean()) if count else None
        accuracy = float(is_right_B[inside_B].mean()) if count else None
        bins.append(ReliabilityBin(lower, upper, count, mean, accuracy))
    return tuple(bins)


def adaptive_bins(mean_BC: Floats, label_B: NDArray[np.int64]) -> Bins:
    """15 bins of equally many rows (to within one) by confidence; fewer where rows are fewer.

    Rows of equal confidence count with their mean accuracy, whichever bin takes them.
    """
    confidence_B, is_right_B = confidence(mean_BC, label_B)
    rank_M = _equal_mass(len(label_B))
    ranking, row_RB = Ranking.of(confidence_B - 1), np.ones((1, len(label_B)))
    sum_M, right_M = (
        np.diff(ranking.read(row_RB, value_B, rank_M)[0]) for value_B in (confidence_B, is_right_B)
    )
    ascending_B = np.sort(confidence_B)
    return tuple(
        ReliabilityBin(
            lower=float(ascending_B[first]),
            upper=float(ascending_B[last - 1]),
            count=last - first,
            confidence=float(total / (last - first)),
            accuracy=float(right / (last - first)),
        )
        for (first, last), total, right in zip(
            pairwise(rank_M.astype(int).tolist()), sum_M, right_M, strict=True
        )
        if last > first
    )


def expected_calibration_error(bins: Bins) -> float:
    """Mean distance of confidence and accuracy over the bins, weighted by their rows.

    ECE = Σ_m B_m/B |accuracy_m - confidence_m|

    Source: Naeini et al. 2015; Guo et al. 2017, arXiv:1706.04599.
    """
    total = sum(
        group.count * abs(group.accuracy - group.confidence)
        for group in bins
        if group.accuracy is not None and group.confidence is not None
    )
    return total / sum(group.count for group in bins)


def likely(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a probability of which a share was seen in so many trials.

    (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n), z = 1.96

    Source: Wilson 1927, JASA 22:209-212.
    """
    per_row = _Z**2 / count
    spread = math.sqrt(per_row * share * (1 - share) + per_row**2 / 4)
    lower, upper = (share + per_row / 2 + side for side in (-spread, spread))
    return max(0.0, lower / (1 + per_row)), min(1.0, upper / (1 + per_row))


def ece(mean_BC: Floats, label_B: NDArray[np.int64]) -> Statistic:
    """`expected_calibration_error` of the 15 equal-width bins."""
    confidence_B, is_right_B = confidence(mean_BC, label_B)
    is_in_BM = (bin_of(confidence_B)[:, None] == np.arange(NUM_BINS)).astype(np.float64)

    def error(gap_RB: Floats) -> Floats:
        error_R: Floats = np.abs(gap_RB @ is_in_BM).sum(axis=1) / len(label_B)
        return error_R

    def value(counts: RowCounts) -> Floats:
        return error(counts.rows * (is_right_B - confidence_B))

    return Statistic(value, by_chance=lambda generator: error(_gaps(confidence_B, generator)))


def adaptive_ece(mean_BC: Floats, label_B: NDArray[np.int64]) -> Statistic:
    """`expected_calibration_error` of 15 bins of equally many rows.

    Source: Nguyen and O'Connor 2015, arXiv:1508.05154; Mukhoti et al. 2020, arXiv:2002.09437.
    """
    confidence_B, is_right_B = confidence(mean_BC, label_B)
    ranking, rank_M = Ranking.of(confidence_B - 1), _equal_mass(len(label_B))

    def error(row_RB: Floats, gap_RB: Floats) -> Floats:
        gap_RM = np.diff(ranking.read(row_RB, gap_RB, rank_M), axis=1)
        error_R: Floats = np.abs(gap_RM).sum(axis=1) / len(label_B)
        return error_R

    def value(counts: RowCounts) -> Floats:
        return error(counts.rows, is_right_B - confidence_B)

    def by_chance(generator: np.random.Generator) -> Floats:
        gap_RB = _gaps(confidence_B, generator)
        return error(np.ones_like(gap_RB), gap_RB)

    return Statistic(value, by_chance=by_chance)


def classwise_ece(probs_BC: Floats, label_B: NDArray[np.int64]) -> Statistic:
    """ECE of the probability of each class on its own, averaged over the classes.

    1/C Σ_c Σ_m B_mc/B |share of rows of class c - mean p_c|, 15 equal-width bins for each class

    Source: Kull et al. 2019, arXiv:1910.12656; Nixon et al. 2019, arXiv:1904.01685.
    """
    num_rows, num_classes = probs_BC.shape
    step = max(1, _MOST_CELLS // num_rows)

    def value(counts: RowCounts) -> Floats:
        total_R = np.zeros(len(counts.rows))
        for first in range(0, num_classes, step):
            gap_KB = _class_gaps(probs_BC[:, first : first + step], label_B - first)
            total_R += np.abs(gap_KB @ counts.rows.T).sum(axis=0)
        error_R: Floats = total_R / (num_rows * num_classes)
        return error_R

    def by_chance(generator: np.random.Generator) -> Floats:
        line_BC = bin_of(np.clip(probs_BC, 0.0, 1.0)) + NUM_BINS * np.arange(num_classes)
        size = NUM_BINS * num_classes
        expected_K = np.bincount(line_BC.ravel(), weights=probs_BC.ravel(), minlength=size)
        upper_BC, rows = probs_BC.cumsum(axis=1)[:, :-1], np.arange(num_rows)
        error_R = np.empty(NUM_RESAMPLES)
        for index in range(NUM_RESAMPLES):
            drawn_B = (generator.random((num_rows, 1)) > upper_BC).sum(axis=1)
            count_K = np.bincount(line_BC[rows, drawn_B], minlength=size)
            error_R[index] = np.abs(count_K - expected_K).sum() / (num_rows * num_classes)
        return error_R

    return Statistic(value, by_chance=by_chance, is_dear=probs_BC.size > _MOST_CELLS)


def confidence(mean_BC: Floats, label_B: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """The largest probability of each row in [0, 1], and whether its class is the label, 1 or 0."""
    confidence_B = np.clip(mean_BC.max(axis=-1), 0.0, 1.0)
    return confidence_B, (ties.most_probable(mean_BC) == label_B).astype(np.float64)


def bin_of(value: Floats) -> NDArray[np.int64]:
    """The equal-width bin of each number in [0, 1], 1.0 in the last."""
    index: NDArray[np.int64] = np.searchsorted(_edges(), value, side="right") - 1
    return np.minimum(index, NUM_BINS - 1)


def _gaps(confidence_B: Floats, generator: np.random.Generator) -> Floats:
    """Draws of [row is right] - confidence where confidence is the chance of that, (R, B)."""
    drawn_RB = generator.random((NUM_RESAMPLES, len(confidence_B))) < confidence_B
    return drawn_RB - confidence_B


def _class_gaps(probs_Bc: Floats, label_B: NDArray[np.int64]) -> csr_array:
    """[label is c] - p_c of each row, in the line of its class and bin: shape (c · M, B)."""
    num_rows, num_classes = probs_Bc.shape
    gap_Bc = (label_B[:, None] == np.arange(num_classes)) - probs_Bc
    line_Bc = bin_of(np.clip(probs_Bc, 0.0, 1.0)) + NUM_BINS * np.arange(num_classes)
    row_Bc = np.broadcast_to(np.arange(num_rows)[:, None], probs_Bc.shape)
    return csr_array(
        (gap_Bc.ravel(), (line_Bc.ravel(), row_Bc.ravel())),
        shape=(NUM_BINS * num_classes, num_rows),
    )


def _edges() -> Floats:
    return np.linspace(0.0, 1.0, NUM_BINS + 1)


def _equal_mass(num_rows: int) -> Floats:
    """Places in the order where a bin of equal mass ends, from 0: the first have one row more."""
    sizes_M = np.full(NUM_BINS, num_rows // NUM_BINS)
    sizes_M[: num_rows % NUM_BINS] += 1
    rank_M: Floats = np.r_[0, np.cumsum(sizes_M)].astype(np.float64)
    return rank_M
