"""Quantiles of the mixture that a Monte Carlo regression predicts.

F(y) = 1/T Σ_t Φ((y - m_t) / σ_t), and the quantile at p is the y with F(y) = p.

It lies between the least and the greatest of the components' own quantiles; bisection halves that
range until float64 has no room left.

Dimensions: T samples, B rows, D outputs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from dubito.report import Check, blocks, no_check

_HALVINGS = 60


def quantiles(
    mean_TBD: NDArray[np.float64],
    variance_TBD: NDArray[np.float64],
    level: float,
    check: Check = no_check,
) -> NDArray[np.float64]:
    """The quantile of each row and output, shape (B, D), in target units.

    Args:
        mean_TBD: means of the components.
        variance_TBD: variances of the components, above 0, or (1, 1, D) where all have the same.
        level: p, in (0, 1).
        check: called before each halving of a block of rows; whatever it raises ends the work.
    """
    variance_TBD = np.broadcast_to(variance_TBD, mean_TBD.shape)
    quantile_BD = np.empty(mean_TBD.shape[1:])
    for rows in blocks(len(quantile_BD), mean_TBD[:, :1].size, check):
        quantile_BD[rows] = _quantiles(mean_TBD[:, rows], variance_TBD[:, rows], level, check)
    return quantile_BD


def _quantiles(
    mean_TBD: NDArray[np.float64], variance_TBD: NDArray[np.float64], level: float, check: Check
) -> NDArray[np.float64]:
    deviation_TBD = np.sqrt(np.maximum(variance_TBD, np.finfo(np.float64).tiny))
    quantile_TBD = mean_TBD + deviation_TBD * float(ndtri(level))
    lower_BD, upper_BD = quantile_TBD.min(axis=0), quantile_TBD.max(axis=0)
    for _ in range(_HALVINGS):
        check()
        middle_BD = 0.5 * (lower_BD + upper_BD)
        is_below_BD = ndtr((middle_BD - mean_TBD) / deviation_TBD).mean(axis=0) < level
        lower_BD = np.where(is_below_BD, middle_BD, lower_BD)
        upper_BD = np.where(is_below_BD, upper_BD, middle_BD)
    quantile_BD: NDArray[np.float64] = 0.5 * (lower_BD + upper_BD)
    return quantile_BD
