"""Rows whose two most probable classes are nearest to each other."""

from __future__ import annotations

from dubito.acquisition.draws import Words
from dubito.acquisition.scores import classification
from dubito.acquisition.strategy import ONE_CLASS, Context, PointwiseStrategy
from dubito.acquisition.top import Scores
from dubito.engine import Classification


def _score(prediction: Classification, words_B: Words, context: Context) -> Scores:
    return classification.margin(prediction.mean)


MARGIN = PointwiseStrategy("margin", ONE_CLASS, _score, needs_spread=False)
