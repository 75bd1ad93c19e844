"""The likelihood of a Gaussian mixture, whose components are the passes.

Dimensions: T samples, B rows, D outputs.
"""

from __future__ import annotations

from math import log, pi

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from dubito.report.blocks import blocks
from dubito.report.statistics import Check, no_check


def mixture_nll(
    mean_TBD: NDArray[np.floating],
    variance_TBD: NDArray[np.float64],
    target_BD: NDArray[np.float64],
    check: Check = no_check,
) -> NDArray[np.float64]:
    """Negative log density of each target under its mixture, in nats, shape (B, D).

    -log 1/T Σ_t N(y; m_t, v_t), outputs each on their own; infinite or undefined at v = 0.
    """
    variance_TBD = np.broadcast_to(variance_TBD, mean_TBD.shape)
    nll_BD = np.empty(target_BD.shape)
    for rows in blocks(len(target_BD), mean_TBD[:, :1].size, check):
        square_TbD = (target_BD[rows] - mean_TBD[:, rows].astype(np.float64)) ** 2
        nll_BD[rows] = nll_of_squares(square_TbD, np.log(variance_TBD[:, rows]))
    return nll_BD


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
