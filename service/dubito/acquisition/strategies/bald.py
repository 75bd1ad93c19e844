"""Rows whose label says most about ω: mutual information.

Of numbers the passes are taken as a Gaussian with their mean and covariance; a target is that plus
its noise.

Dimensions: B rows, D outputs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dubito.acquisition.draws import Words
from dubito.acquisition.strategy import (
    CLASSES,
    NUMBERS,
    NUMBERS_AT_POSITIONS,
    Context,
    PointwiseStrategy,
)
from dubito.acquisition.top import Scores
from dubito.engine import Regression
from dubito.errors import InputError

NOISE = frozenset({"noise_variance"})
_SHARE_OF_SCALE = 0.01  # noise variance over that of the target, where nothing else is known


def bald(epistemic_BD: NDArray[np.float64], noise_BD: NDArray[np.float64]) -> Scores:
    """Mutual information of the target and ω for Gaussian targets, summed over the outputs, nats.

    s_B = 1/2 Σ_d log(1 + epistemic_d / noise_d), of positions their mean

    It leaves out what the outputs have in common; `batchbald` counts it.

    Source: Houlsby et al. 2011, arXiv:1112.5745; MacKay 1992.
    """
    information = 0.5 * np.log1p(epistemic_BD / noise_BD).sum(axis=-1)
    scores: Scores = information.reshape(len(information), -1).mean(axis=1)
    return scores


def noise_of(
    aleatoric_BD: NDArray[np.float64], noise_variance: float | None, scale_D: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Noise variances above 0: the network's own, or where it predicts none, what was given.

    Args:
        aleatoric_BD: the network's, target units squared.
        noise_variance: to use where that is 0; None: a hundredth of `scale_D` squared.
        scale_D: standard deviation that the target was standardised by.

    Raises:
        InputError: a noise variance is not above 0, given that the network predicts some.
    """
    if not aleatoric_BD.any():
        least_D = _SHARE_OF_SCALE * np.square(scale_D)
        noise_D = least_D if noise_variance is None else np.asarray(noise_variance)
        return np.broadcast_to(noise_D, aleatoric_BD.shape)
    if noise_variance is not None:
        raise InputError(
            f"`noise_variance` expects a network that predicts no noise, got {noise_variance:g} and"
            " one that does: leave it out"
        )
    return np.maximum(aleatoric_BD, np.finfo(np.float64).tiny)


def noise(prediction: Regression, context: Context) -> NDArray[np.float64]:
    """Noise variance of each target, above 0, in target units squared."""
    noise_variance, each = context.acquisition.noise_variance, prediction.positions or prediction
    return noise_of(each.aleatoric_variance, noise_variance, context.target_scale)


def _of_numbers(prediction: Regression, words_B: Words, context: Context) -> Scores:
    each = prediction.positions or prediction
    return bald(each.epistemic_variance, noise(prediction, context))


BALD = PointwiseStrategy("bald", CLASSES, lambda prediction, *_: prediction.mutual_information)
BALD_OF_NUMBERS = PointwiseStrategy(
    "bald", NUMBERS | NUMBERS_AT_POSITIONS, _of_numbers, options=NOISE
)
