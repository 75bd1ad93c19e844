"""From the network's numbers to probabilities: what all heads of classes share.

Its job: apply what the bundle declares of its output; nothing is guessed from values.

Dimensions: T samples, B rows, C classes on the last axis; any axes may lie between.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dubito.engine.heads.scaling import Scaling, scaled
from dubito.engine.summing.logits import Logits
from dubito_nn import Manifest


def logits(raw_TBC: Tensor, output: str) -> Tensor:
    """Numbers in float64 whose softmax are the probabilities of the pass, shape (T, B, C).

    One logit per row (`sigmoid_logits`) becomes the two logits (0, z). Probabilities take part as
    their own logarithms.
    """
    raw_TBC = raw_TBC.double()
    if output == "sigmoid_logits":
        return torch.cat([torch.zeros_like(raw_TBC), raw_TBC], dim=-1)
    return raw_TBC.clamp_min(0).log() if output == "probs" else raw_TBC


def probabilities(raw_TBC: Tensor, output: str, scaling: Scaling = 1.0) -> tuple[Tensor, Tensor]:
    """Probabilities of every pass, and how large its logits are; arguments as of `logits`."""
    return of_logits(logits(raw_TBC, output), scaling)


def of_logits(logits_TBC: Tensor, scaling: Scaling) -> tuple[Tensor, Tensor]:
    """Probabilities of every pass, and how large its logits are before they are scaled.

    p_tbc = softmax(z_tb / temperature)_c and log Σ_c exp z_c = max_c z_c - max_c log softmax(z)_c

    Returns:
        Shapes (T, B, C) and (T, B, 2): log Σ exp of the logits and the largest; in float64.
    """
    log_probs_TBC = logits_TBC.log_softmax(-1)
    is_plain = isinstance(scaling, int | float) and scaling == 1
    probs_TBC = log_probs_TBC.exp() if is_plain else scaled(logits_TBC, scaling).softmax(-1)
    return probs_TBC, sizes_of(logits_TBC, log_probs_TBC)


def to_sum(raw_TBC: Tensor, output: str, scaling: Scaling) -> Logits:
    """The logits of some passes as compiled loops take them; arguments as of `logits`."""
    if isinstance(scaling, int | float):
        plain = raw_TBC.clamp_min(0).log() if output == "probs" else raw_TBC
        return Logits(plain.float(), float(scaling), is_binary=output == "sigmoid_logits")
    logits_TBC = logits(raw_TBC, output)
    return Logits(
        scaled(logits_TBC, scaling).float(), sizes=sizes_of(logits_TBC, logits_TBC.log_softmax(-1))
    )


def sizes_of(logits_TBC: Tensor, log_probs_TBC: Tensor) -> Tensor:
    """Return log Σ exp of the logits, and the largest of them, (T, B, 2); nan of an overflow.

    Args:
        logits_TBC: before they are scaled.
        log_probs_TBC: their log softmax.
    """
    largest_TB = logits_TBC.amax(-1)
    log_sum_TB = largest_TB - log_probs_TBC.amax(-1)
    return torch.stack((log_sum_TB, largest_TB + 0 * log_sum_TB), -1)


def has_many_classes(manifest: Manifest) -> bool:
    """Whether a probability is a function of several sums of units, not of one."""
    return manifest.output != "sigmoid_logits" and manifest.num_outputs > 2
