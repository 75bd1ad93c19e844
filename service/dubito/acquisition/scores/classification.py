"""Scores of single rows for classification: the larger, the sooner a row should be labelled.

Entropy, mutual information and variation ratio are the engine's own columns; here are the scores
that are made of them and of the mean probabilities.

Dimensions: B rows, C classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dubito.acquisition.draws import Words, gumbels
from dubito.acquisition.top import Scores

_LEAST_INFORMATION = 1e-30  # nats: what a row without any counts as, so that its logarithm exists


def least_confidence(mean_BC: NDArray[np.float64]) -> Scores:
    """One less the probability of the most probable class, in [0, 1 - 1/C].

    s_B = 1 - max_c p̄_c

    Source: Lewis and Gale 1994, arXiv:cmp-lg/9407020.
    """
    scores: Scores = 1.0 - mean_BC.max(axis=1)
    return scores


def margin(mean_BC: NDArray[np.float64]) -> Scores:
    """How near the second class is to the first, in [-1, 0].

    s_B = p̄_(2) - p̄_(1), the largest probability being p̄_(1)

    Source: Scheffer, Decomain and Wrobel 2001, "Active hidden Markov models for information
    extraction".
    """
    two_B2 = np.partition(mean_BC, -2, axis=1)[:, -2:]
    scores: Scores = two_B2[:, 0] - two_B2[:, 1]
    return scores


def mean_std(variance_BC: NDArray[np.float64]) -> Scores:
    """Mean over the classes of the standard deviation over the passes.

    s_B = 1/C Σ_c sqrt(1/T Σ_t (p_tc - p̄_c)²)

    Source: Kampffmeyer, Salberg and Jenssen 2016; Gal, Islam and Ghahramani 2017, arXiv:1703.02910.
    """
    scores: Scores = np.sqrt(variance_BC).mean(axis=1)
    return scores


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
    scores: Scores = beta * np.log(np.maximum(information_B, _LEAST_INFORMATION)) + gumbels(words_B)
    return scores
