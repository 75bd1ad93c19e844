"""Rows whose target is least sure: predictive variance."""

from __future__ import annotations

from dubito.acquisition.draws import Words
from dubito.acquisition.scores import regression
from dubito.acquisition.strategy import NUMBERS, Context, PointwiseStrategy
from dubito.acquisition.top import Scores
from dubito.engine import Regression


def _score(prediction: Regression, words_B: Words, context: Context) -> Scores:
    return regression.variance(prediction.variance)


VARIANCE = PointwiseStrategy("variance", NUMBERS, _score)
