"""Rows that are better than the best so far by most, on average."""

from __future__ import annotations

from dubito.acquisition.draws import Words
from dubito.acquisition.optimisation import log_expected_improvement
from dubito.acquisition.strategies.optimising import OPTIONS, incumbent, one_output, penalised
from dubito.acquisition.strategy import NUMBERS, Context, PointwiseStrategy
from dubito.acquisition.top import Scores
from dubito.engine import Regression


def _score(prediction: Regression, words_B: Words, context: Context) -> Scores:
    mean_B, std_B = one_output(prediction, context)
    best, xi = incumbent(context), context.acquisition.xi
    return log_expected_improvement(mean_B, std_B, best, xi)


EXPECTED_IMPROVEMENT = penalised(
    PointwiseStrategy("expected_improvement", NUMBERS, _score, options=OPTIONS | {"xi"}),
    is_log=True,
)
