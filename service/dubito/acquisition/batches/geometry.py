"""Batches by where their rows lie in the space of the network's features.

    core_set    every row of the pool near a chosen one
    badge       far apart in the space of the last layer's gradients
    k_means     near the centres of clusters of the best rows

Dimensions: N candidates, F features, C classes, K centres.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dubito.acquisition.batches.picks import Picks
from dubito.acquisition.top import Scores
from dubito.engine.calling.arguments import Check

Features = NDArray[np.float64]

_PIECE = 2**22  # distances that are held at once


def core_set(
    features_NF: Features, centres_KF: Features, picks: Picks, check: Check | None = None
) -> None:
    """Greedy k-centre: again and again the row that is farthest from all centres.

    s_n = min over centres c of |x_n - c|

    Args:
        features_NF: of the candidates.
        centres_KF: of rows that have a label; none: the mean of the candidates stands for them.
        picks: the batch, still empty; its scores are the distances.
        check: called between picks.

    Source: Sener and Savarese 2018, arXiv:1708.00489.
    """
    if not len(centres_KF):
        centres_KF = features_NF.mean(axis=0, keepdims=True)
    squared_N = np.full(len(features_NF), np.inf)
    at_once = max(1, _PIECE // len(features_NF))
    for first in range(0, len(centres_KF), at_once):
        _call(check)
        part_kF = centres_KF[first : first + at_once]
        squared_N = np.minimum(squared_N, _squared(features_NF, part_kF).min(axis=1))
    while not picks.is_full:
        _call(check)
        row = picks.best(squared_N)
        picks.take(row, float(np.sqrt(squared_N[row])))
        squared_N = np.minimum(squared_N, _squared(features_NF, features_NF[[row]])[:, 0])


def badge(
    mean_NC: NDArray[np.float64],
    features_NF: Features,
    picks: Picks,
    *,
    seed: int,
    check: Check | None = None,
) -> None:
    """Gradients of the last layer for the label thought most probable, spread by k-means++.

    g_n = (p̄_n - e_ŷ) ⊗ h_n; the first is the longest, the next is drawn ∝ min over chosen |g - g'|²

    The products of C and F are never made: distances follow from those of the two factors.

    Args:
        mean_NC: mean probabilities p̄.
        features_NF: what the last layer takes, h.
        picks: the batch, still empty; its scores are the squared distances.
        seed: of the draws.
        check: called between picks.

    Source: Ash, Zhang, Krishnamurthy, Langford and Agarwal 2020, arXiv:1906.03671; Arthur and
    Vassilvitskii 2007 for k-means++.
    """
    slope_NC = mean_NC.copy()
    slope_NC[np.arange(len(mean_NC)), mean_NC.argmax(axis=1)] -= 1.0
    length_N = np.square(slope_NC).sum(axis=1) * np.square(features_NF).sum(axis=1)
    generator = np.random.Generator(np.random.Philox(key=seed))
    distance_N = length_N
    while not picks.is_full:
        _call(check)
        row = _drawn(distance_N, picks, generator) if picks.rows else picks.best(distance_N)
        picks.take(row, float(distance_N[row]))
        shared_N = (slope_NC @ slope_NC[row]) * (features_NF @ features_NF[row])
        to_last_N = np.maximum(length_N + length_N[row] - 2.0 * shared_N, 0.0)
        distance_N = to_last_N if len(picks.rows) == 1 else np.minimum(distance_N, to_last_N)


def k_means(features_NF: Features, scores_N: Scores, picks: Picks, *, seed: int) -> None:
    """Choose the good rows nearest to the centres of a k-means weighted by their scores.

    min Σ_n (s_n - min s) |x_n - c(n)|²; then for every centre its nearest row that is still open

    Args:
        features_NF: of the best rows.
        scores_N: by which they are the best.
        picks: the batch, still empty; its scores are those of the rows.
        seed: where the centres begin.

    Source: Zhdanov 2019, arXiv:1901.05954.
    """
    from sklearn.cluster import KMeans

    weight_N = scores_N - scores_N.min()
    weight_N = weight_N / weight_N.max() if weight_N.any() else np.ones_like(scores_N)
    clusters = min(picks.k, len(np.unique(features_NF, axis=0)))
    clustering = KMeans(clusters, n_init=1, random_state=seed % 2**32).fit(
        features_NF, sample_weight=weight_N
    )
    distance_NK = _squared(features_NF, clustering.cluster_centers_)
    for centre in range(clusters):
        row = picks.best(-distance_NK[:, centre])
        picks.take(row, float(scores_N[row]))
    while not picks.is_full:  # fewer rows differ than are wanted
        row = picks.best(scores_N)
        picks.take(row, float(scores_N[row]))


def _drawn(weight_N: Scores, picks: Picks, generator: np.random.Generator) -> int:
    """An open row with probability in proportion to its weight."""
    open_N = np.where(picks.is_open & np.isfinite(weight_N), weight_N, 0.0)
    cumulative_N = np.cumsum(open_N)
    point = generator.random() * cumulative_N[-1]
    if cumulative_N[-1] <= 0:
        return picks.best(weight_N)
    row = int(np.searchsorted(cumulative_N, point, side="right"))
    return min(row, int(np.flatnonzero(open_N)[-1]))


def _squared(left_NF: Features, right_KF: Features) -> NDArray[np.float64]:
    """Return the squared distances of rows and centres, (N, K)."""
    lengths_NK = np.square(left_NF).sum(axis=1)[:, None] + np.square(right_KF).sum(axis=1)
    squared_NK: NDArray[np.float64] = np.maximum(lengths_NK - 2.0 * left_NF @ right_KF.T, 0.0)
    return squared_NK


def _call(check: Check | None) -> None:
    if check is not None:
        check()
