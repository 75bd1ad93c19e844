"""Batches for optimisation: a chosen row takes its neighbours out of the running.

    log α_n ← log α_n + Σ_{j chosen} log φ_j(x_n),   φ_j(x) = Φ((L |x - x_j| - M + μ_j) / σ_j)

φ_j is the probability that x does not lie within the ball around x_j in which no function with
slope at most L and maximum M can have its maximum. L is the steepest slope of μ between any two
candidates, M the incumbent or the largest mean, whichever is larger.

Dimensions: N candidates, P numbers of an input.
Source: González, Dai, Hennig and Lawrence 2016, arXiv:1505.08052.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dubito.acquisition.batches.picks import Picks
from dubito.acquisition.optimisation import log_probability_of_improvement
from dubito.acquisition.top import Scores
from dubito.engine.calling.arguments import Check

_PIECE = 2**22  # distances that are held at once


def choose(
    scores_N: Scores,
    mean_N: NDArray[np.float64],
    std_N: NDArray[np.float64],
    points_NP: NDArray[np.float64],
    picks: Picks,
    *,
    incumbent: float | None,
    is_log: bool,
    check: Check | None = None,
) -> None:
    """Fill a batch; its scores are the logarithm of the acquisition after the penalties.

    Args:
        scores_N: the acquisition of each row alone.
        mean_N: means, the larger the better; rows where it is not finite are passed over.
        std_N: their deviations.
        points_NP: the inputs.
        picks: the batch, still empty.
        incumbent: the best value so far.
        is_log: whether `scores_N` are logarithms already; else those of the softplus are taken, in
            standard deviations of the candidates' from their mean.
        check: called between picks.
    """
    from scipy.spatial.distance import cdist

    log_N = scores_N if is_log else _log_softplus(_in_deviations(scores_N))
    known_N = np.isfinite(mean_N)
    slope = _steepest(mean_N[known_N], points_NP[known_N], check)
    largest = mean_N[known_N].max(initial=-np.inf if incumbent is None else incumbent)
    while not picks.is_full:
        if check is not None:
            check()
        row = picks.best(log_N)
        picks.take(row, float(log_N[row]))
        reach_N = slope * cdist(points_NP, points_NP[[row]])[:, 0] + mean_N[row]
        penalty_N = log_probability_of_improvement(reach_N, std_N[[row]], largest)
        with np.errstate(over="ignore"):
            log_N = np.maximum(log_N + penalty_N, np.finfo(np.float64).min)


def _log_softplus(scores_N: Scores) -> Scores:
    """Log log(1 + e^s), which is s far below 0."""
    near_N = np.log(np.logaddexp(0.0, np.maximum(scores_N, -30.0)))
    return np.where(scores_N < -30.0, scores_N, near_N)


def _in_deviations(scores_N: Scores) -> Scores:
    """Scores in units of their own spread, so that a softplus of them has no unit of the target."""
    finite_N = scores_N[np.isfinite(scores_N)]
    spread = finite_N.std() if finite_N.size else 0.0
    return (scores_N - finite_N.mean()) / spread if spread > 0 else scores_N


def _steepest(
    mean_N: NDArray[np.float64],
    points_NP: NDArray[np.float64],
    check: Check | None,
) -> float:
    """Largest slope between two rows; 0 where no two rows differ."""
    from scipy.spatial.distance import cdist

    steepest = 0.0
    at_once = max(1, _PIECE // max(1, len(points_NP)))
    for first in range(0, len(points_NP), at_once):
        if check is not None:
            check()
        distance_nN = cdist(points_NP[first : first + at_once], points_NP)
        rise_nN = np.abs(mean_N[first : first + at_once, None] - mean_N)
        slope_nN = np.divide(rise_nN, distance_nN, out=rise_nN * 0, where=distance_nN > 0)
        steepest = max(steepest, float(slope_nN.max()))
    return steepest
