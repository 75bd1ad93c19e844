"""Rows whose target is least sure: predictive variance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dubito.acquisition.strategy import NUMBERS, NUMBERS_AT_POSITIONS, PointwiseStrategy
from dubito.acquisition.top import Scores


def variance(variance_BD: NDArray[np.float64]) -> Scores:
    """Variance of the target, noise included, summed over the outputs.

    s_B = Σ_d (epistemic_d + aleatoric_d)

    Source: MacKay 1992, "Information-based objective functions for active data selection".
    """
    scores: Scores = variance_BD.sum(axis=1)
    return scores


VARIANCE = PointwiseStrategy(
    "variance",
    NUMBERS | NUMBERS_AT_POSITIONS,
    lambda prediction, *_: variance(prediction.variance),
)
