"""Rows that are most probably better than the best so far."""

from __future__ import annotations

from dubito.acquisition.draws import Words
from dubito.acquisition.optimisation import log_probability_of_improvement
from dubito.acquisition.strategies.optimising import OPTIONS, incumbent, one_output, penalised
from dubito.acquisition.strategy import NUMBERS, Context, PointwiseStrategy
from dubito.acquisition.top import Scores
from dubito.engine import Regression


def _score(prediction: Regression, words_B: Words, context: Context) -> Scores:
    mean_B, std_B = one_output(prediction, context)
    best, xi = incumbent(context), context.acquisition.xi
    return log_probability_of_improvement(mean_B, std_B, best, xi)


PROBABILITY_OF_IMPROVEMENT = penalised(
    PointwiseStrategy("probability_of_improvement", NUMBERS, _score, options=OPTIONS | {"xi"}),
    is_log=True,
)
