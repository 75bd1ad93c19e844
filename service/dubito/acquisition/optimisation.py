"""Improvements on the best value so far, from mean and deviation of a regression's passes.

With `maximize` false the signs of mean and incumbent are turned. The deviation is epistemic: of the
function, not of noisy targets. Improvements are scored by their logarithms: they themselves are 0
beyond 38 deviations, where no row could be told from another.

Dimensions: B rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcx, log_ndtr, ndtr

from dubito.acquisition.top import Scores

_LOG_ROOT = 0.5 * np.log(2 * np.pi)
_SURE = 37.0  # deviations, beyond which Φ is 1 to 300 digits, and EI the gain to as many
_STILL = 1e120  # deviations to a gain of 1 where the deviation is 0: all but infinitely many
_LEAST_GAIN = 1e-30  # no gain without deviation counts as a loss of so much
_LOWEST = np.finfo(np.float64).min


def log_expected_improvement(
    mean_B: NDArray[np.float64], std_B: NDArray[np.float64], incumbent: float, xi: float = 0.0
) -> Scores:
    """Logarithm of how much better than the incumbent a Gaussian is on average, nats.

    s_B = log σ + log h(z), h(z) = φ(z) + z Φ(z), z = (μ - incumbent - ξ) / σ

    and below z = -1, where h is a difference of nearly equal numbers,

    log h(z) = -z²/2 - log(2π)/2 + log(1 - sqrt(π/2) |z| erfcx(|z|/√2)), at last 1/z² in place of
    the difference.

    Where σ = 0 it is log d of a gain d; without a gain it is finite and far below all others, the
    more so the larger the loss. exp(s_B) is in target units.

    Source: Jones, Schonlau and Welch 1998, "Efficient global optimization of expensive black-box
    functions"; Ament, Daulton, Eriksson, Balandat and Bakshy 2023, arXiv:2310.20708, equation 9.
    """
    gain_B = mean_B - incumbent - xi
    z_B = _deviations(gain_B, std_B)
    near_B, far_B = np.clip(z_B, -1.0, _SURE), -np.minimum(z_B, -1.0)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        density_B = np.exp(-0.5 * np.square(near_B) - _LOG_ROOT)
        straight_B = np.log(density_B + near_B * ndtr(near_B))
        share_B = 1.0 - np.sqrt(np.pi / 2) * far_B * erfcx(far_B / np.sqrt(2))
        rest_B = np.where(far_B < 1e4, np.log(share_B), -2.0 * np.log(far_B))
        log_h_B = np.where(z_B > -1.0, straight_B, rest_B - 0.5 * np.square(far_B) - _LOG_ROOT)
        log_std_B = np.where(std_B == 0, 0.0, np.log(std_B))
        scores_B = np.where(z_B > _SURE, np.log(gain_B), log_std_B + log_h_B)
    return np.maximum(scores_B, _LOWEST)


def log_probability_of_improvement(
    mean_B: NDArray[np.float64], std_B: NDArray[np.float64], incumbent: float, xi: float = 0.0
) -> Scores:
    """Logarithm of the probability that a Gaussian is better than the incumbent by ξ, nats.

    s_B = log Φ(z), z = (μ - incumbent - ξ) / σ

    Beyond 37 deviations, where it is 0 to 300 digits, what is left falls with z, so that the order
    stays. Where σ = 0 it is 0 for a gain; without one it is finite and far below all others.

    Source: Kushner 1964, "A new method of locating the maximum point of an arbitrary multipeak
    curve in the presence of noise".
    """
    z_B = _deviations(mean_B - incumbent - xi, std_B)
    with np.errstate(over="ignore"):
        chance_B = log_ndtr(np.minimum(z_B, _SURE))
    return np.maximum(chance_B * (_SURE / np.maximum(z_B, _SURE)) ** (1 / 16), _LOWEST)


def _deviations(gain_B: NDArray[np.float64], std_B: NDArray[np.float64]) -> NDArray[np.float64]:
    """The gain in deviations, z; without deviation so far out that nothing else is."""
    least_B = np.where(gain_B > 0, _LEAST_GAIN, -_LEAST_GAIN)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        z_B: NDArray[np.float64] = np.where(std_B == 0, (gain_B + least_B) * _STILL, gain_B / std_B)
    return z_B
