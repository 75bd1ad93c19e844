"""From the network's numbers to probabilities or target units.

Its job: apply what the bundle declares of its output; nothing is guessed from values.

Dimensions: T samples, B rows, C classes, D outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dubito.engine.constants import constant
from dubito.engine.scaling import Scaling, scaled
from dubito_nn import Manifest


def probabilities(
    raw_TBC: Tensor, output: str, temperature: Scaling = 1.0
) -> tuple[Tensor, Tensor]:
    """Probabilities of every pass, and how large its logits are without the temperature.

    p_tbc = softmax(z_tb / temperature)_c and log Σ_c exp z_c = max_c z_c - max_c log softmax(z)_c

    One logit per row (`sigmoid_logits`) becomes the two logits (0, z). Probabilities take part as
    their own logarithms.

    Returns:
        Shapes (T, B, C) and (T, B, 2): log Σ exp of the logits and the largest; in float64.
    """
    logits_TBC = logits(raw_TBC, output)
    largest_TB = logits_TBC.amax(-1)
    if temperature == 1:
        log_probs_TBC = logits_TBC.log_softmax(-1)
        probs_TBC, log_sum_TB = log_probs_TBC.exp(), largest_TB - log_probs_TBC.amax(-1)
    else:
        probs_TBC = scaled(logits_TBC, temperature).softmax(-1)
        log_sum_TB = logits_TBC.logsumexp(-1)
    return probs_TBC, torch.stack((log_sum_TB, largest_TB), -1)


def logits(raw_TBC: Tensor, output: str) -> Tensor:
    """Numbers in float64 whose softmax are the probabilities of the pass, shape (T, B, C)."""
    raw_TBC = raw_TBC.double()
    if output == "sigmoid_logits":
        return torch.cat([torch.zeros_like(raw_TBC), raw_TBC], dim=-1)
    return raw_TBC.clamp_min(0).log() if output == "probs" else raw_TBC


def mean_and_variance(raw: Tensor, manifest: Manifest) -> tuple[Tensor, Tensor]:
    """Mean and noise variance of every pass in target units, each (T, B, D), in float64.

    μ = a + b·m and σ² = b²·exp(s), with the target's mean a and standard deviation b, for a pair
    (m, s) of shape (T, B, 2, D); a head without s has no noise of its own.
    """
    raw = raw.double()
    paired = manifest.output == "mean_and_log_variance"
    mean_TBD = raw[:, :, 0] if paired else raw
    noise_TBD = raw[:, :, 1].exp() if paired else torch.zeros_like(raw)
    if manifest.target_scale is not None:
        shift, factor = (constant(part, mean_TBD) for part in manifest.target_scale)
        mean_TBD, noise_TBD = shift + factor * mean_TBD, factor.square() * noise_TBD
    return mean_TBD, noise_TBD
