"""From the network's numbers to probabilities or target units.

Its job: apply what the bundle declares of its output; nothing is guessed from values.

A row may have several distributions, one for each label or position; classes are brought to the
last axis, and positions stand between them and the rows. A label is on or off: two classes.

Dimensions: T samples, B rows, P positions (one axis or more), C classes, D outputs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from dubito.engine.calling.columns import Column
from dubito.engine.heads.scaling import Scaling, scaled
from dubito.engine.kernels.constants import constant
from dubito_nn import Manifest

_AT_ONCE_ELEMENTS = 2**20  # of float64: what is made of a few passes over maps is not much larger


def parts_of(
    raw: Tensor, manifest: Manifest, temperature: Scaling
) -> Iterator[tuple[Tensor, Tensor]]:
    """What the sums are made of: `distributions`, or `mean_and_variance`; arguments as there."""
    if manifest.family == "classification":
        yield from distributions(raw, manifest, temperature)
    else:
        yield mean_and_variance(raw, manifest)


def few_parts(
    raw: Tensor, manifest: Manifest, temperature: Scaling
) -> Iterator[tuple[Column, Column]]:
    """The same in numpy, of passes on the host."""
    is_plain = manifest.family == "classification" and not manifest.has_positions
    if is_plain and isinstance(temperature, int | float):
        yield few_probabilities(raw, manifest.output, temperature)
        return
    for first, second in parts_of(raw, manifest, temperature):
        yield first.numpy(), second.numpy()


def distributions(
    raw: Tensor, manifest: Manifest, temperature: Scaling = 1.0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Probabilities of some passes after the others, and how large their logits are.

    Args:
        raw: declared outputs of some passes, in order of t.
        manifest: what they are.
        temperature: on the logits.

    Yields:
        Shapes (T, B, C), or (T, B, P, C), and (T, B, 2), of positions their mean, of labels their
        sum: log Σ exp of the logits, and the largest.
    """
    if not manifest.has_positions:
        yield probabilities(raw, manifest.output, temperature)
        return
    at_once = max(1, _AT_ONCE_ELEMENTS // max(1, raw[:1].numel()))
    for part in torch.split(raw, at_once):
        probs, sizes = _of_logits(class_logits(part, manifest), temperature)
        flat_TBP2 = sizes.flatten(2, -2)
        yield probs, flat_TBP2.sum(2) if manifest.head == "multilabel" else flat_TBP2.mean(2)


def class_logits(raw: Tensor, manifest: Manifest) -> Tensor:
    """Numbers in float64 whose softmax over the last axis are the probabilities of the pass.

    Shape (T, B, C), (T, B, L, 2) for labels, or (T, B, P, C) for a class at every position.
    """
    if manifest.head == "multilabel":
        raw = raw.unsqueeze(-1)
    elif manifest.class_axis is not None:
        raw = raw.movedim(manifest.class_axis + 1, -1)
    return logits(raw, manifest.output)


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
    return _of_logits(logits(raw_TBC, output), temperature)


def _of_logits(logits_TBC: Tensor, temperature: Scaling) -> tuple[Tensor, Tensor]:
    largest_TB = logits_TBC.amax(-1)
    if temperature == 1:
        log_probs_TBC = logits_TBC.log_softmax(-1)
        probs_TBC, log_sum_TB = log_probs_TBC.exp(), largest_TB - log_probs_TBC.amax(-1)
    else:
        probs_TBC = scaled(logits_TBC, temperature).softmax(-1)
        log_sum_TB = logits_TBC.logsumexp(-1)
    return probs_TBC, torch.stack((log_sum_TB, largest_TB), -1)


def few_probabilities(raw_TBC: Tensor, output: str, temperature: float) -> tuple[Column, Column]:
    """The same as `probabilities` in numpy, which is faster where numbers are few."""
    logits_TBC = logits(raw_TBC, output).numpy()
    largest_TB1 = logits_TBC.max(-1, keepdims=True)
    shifted_TBC = logits_TBC - largest_TB1
    power_TBC = np.exp(shifted_TBC)
    total_TB1 = power_TBC.sum(-1, keepdims=True)
    sizes_TB2 = np.concatenate((np.log(total_TB1) + largest_TB1, largest_TB1), -1)
    if temperature != 1:
        power_TBC = np.exp(shifted_TBC / temperature)
        total_TB1 = power_TBC.sum(-1, keepdims=True)
    return power_TBC / total_TB1, sizes_TB2


def logits(raw_TBC: Tensor, output: str) -> Tensor:
    """Numbers in float64 whose softmax are the probabilities of the pass, shape (T, B, C)."""
    raw_TBC = raw_TBC.double()
    if output == "sigmoid_logits":
        return torch.cat([torch.zeros_like(raw_TBC), raw_TBC], dim=-1)
    return raw_TBC.clamp_min(0).log() if output == "probs" else raw_TBC


def log_variance(raw: Tensor, manifest: Manifest) -> Tensor | None:
    """Logarithm of the noise variance of every pass, (T, B, D) in float64; None for a head without.

    log σ² = s + 2 log b: finite where the variance itself underflows or overflows.
    """
    if manifest.output != "mean_and_log_variance":
        return None
    own_TBD = raw[:, :, 1].double()
    if manifest.target_scale is None:
        return own_TBD
    return own_TBD + 2 * constant(manifest.target_scale[1], own_TBD).log()


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
