"""Rows whose two most probable classes are nearest to each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dubito.acquisition.strategy import ONE_CLASS, PointwiseStrategy
from dubito.acquisition.top import Scores


def margin(mean_BC: NDArray[np.float64]) -> Scores:
    """How near the second class is to the first, in [-1, 0].

    s_B = p̄_(2) - p̄_(1), the largest probability being p̄_(1)

    Source: Scheffer, Decomain and Wrobel 2001, "Active hidden Markov models for information
    extraction".
    """
    two_B2 = np.partition(mean_BC, -2, axis=1)[:, -2:]
    return two_B2[:, 0] - two_B2[:, 1]


MARGIN = PointwiseStrategy(
    "margin", ONE_CLASS, lambda prediction, *_: margin(prediction.mean), needs_spread=False
)
