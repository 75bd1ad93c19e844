"""Rows drawn in proportion to a power of their mutual information."""

from __future__ import annotations

from dubito.acquisition.draws import Words
from dubito.acquisition.scores import classification
from dubito.acquisition.strategy import CLASSES, Context, PointwiseStrategy
from dubito.acquisition.top import Scores
from dubito.engine import Classification


def _score(prediction: Classification, words_B: Words, context: Context) -> Scores:
    beta = context.acquisition.beta
    exponent = 1.0 if beta is None else beta
    return classification.power_bald(prediction.mutual_information, words_B, exponent)


POWER_BALD = PointwiseStrategy("power_bald", CLASSES, _score, options=frozenset({"beta"}))
