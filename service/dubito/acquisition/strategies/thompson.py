"""Rows that are best in one thinned network each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dubito.acquisition.draws import Words, words
from dubito.acquisition.scores import optimisation
from dubito.acquisition.strategies.optimising import OPTIONS, one_output
from dubito.acquisition.strategy import NUMBERS, Context, PointwiseStrategy, kept_samples
from dubito.engine import Regression


def _score(prediction: Regression, words_B: Words, context: Context) -> NDArray[np.float64]:
    """Values at each ω that some candidate maximises, (J, B)."""
    one_output(prediction, context)  # refuses several
    acquisition = context.acquisition
    sign = 1.0 if acquisition.maximize else -1.0
    words_T = words(acquisition.seed, np.arange(context.num_samples))
    used_J = optimisation.thompson_order(words_T, min(acquisition.k, context.num_samples))
    values_JB: NDArray[np.float64] = sign * kept_samples(prediction)[used_J, :, 0]
    return values_JB


THOMPSON = PointwiseStrategy(
    "thompson",
    NUMBERS,
    _score,
    needs_samples=True,
    is_spread=True,
    scores_are_values=True,
    options=OPTIONS,
)
