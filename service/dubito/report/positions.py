"""The figures of rows with several labels or positions: of positions, with the rows resampled.

Positions of one row depend on each other, so a resample draws rows, each with all its positions.
Every figure is then made of a few sums per row, however many positions there are.

What chance alone would give as an error of calibration is not known where positions depend on each
other, so the interval of one does not begin at 0 on that account.

Dimensions: R resamples, B rows, N labelled positions of all rows, C classes, L labels, M = 15 bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from dubito import ties
from dubito.report.curves import Curves, line_of, ranks
from dubito.report.ranking import Ranking
from dubito.report.reliability import (
    NUM_BINS,
    adaptive_bins,
    bin_of,
    confidence,
    reliability_bins,
)
from dubito.report.statistics import Floats, RowCounts, Statistic, Statistics, mean_of

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LabelledPositions:
    """All labelled positions of some rows, row by row.

    Args:
        mean: (N, C) mean probabilities.
        label: (N,) class index.
        row: (N,) its row, from 0.
        label_index: (N,) which label it is; None where positions have no identity of their own.
        num_rows: B.
    """

    mean: Floats
    label: Indices
    row: Indices
    label_index: Indices | None
    num_rows: int

    @classmethod
    def of(
        cls, mean_BPC: Floats, is_known_BP: NDArray[np.bool_], label_BP: Indices, head: str
    ) -> LabelledPositions:
        """The positions that have a label.

        Args:
            mean_BPC: mean probabilities.
            is_known_BP: which positions have a label.
            label_BP: class indices.
            head: `multilabel` or `dense`.
        """
        row_N, position_N = np.nonzero(is_known_BP)
        mean_NC = mean_BPC[row_N, position_N]
        probs_NC = mean_NC / mean_NC.sum(axis=-1, keepdims=True)
        label_index = position_N if head == "multilabel" else None
        return cls(probs_NC, label_BP[row_N, position_N], row_N, label_index, len(mean_BPC))

    def sums(self, value_N: Floats) -> Floats:
        """Return the sums over the positions of each row, (B,)."""
        return summed(self.row, value_N, self.num_rows)

    @property
    def count(self) -> Floats:
        """How many labelled positions each row has, (B,)."""
        return self.sums(np.ones(len(self.row)))

    def mean_of(self, value_N: Floats) -> Statistic:
        """The mean of one number per position."""
        return ratio_of(self.sums(value_N), self.count)


def summed(row_N: Indices, value_N: Floats, num_rows: int) -> Floats:
    """Sums over the positions of each row, by their rows."""
    sum_B: Floats = np.bincount(row_N, weights=value_N, minlength=num_rows).astype(np.float64)
    return sum_B


def ratio_of(sum_B: Floats, count_B: Floats) -> Statistic:
    """Σ of one number per row over Σ of another."""

    def value(counts: RowCounts) -> Floats:
        return counts.rows @ sum_B / (counts.rows @ count_B)

    return Statistic(value)


def position_statistics(
    rows: LabelledPositions,
    uncertainty_B: Floats,
    sets_NC: NDArray[np.bool_] | None,
    is_covered_B: NDArray[np.bool_] | None,
    nll_N: Floats | None = None,
) -> Statistics:
    """Accuracy, NLL, Brier and errors of calibration of positions; AURC and sets of rows.

    nll, brier, ece, adaptive_ece and classwise_ece are those of `classification_statistics` over
    all labelled positions; of labels classwise means label by label, of the chance to be on.
    aurc = mean over i of the share of wrong positions of the i least uncertain rows.
    subset_accuracy (labels) = share of rows whose labels are all right.
    mean_iou (positions) = 1/C Σ_c TP_c / (TP_c + FP_c + FN_c), over classes that occur.

    Args:
        rows: their labelled positions.
        uncertainty_B: by which rows are ordered.
        sets_NC: sets of the positions; None before a calibration.
        is_covered_B: rows for which the promise of the sets is kept.
        nll_N: -log of the mean probability of each label, of the logits where it underflows; None:
            of the mean.
    """
    index_N = np.arange(len(rows.label))
    confidence_N, is_right_N = confidence(rows.mean, rows.label)
    if nll_N is None:
        with np.errstate(divide="ignore"):
            nll_N = -np.log(rows.mean[index_N, rows.label])
    brier_N = (rows.mean**2).sum(axis=-1) - 2 * rows.mean[index_N, rows.label] + 1
    gap_N = is_right_N - confidence_N
    wrong_B = 1 - rows.sums(is_right_N) / rows.count
    statistics: dict[str, Statistic | None] = {
        "accuracy": rows.mean_of(is_right_N),
        "nll": rows.mean_of(nll_N),
        "brier": rows.mean_of(brier_N),
        "ece": _binned(rows, gap_N, bin_of(confidence_N), NUM_BINS, rows.count),
        "adaptive_ece": _binned(rows, gap_N, _of_equal_mass(rows), NUM_BINS, rows.count),
        "classwise_ece": _classwise(rows),
        "aurc": _aurc(uncertainty_B, wrong_B),
    }
    if rows.label_index is None:
        statistics["mean_iou"] = _mean_iou(rows)
    else:
        statistics["subset_accuracy"] = mean_of((wrong_B == 0).astype(np.float64))
    return statistics | {
        "set_coverage": None if is_covered_B is None else mean_of(is_covered_B.astype(np.float64)),
        "position_coverage": None
        if sets_NC is None
        else rows.mean_of(sets_NC[index_N, rows.label].astype(np.float64)),
        "set_size": None
        if sets_NC is None
        else rows.mean_of(sets_NC.sum(axis=-1).astype(np.float64)),
    }


def position_curves(rows: LabelledPositions, uncertainty_B: Floats) -> Curves:
    """The curves of such rows: bins of positions, and the risk of rows."""
    is_right_N = (ties.most_probable(rows.mean) == rows.label).astype(np.float64)
    wrong_B = 1 - rows.sums(is_right_N) / rows.count
    risk_B = Ranking.of(uncertainty_B).means(np.ones((1, rows.num_rows)), wrong_B)[0]
    rank_P = ranks(len(risk_B))
    return Curves(
        bins=reliability_bins(rows.mean, rows.label),
        adaptive_bins=adaptive_bins(rows.mean, rows.label),
        risk_coverage=line_of(rank_P / len(risk_B), risk_B[rank_P - 1]),
    )


def _aurc(uncertainty_B: Floats, wrong_B: Floats) -> Statistic:
    ranking = Ranking.of(uncertainty_B)
    return Statistic(lambda counts: ranking.means(counts.rows, wrong_B).mean(axis=1))


def _binned(
    rows: LabelledPositions, gap_N: Floats, bin_N: Indices, num_bins: int, weight_B: Floats
) -> Statistic:
    """Σ over bins of |Σ of gaps in the bin|, over Σ of the rows' weights."""
    gap_BM = csr_array((gap_N, (rows.row, bin_N)), shape=(rows.num_rows, num_bins))

    def value(counts: RowCounts) -> Floats:
        total_R = np.abs(np.asarray(counts.rows @ gap_BM)).sum(axis=1)
        error_R: Floats = total_R / (counts.rows @ weight_B)
        return error_R

    return Statistic(value, is_upward=True)


def _classwise(rows: LabelledPositions) -> Statistic:
    if rows.label_index is not None:  # of each label, the chance to be on
        on_N = rows.mean[:, 1]
        num_labels = int(rows.label_index.max()) + 1
        bin_N = bin_of(np.clip(on_N, 0.0, 1.0)) + NUM_BINS * rows.label_index
        return _binned(rows, rows.label - on_N, bin_N, NUM_BINS * num_labels, rows.count)
    num_classes = rows.mean.shape[1]
    gap_NC = (rows.label[:, None] == np.arange(num_classes)) - rows.mean
    bin_NC = bin_of(np.clip(rows.mean, 0.0, 1.0)) + NUM_BINS * np.arange(num_classes)
    each = LabelledPositions(
        rows.mean, rows.label, np.repeat(rows.row, num_classes), None, rows.num_rows
    )
    size = NUM_BINS * num_classes
    return _binned(each, gap_NC.ravel(), bin_NC.ravel(), size, num_classes * rows.count)


def _of_equal_mass(rows: LabelledPositions) -> Indices:
    """The bin of equally many positions of each, by confidence; equal ones in the first."""
    bins = adaptive_bins(rows.mean, rows.label)
    edges = [(low.upper + high.lower) / 2 for low, high in pairwise(bins)]
    confidence_N, _ = confidence(rows.mean, rows.label)
    return np.searchsorted(edges, confidence_N, side="left")


def _mean_iou(rows: LabelledPositions) -> Statistic:
    num_classes = rows.mean.shape[1]
    said_N = ties.most_probable(rows.mean)

    def counted(of_N: Indices, is_in_N: NDArray[np.bool_]) -> Floats:
        line_N = rows.row[is_in_N] * num_classes + of_N[is_in_N]
        size = rows.num_rows * num_classes
        return np.bincount(line_N, minlength=size).reshape(-1, num_classes).astype(np.float64)

    every_N = np.ones(len(said_N), bool)
    both_BC = counted(said_N, said_N == rows.label)
    union_BC = counted(said_N, every_N) + counted(rows.label, every_N) - both_BC

    def value(counts: RowCounts) -> Floats:
        both_RC, union_RC = counts.rows @ both_BC, counts.rows @ union_BC
        share_RC = both_RC / np.maximum(union_RC, 1.0)
        mean_R: Floats = share_RC.sum(axis=1) / np.maximum((union_RC > 0).sum(axis=1), 1)
        return mean_R

    return Statistic(value)
