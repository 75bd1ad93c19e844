"""The likelihood of a Gaussian mixture, whose components are the passes.

Dimensions: T samples, B rows, D outputs.
"""

from __future__ import annotations

from math import log, pi

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp


def mixture_nll(
    mean_TBD: NDArray[np.floating],
    variance_TBD: NDArray[np.float64],
    target_BD: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Negative log density of each target under its mixture, in nats, shape (B, D).

    -log 1/T Σ_t N(y; m_t, v_t), outputs each on their own; infinite or undefined at v = 0.
    """
    square_TBD = (target_BD - mean_TBD.astype(np.float64)) ** 2
    return nll_of_squares(square_TBD, np.log(variance_TBD))


def nll_of_squares(
    square: NDArray[np.float64], log_variance: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Negative log density as `mixture_nll`, from squared residuals and log variances, (T, ...)."""
    log_density = -0.5 * (_standardised(square, log_variance) + log_variance + log(2 * pi))
    return log(len(square)) - logsumexp(log_density, axis=0)


def _standardised(
    square: NDArray[np.float64], log_variance: NDArray[np.float64]
) -> NDArray[np.float64]:
    # Two finite factors: 0 where the residual is 0, never 0 times infinity.
    with np.errstate(over="ignore"):
        standardised: NDArray[np.float64] = square * np.exp(np.minimum(-log_variance, 700.0))
    return standardised
