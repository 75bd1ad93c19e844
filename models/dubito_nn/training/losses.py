"""Losses: means over rows that are negative log-likelihoods, but for a constant.

Dimensions: B rows, C classes, D outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Output = Tensor | tuple[Tensor, Tensor]
Loss = Callable[[Output, Tensor], Tensor]


def cross_entropy(output: Output, labels: Tensor) -> Tensor:
    """Return the mean over rows of -Σ_c q_c log softmax(output)_c, in nats.

    Args:
        output: Logits, (B, C) or (B, C, ...) with a class per place.
        labels: Class indices (B,) or (B, ...), int64, or probabilities q in the logits' shape.
    """
    return functional.cross_entropy(_single(output), labels)


def smoothed_cross_entropy(smoothing: float) -> Loss:
    """Return the cross-entropy against targets that give a share of their mass to all classes.

    -Σ_c q'_c log softmax(output)_c,    q' = (1 - smoothing) q + smoothing / C

    Args:
        smoothing: The share, from 0 (plain cross-entropy) to below 1.

    Raises:
        ValueError: The share is out of range.

    Source: Szegedy et al. 2016, arXiv:1512.00567, section 7.
    """
    if not 0.0 <= smoothing < 1.0:
        raise ValueError(
            f"expected a label smoothing of at least 0 and below 1, got {smoothing}: use 0.1"
        )

    def loss(output: Output, labels: Tensor) -> Tensor:
        return functional.cross_entropy(_single(output), labels, label_smoothing=smoothing)

    return loss


def squared_error(output: Output, target_BD: Tensor) -> Tensor:
    """Return the mean over rows of Σ_d (y - ŷ)², in squared units of the target.

    Raises:
        ValueError: The targets have another shape than the output.
    """
    mean_BD = _single(output)
    check_targets(mean_BD, target_BD)
    return (mean_BD - target_BD).square().sum(dim=1).mean()


def check_targets(output_BD: Tensor, target_BD: Tensor) -> None:
    """See that real-valued targets have the output's shape, since others would be broadcast.

    Raises:
        ValueError: They have another.
    """
    expected, got = tuple(output_BD.shape), tuple(target_BD.shape)
    if len(expected) != 2 or expected != got:
        remedy = (
            "use targets[:, None]" if expected == (*got, 1) else "one row of D values per input"
        )
        raise ValueError(
            f"expected targets of the output's shape (B, D), here {expected}, got {got}: {remedy}"
        )


def gaussian_nll(output: Output, target_BD: Tensor) -> Tensor:
    """Return the mean over rows of -log N(y; μ, exp s), summed over outputs, in nats.

    ½ Σ_d (s + (y - μ)² exp(-s) + log 2π)

    Args:
        output: The pair μ (B, D), s (B, D), s the logarithm of the variance.
        target_BD: y.

    Raises:
        TypeError: The network has one head.
        ValueError: The targets have another shape than the mean.

    Source: Kendall and Gal 2017, arXiv:1703.04977, equation 8.
    """
    if isinstance(output, Tensor):
        raise TypeError(
            "gaussian_nll expects the pair mean, log_variance, got one tensor: "
            "give the network a second head (heteroscedastic=True)"
        )
    mean_BD, log_variance_BD = output
    check_targets(mean_BD, target_BD)
    squared_BD = (target_BD - mean_BD).square() * torch.exp(-log_variance_BD)
    return 0.5 * (log_variance_BD + squared_BD + math.log(2.0 * math.pi)).sum(dim=1).mean()


def _single(output: Output) -> Tensor:
    if isinstance(output, Tensor):
        return output
    raise TypeError(
        "this loss expects one tensor, got a pair: use gaussian_nll for mean and log_variance"
    )
