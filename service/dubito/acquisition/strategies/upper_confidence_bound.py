"""Rows that may be best, at so many deviations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dubito.acquisition.draws import Words
from dubito.acquisition.strategies.optimising import OPTIONS, one_output, penalised
from dubito.acquisition.strategy import NUMBERS, Context, PointwiseStrategy
from dubito.acquisition.top import Scores
from dubito.engine import Regression


def upper_confidence_bound(
    mean_B: NDArray[np.float64], std_B: NDArray[np.float64], beta: float = 4.0
) -> Scores:
    """Mean plus so many deviations, in target units.

    s_B = μ + sqrt(β) σ

    Source: Srinivas, Krause, Kakade and Seeger 2010, arXiv:0912.3995.
    """
    scores: Scores = mean_B + np.sqrt(beta) * std_B
    return scores


def _score(prediction: Regression, words_B: Words, context: Context) -> Scores:
    mean_B, std_B = one_output(prediction, context)
    beta = context.acquisition.beta
    return upper_confidence_bound(mean_B, std_B, 4.0 if beta is None else beta)


UPPER_CONFIDENCE_BOUND = penalised(
    PointwiseStrategy("upper_confidence_bound", NUMBERS, _score, options=OPTIONS | {"beta"}),
    is_log=False,
)
