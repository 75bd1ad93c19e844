"""Rows that are best in one thinned network each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dubito.acquisition.draws import Words, words
from dubito.acquisition.strategies.optimising import OPTIONS, one_output
from dubito.acquisition.strategy import NUMBERS, Context, PointwiseStrategy, kept_samples
from dubito.engine import Regression


def thompson_order(words_T: Words, k: int) -> NDArray[np.int64]:
    """Which ω each of k candidates maximises: all T in an order by the words, then again, (k,).

    x_j = argmax_x f(x, ω_order(j)), without those before it

    Source: Thompson 1933; in batches Kandasamy, Krishnamurthy, Schneider and Póczos 2018,
    arXiv:1705.09236.
    """
    order_T = np.argsort(words_T, kind="stable")
    return np.resize(order_T, k)


def _score(prediction: Regression, words_B: Words, context: Context) -> NDArray[np.float64]:
    """Values at each ω that some candidate maximises, (J, B)."""
    one_output(prediction, context)  # refuses several
    acquisition = context.acquisition
    sign = 1.0 if acquisition.maximize else -1.0
    words_T = words(acquisition.seed, np.arange(context.num_samples))
    used_J = thompson_order(words_T, min(acquisition.k, context.num_samples))
    return sign * kept_samples(prediction)[used_J, :, 0]


THOMPSON = PointwiseStrategy(
    "thompson",
    NUMBERS,
    _score,
    needs_samples=True,
    is_spread=True,
    scores_are_values=True,
    options=OPTIONS,
)
