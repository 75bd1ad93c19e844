"""Scores of single rows for regression, from the variances in target units.

Passes are taken as a Gaussian with their mean and covariance; a target is that plus its noise.

Dimensions: B rows, D outputs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dubito.acquisition.top import Scores
from dubito.errors import InputError

_SHARE_OF_SCALE = 0.01  # noise variance over that of the target, where nothing else is known


def variance(variance_BD: NDArray[np.float64]) -> Scores:
    """Variance of the target, noise included, summed over the outputs.

    s_B = Σ_d (epistemic_d + aleatoric_d)

    Source: MacKay 1992, "Information-based objective functions for active data selection".
    """
    scores: Scores = variance_BD.sum(axis=1)
    return scores


def bald(epistemic_BD: NDArray[np.float64], noise_BD: NDArray[np.float64]) -> Scores:
    """Mutual information of the target and ω for Gaussian targets, summed over the outputs, nats.

    s_B = 1/2 Σ_d log(1 + epistemic_d / noise_d)

    It leaves out what the outputs have in common; `batchbald` counts it.

    Source: Houlsby et al. 2011, arXiv:1112.5745; MacKay 1992.
    """
    scores: Scores = 0.5 * np.log1p(epistemic_BD / noise_BD).sum(axis=1)
    return scores


def noise(
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
