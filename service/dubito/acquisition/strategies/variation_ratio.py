"""Rows whose passes agree least on a class."""

from __future__ import annotations

from dubito.acquisition.draws import Words
from dubito.acquisition.strategy import CLASSES, Context, PointwiseStrategy
from dubito.acquisition.top import Scores
from dubito.engine import Classification


def _score(prediction: Classification, words_B: Words, context: Context) -> Scores:
    return prediction.variation_ratio


VARIATION_RATIO = PointwiseStrategy("variation_ratio", CLASSES, _score)
