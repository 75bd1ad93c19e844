"""The declared outputs of all passes, turned into what calibration and replies need.

    logits, log_probs   themselves
    probs               log p
    sigmoid_logits      (0, z): the softmax of these is (1 - p, p)
    mean, variance      in target units: m σ + μ, s + 2 ln σ

Dimensions: T samples, B rows, C classes, D outputs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from dubito_nn import Manifest

Array = NDArray[np.float64]

_LEAST = float(np.finfo(np.float32).tiny)  # keeps log p finite at p = 0


def logits(passes: Array, manifest: Manifest) -> Array:
    """Logits of each pass, shape (T, B, C), whose softmax are the declared probabilities."""
    if manifest.output == "probs":
        return np.log(np.maximum(passes, _LEAST))
    if manifest.output == "sigmoid_logits":
        return np.concatenate([np.zeros_like(passes), passes], axis=-1)
    return passes


def temper(passes: Array, manifest: Manifest, temperature: float) -> Array:
    """Probabilities of each pass at a temperature, shape (T, B, C).

    softmax(z_t / τ)
    """
    probabilities_TBC: Array = softmax(logits(passes, manifest) / temperature, axis=-1)
    return probabilities_TBC


def target_means(passes: Array, manifest: Manifest) -> Array:
    """Means of each pass in target units, shape (T, B, D)."""
    mean_TBD = passes[:, :, 0] if _is_pair(manifest) else passes
    if manifest.target_scale is None:
        return mean_TBD
    centre_D, scale_D = (np.asarray(side) for side in manifest.target_scale)
    scaled_TBD: Array = mean_TBD * scale_D + centre_D
    return scaled_TBD


def target_log_variances(passes: Array, manifest: Manifest) -> Array | None:
    """Log variances of each pass in target units, shape (T, B, D); None where none are declared."""
    if not _is_pair(manifest):
        return None
    log_variance_TBD = passes[:, :, 1]
    if manifest.target_scale is None:
        return log_variance_TBD
    shifted_TBD: Array = log_variance_TBD + 2.0 * np.log(np.asarray(manifest.target_scale[1]))
    return shifted_TBD


def _is_pair(manifest: Manifest) -> bool:
    return manifest.output == "mean_and_log_variance"
