"""Rows whose class is least sure: predictive entropy."""

from __future__ import annotations

from dubito.acquisition.draws import Words
from dubito.acquisition.strategy import CLASSES, Context, PointwiseStrategy
from dubito.acquisition.top import Scores
from dubito.engine import Classification


def _score(prediction: Classification, words_B: Words, context: Context) -> Scores:
    return prediction.predictive_entropy


ENTROPY = PointwiseStrategy("entropy", CLASSES, _score, needs_spread=False)
