"""Rows whose target is least sure: predictive variance; sequences of which the passes disagree."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dubito.acquisition.strategy import (
    NUMBERS,
    NUMBERS_AT_POSITIONS,
    SEQUENCES,
    PointwiseStrategy,
)
from dubito.acquisition.top import Scores
from dubito.engine import SequenceScores


def variance(variance_BD: NDArray[np.float64]) -> Scores:
    """Variance of the target, noise included, summed over the outputs.

    s_B = Σ_d (epistemic_d + aleatoric_d)

    Source: MacKay 1992, "Information-based objective functions for active data selection".
    """
    scores: Scores = variance_BD.sum(axis=1)
    return scores


def of_sequences(prediction: SequenceScores) -> Scores:
    """Variance over the passes of a sequence's log-probability for each token; 0 without tokens.

    s_B = Var_t (1/|M| Σ_{l in M} log p_tl): without the length it would choose the longest.

    Source: Fomicheva et al. 2020, arXiv:2005.10608 (D-Var).
    """
    return np.where(prediction.num_tokens > 0, prediction.normalised_variance, 0.0)


VARIANCE = PointwiseStrategy(
    "variance",
    NUMBERS | NUMBERS_AT_POSITIONS,
    lambda prediction, *_: variance(prediction.variance),
)
VARIANCE_OF_SEQUENCES = PointwiseStrategy(
    "variance", SEQUENCES, lambda prediction, *_: of_sequences(prediction)
)
