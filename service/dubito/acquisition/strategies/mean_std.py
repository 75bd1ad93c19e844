"""Rows whose probabilities differ most from pass to pass."""

from __future__ import annotations

from dubito.acquisition.draws import Words
from dubito.acquisition.scores import classification
from dubito.acquisition.strategy import ONE_CLASS, Context, PointwiseStrategy
from dubito.acquisition.top import Scores
from dubito.engine import Classification


def _score(prediction: Classification, words_B: Words, context: Context) -> Scores:
    return classification.mean_std(prediction.variance)


MEAN_STD = PointwiseStrategy("mean_std", ONE_CLASS, _score)
