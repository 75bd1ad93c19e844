"""Rows whose label says most about ω: mutual information."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dubito.acquisition.draws import Words
from dubito.acquisition.scores import regression
from dubito.acquisition.strategy import CLASSES, NUMBERS, Context, PointwiseStrategy
from dubito.acquisition.top import Scores
from dubito.engine import Classification, Regression

NOISE = frozenset({"noise_variance"})


def noise(prediction: Regression, context: Context) -> NDArray[np.float64]:
    """Noise variance of each target, above 0, in target units squared."""
    noise_variance = context.acquisition.noise_variance
    return regression.noise(prediction.aleatoric_variance, noise_variance, context.target_scale)


def _of_classes(prediction: Classification, words_B: Words, context: Context) -> Scores:
    return prediction.mutual_information


def _of_numbers(prediction: Regression, words_B: Words, context: Context) -> Scores:
    return regression.bald(prediction.epistemic_variance, noise(prediction, context))


BALD = PointwiseStrategy("bald", CLASSES, _of_classes)
BALD_OF_NUMBERS = PointwiseStrategy("bald", NUMBERS, _of_numbers, options=NOISE)
