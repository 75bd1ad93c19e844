"""Rows whose probabilities differ most from pass to pass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dubito.acquisition.strategy import ONE_CLASS, PointwiseStrategy
from dubito.acquisition.top import Scores


def mean_std(variance_BC: NDArray[np.float64]) -> Scores:
    """Mean over the classes of the standard deviation over the passes.

    s_B = 1/C Σ_c sqrt(1/T Σ_t (p_tc - p̄_c)²)

    Source: Kampffmeyer, Salberg and Jenssen 2016; Gal, Islam and Ghahramani 2017, arXiv:1703.02910.
    """
    scores: Scores = np.sqrt(variance_BC).mean(axis=1)
    return scores


MEAN_STD = PointwiseStrategy(
    "mean_std", ONE_CLASS, lambda prediction, *_: mean_std(prediction.variance)
)
