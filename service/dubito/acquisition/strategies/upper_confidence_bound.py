"""Rows that may be best, at so many deviations."""

from __future__ import annotations

from dubito.acquisition.draws import Words
from dubito.acquisition.scores import optimisation
from dubito.acquisition.strategies.optimising import OPTIONS, one_output, penalised
from dubito.acquisition.strategy import NUMBERS, Context, PointwiseStrategy
from dubito.acquisition.top import Scores
from dubito.engine import Regression


def _score(prediction: Regression, words_B: Words, context: Context) -> Scores:
    mean_B, std_B = one_output(prediction, context)
    beta = context.acquisition.beta
    return optimisation.upper_confidence_bound(mean_B, std_B, 4.0 if beta is None else beta)


UPPER_CONFIDENCE_BOUND = penalised(
    PointwiseStrategy("upper_confidence_bound", NUMBERS, _score, options=OPTIONS | {"beta"}),
    is_log=False,
)
