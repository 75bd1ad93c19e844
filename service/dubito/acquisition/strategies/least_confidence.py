"""Rows whose most probable class is least probable."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dubito.acquisition.strategy import ONE_CLASS, PointwiseStrategy
from dubito.acquisition.top import Scores


def least_confidence(mean_BC: NDArray[np.float64]) -> Scores:
    """One less the probability of the most probable class, in [0, 1 - 1/C].

    s_B = 1 - max_c p̄_c

    Source: Lewis and Gale 1994, arXiv:cmp-lg/9407020.
    """
    scores: Scores = 1.0 - mean_BC.max(axis=1)
    return scores


LEAST_CONFIDENCE = PointwiseStrategy(
    "least_confidence",
    ONE_CLASS,
    lambda prediction, *_: least_confidence(prediction.mean),
    needs_spread=False,
)
