"""Scores of single rows for optimisation, from the mean and deviation of a regression's passes.

With `maximize` false the signs of mean and incumbent are turned. The deviation is epistemic: of the
function, not of noisy targets.

Dimensions: B rows, T samples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from dubito.acquisition.draws import Words
from dubito.acquisition.top import Scores

_NORM = 1 / np.sqrt(2 * np.pi)


def expected_improvement(
    mean_B: NDArray[np.float64], std_B: NDArray[np.float64], incumbent: float, xi: float = 0.0
) -> Scores:
    """How much better than the incumbent a Gaussian is on average, in target units.

    s_B = d Φ(d/σ) + σ φ(d/σ), d = μ - incumbent - ξ; max(d, 0) where σ = 0

    Source: Jones, Schonlau and Welch 1998, "Efficient global optimization of expensive black-box
    functions".
    """
    gain_B = mean_B - incumbent - xi
    is_wide_B = std_B > 0
    z_B = np.divide(gain_B, std_B, out=np.zeros_like(gain_B), where=is_wide_B)
    density_B = _NORM * np.exp(-0.5 * np.square(z_B))
    scores_B = np.maximum(gain_B * ndtr(z_B) + std_B * density_B, 0.0)
    return np.where(is_wide_B, scores_B, np.maximum(gain_B, 0.0))


def probability_of_improvement(
    mean_B: NDArray[np.float64], std_B: NDArray[np.float64], incumbent: float, xi: float = 0.0
) -> Scores:
    """Probability that a Gaussian is better than the incumbent by ξ.

    s_B = Φ((μ - incumbent - ξ) / σ); 0 or 1 where σ = 0

    Source: Kushner 1964, "A new method of locating the maximum point of an arbitrary multipeak
    curve in the presence of noise".
    """
    gain_B = mean_B - incumbent - xi
    is_wide_B = std_B > 0
    z_B = np.divide(gain_B, std_B, out=np.zeros_like(gain_B), where=is_wide_B)
    return np.where(is_wide_B, ndtr(z_B), (gain_B > 0).astype(np.float64))


def upper_confidence_bound(
    mean_B: NDArray[np.float64], std_B: NDArray[np.float64], beta: float = 4.0
) -> Scores:
    """Mean plus so many deviations, in target units.

    s_B = μ + sqrt(β) σ

    Source: Srinivas, Krause, Kakade and Seeger 2010, arXiv:0912.3995.
    """
    scores: Scores = mean_B + np.sqrt(beta) * std_B
    return scores


def thompson_order(words_T: Words, k: int) -> NDArray[np.int64]:
    """Which ω each of k candidates maximises: all T in an order by the words, then again, (k,).

    x_j = argmax_x f(x, ω_order(j)), without those before it

    Source: Thompson 1933; in batches Kandasamy, Krishnamurthy, Schneider and Póczos 2018,
    arXiv:1705.09236.
    """
    order_T = np.argsort(words_T, kind="stable")
    return np.resize(order_T, k)
