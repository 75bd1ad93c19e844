"""The report: how good the figures are on rows with known truths.

Flow: figures that were served, and truths → named numbers. A number that is not defined (one class
among the out-of-distribution labels, no interval before a calibration) is None, never NaN.

Dimensions: T samples, B rows, C classes, D outputs, N out-of-distribution rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import isfinite, pi, sqrt
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    log_loss,
    roc_auc_score,
    roc_curve,
    root_mean_squared_error,
)

from dubito.calibration.noise import mixture_nll

Report: TypeAlias = dict[str, float | None]
Floats: TypeAlias = NDArray[np.float64]

NUM_BINS = 15


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Rows whose confidence lies in [lower, upper), or [lower, 1] for the last bin.

    `confidence` is the mean largest probability, `accuracy` the share of right labels; None where
    the bin is empty.
    """

    lower: float
    upper: float
    count: int
    confidence: float | None
    accuracy: float | None


def classification_figures(
    mean_BC: Floats, label_B: NDArray[np.int64], sets_BC: NDArray[np.bool_] | None
) -> Report:
    """Accuracy, NLL, Brier, ECE, AURC, and coverage, mean size and share of empty sets.

    brier = 1/B Σ_b Σ_c (p̄_bc - [c = y_b])², in [0, 2], for two classes as well

    Source: Brier 1950, Monthly Weather Review 78:1-3.
    """
    classes = np.arange(mean_BC.shape[-1])
    probs_BC = mean_BC / mean_BC.sum(axis=-1, keepdims=True)
    # For two classes scikit-learn reads one column, the probability of the second class, and its
    # sum over both classes is twice the square of that column's error.
    column = probs_BC[:, 1] if len(classes) == 2 else probs_BC
    brier = brier_score_loss(label_B, column, labels=classes, scale_by_half=False)
    return {
        "accuracy": _figure(accuracy_score(label_B, mean_BC.argmax(axis=-1))),
        "nll": _figure(log_loss(label_B, probs_BC, labels=classes)),
        "brier": _figure(brier),
        "ece": _figure(expected_calibration_error(reliability_bins(mean_BC, label_B))),
        "aurc": _figure(area_under_risk_coverage(mean_BC, label_B)),
        "set_coverage": _set_coverage(sets_BC, label_B),
        "set_size": None if sets_BC is None else _figure(sets_BC.sum(axis=-1).mean()),
        "empty_sets": None if sets_BC is None else _figure((~sets_BC.any(axis=-1)).mean()),
    }


def reliability_bins(mean_BC: Floats, label_B: NDArray[np.int64]) -> tuple[ReliabilityBin, ...]:
    """All 15 equal-width bins of the largest probability over [0, 1], with 1.0 in the last."""
    confidence_B = np.clip(mean_BC.max(axis=-1), 0.0, 1.0)
    is_right_B = mean_BC.argmax(axis=-1) == label_B
    edges = np.linspace(0.0, 1.0, NUM_BINS + 1)
    place_B = np.minimum(np.searchsorted(edges, confidence_B, side="right") - 1, NUM_BINS - 1)
    bins = []
    for index, (lower, upper) in enumerate(pairwise(edges.tolist())):
        inside_B = place_B == index
        count = int(inside_B.sum())
        confidence = float(confidence_B[inside_B].mean()) if count else None
        accuracy = float(is_right_B[inside_B].mean()) if count else None
        bins.append(ReliabilityBin(lower, upper, count, confidence, accuracy))
    return tuple(bins)


def expected_calibration_error(bins: tuple[ReliabilityBin, ...]) -> float:
    """Mean distance of confidence and accuracy over the bins, weighted by their rows.

    ECE = Σ_m B_m/B |accuracy_m - confidence_m|

    Source: Naeini et al. 2015; Guo et al. 2017, arXiv:1706.04599.
    """
    total = sum(
        one.count * abs(one.accuracy - one.confidence)
        for one in bins
        if one.accuracy is not None and one.confidence is not None
    )
    return total / sum(one.count for one in bins)


def area_under_risk_coverage(mean_BC: Floats, label_B: NDArray[np.int64]) -> float:
    """Mean error rate of the i most confident rows, over i = 1..B; lower is better.

    AURC = 1/B Σ_i 1/i Σ_{j <= i} [row j wrong], rows by falling largest probability

    Rows of equal confidence count as in the mean over their orders.

    Source: Geifman and El-Yaniv 2017, arXiv:1705.08500; Geifman et al. 2019, arXiv:1805.08206.
    """
    is_wrong_B = (mean_BC.argmax(axis=-1) != label_B).astype(np.float64)
    _, group_B, count_G = np.unique(-mean_BC.max(axis=-1), return_inverse=True, return_counts=True)
    wrong_G = np.bincount(group_B, weights=is_wrong_B) / count_G
    wrong_so_far_B = np.cumsum(np.repeat(wrong_G, count_G))
    return float((wrong_so_far_B / np.arange(1, len(label_B) + 1)).mean())


def regression_figures(
    mean_TBD: Floats,
    variance_TBD: Floats,
    target_BD: Floats,
    interval: tuple[Floats, Floats] | None,
    coverage: float | None,
) -> Report:
    """RMSE, NLL and CRPS of the mixture; coverage, mean width and score of the intervals.

    interval_score = (u - l) + 2/(1-c) (l - y)[y < l] + 2/(1-c) (y - u)[y > u]

    Each is the mean over rows and outputs, in target units (NLL in nats). NLL is None where the
    network gives no variance and no calibration has supplied one.

    Source: Gneiting and Raftery 2007, JASA 102:359-378.
    """
    has_density = bool((variance_TBD > 0).all())
    report: Report = {
        "rmse": _figure(root_mean_squared_error(target_BD.ravel(), mean_TBD.mean(axis=0).ravel())),
        "nll": _figure(mixture_nll(mean_TBD, variance_TBD, target_BD).mean())
        if has_density
        else None,
        "crps": _figure(mixture_crps(mean_TBD, variance_TBD, target_BD).mean()),
        "interval_coverage": None,
        "interval_width": None,
        "interval_score": None,
    }
    if interval is not None and coverage is not None:
        lower_BD, upper_BD = interval
        below_BD = np.maximum(lower_BD - target_BD, 0.0)
        above_BD = np.maximum(target_BD - upper_BD, 0.0)
        width_BD = upper_BD - lower_BD
        miss = 2.0 / (1.0 - coverage)
        report["interval_coverage"] = _figure(((below_BD == 0) & (above_BD == 0)).mean())
        report["interval_width"] = _figure(width_BD.mean())
        report["interval_score"] = _figure((width_BD + miss * (below_BD + above_BD)).mean())
    return report


def mixture_crps(mean_TBD: Floats, variance_TBD: Floats, target_BD: Floats) -> Floats:
    """Continuous ranked probability score of the T-component Gaussian mixture, shape (B, D).

    CRPS = 1/T Σ_i A(y - m_i, v_i) - 1/(2T²) Σ_ij A(m_i - m_j, v_i + v_j)
    A(μ, σ²) = 2 σ φ(μ/σ) + μ (2 Φ(μ/σ) - 1), and |μ| at σ = 0

    In target units; time grows as T² B D, memory as T B D.

    Source: Grimit et al. 2006, Quarterly Journal of the Royal Meteorological Society 132:2925-2942.
    """
    num_samples = len(mean_TBD)
    variance_TBD = np.broadcast_to(variance_TBD, mean_TBD.shape)
    distance_BD: Floats = _expected_distance(target_BD - mean_TBD, variance_TBD).mean(axis=0)
    # A is even in μ: the pairs i < j count twice, the pairs i = i once.
    pairs_BD = _expected_distance(np.zeros_like(mean_TBD), 2.0 * variance_TBD).sum(axis=0)
    for first in range(num_samples - 1):
        difference_tBD = mean_TBD[first] - mean_TBD[first + 1 :]
        sum_tBD = variance_TBD[first] + variance_TBD[first + 1 :]
        pairs_BD += 2.0 * _expected_distance(difference_tBD, sum_tBD).sum(axis=0)
    crps_BD: Floats = distance_BD - pairs_BD / (2.0 * num_samples**2)
    return crps_BD


def ood_figures(
    flag_B: NDArray[np.bool_] | None, score_B: Floats, ood_score_N: Floats | None
) -> Report:
    """Share of in-distribution rows flagged; with strange rows, how well the score parts them.

    Out of distribution is the positive class. `ood_fpr95` is the least share of in-distribution
    rows above a threshold that at least 95 % of the strange ones reach.
    """
    report: Report = {"ood_flag_rate": None if flag_B is None else _figure(flag_B.mean())}
    if ood_score_N is None:
        return report
    is_ood = np.r_[np.zeros(len(score_B), dtype=np.int64), np.ones(len(ood_score_N), np.int64)]
    score = np.r_[score_B, ood_score_N]
    if len(score_B) == 0 or len(ood_score_N) == 0 or not np.isfinite(score).all():
        return report | dict.fromkeys(("ood_auroc", "ood_aupr", "ood_fpr95"))
    false_rate, true_rate, _ = roc_curve(is_ood, score, drop_intermediate=False)
    return report | {
        "ood_auroc": _figure(roc_auc_score(is_ood, score)),
        "ood_aupr": _figure(average_precision_score(is_ood, score)),
        "ood_fpr95": _figure(false_rate[true_rate >= 0.95].min()),
    }


def _set_coverage(sets_BC: NDArray[np.bool_] | None, label_B: NDArray[np.int64]) -> float | None:
    if sets_BC is None:
        return None
    return _figure(sets_BC[np.arange(len(label_B)), label_B].mean())


def _expected_distance(mean: Floats, variance: Floats) -> Floats:
    """E|X| of X ~ N(mean, variance)."""
    deviation = np.sqrt(variance)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(deviation > 0, mean / deviation, np.sign(mean) * np.inf)
    z = np.where(np.isnan(z), 0.0, z)
    density = np.exp(-0.5 * z**2) / sqrt(2 * pi)
    distance: Floats = 2.0 * deviation * density + mean * (2.0 * ndtr(z) - 1.0)
    return distance


def _figure(value: float | np.floating) -> float | None:
    """The number, or None where it is not finite."""
    return float(value) if isfinite(value) else None
