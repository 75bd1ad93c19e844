"""Rows drawn in proportion to a power of their mutual information."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dubito.acquisition.draws import Words, gumbels
from dubito.acquisition.strategy import CLASSES, Context, PointwiseStrategy
from dubito.acquisition.top import Scores
from dubito.engine import Classification

_LEAST_INFORMATION = 1e-30  # nats: what a row without any counts as, so that its logarithm exists


def power_bald(information_B: NDArray[np.float64], words_B: Words, beta: float = 1.0) -> Scores:
    """BALD, drawn from rather than maximised: the top k are k draws without replacement ∝ MI^β.

    s_B = β log MI + g, with g standard Gumbel

    Args:
        information_B: mutual information, nats.
        words_B: make the noise.
        beta: exponent; 0 draws evenly, the larger the nearer to BALD.

    Source: Kirsch, Farquhar, Atighehchian, Jesson, Branchaud-Charron and Gal 2021,
    arXiv:2106.12059.
    """
    return beta * np.log(np.maximum(information_B, _LEAST_INFORMATION)) + gumbels(words_B)


def _score(prediction: Classification, words_B: Words, context: Context) -> Scores:
    beta = context.acquisition.beta
    return power_bald(prediction.mutual_information, words_B, 1.0 if beta is None else beta)


POWER_BALD = PointwiseStrategy("power_bald", CLASSES, _score, options=frozenset({"beta"}))
