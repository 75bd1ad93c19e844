"""Losses: means over rows that are negative log-likelihoods, but for a constant.

Dimensions: B rows, C classes, D outputs, Q quantiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from dubito_nn.manifest import LEVELS, are_levels

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


def squared_error(output: Output, targets: Tensor) -> Tensor:
    """Return the mean over rows, and positions, of Σ_d (y - ŷ)², in squared units of the target.

    Args:
        output: Means, (B, D) or (B, D, ...) with numbers at every position.
        targets: y, in the same shape.

    Raises:
        ValueError: The targets have another shape than the output.
    """
    mean = _single(output)
    check_targets(mean, targets, may_have_positions=True)
    return (mean - targets).square().sum(dim=1).mean()


def check_targets(
    output_BD: Tensor, target_BD: Tensor, *, may_have_positions: bool = False
) -> None:
    """See that real-valued targets have the output's shape, since others would be broadcast.

    Args:
        output_BD: One number for each output.
        target_BD: As many.
        may_have_positions: Whether axes of positions may follow, (B, D, ...).

    Raises:
        ValueError: They have another.
    """
    expected, got = tuple(output_BD.shape), tuple(target_BD.shape)
    is_known = len(expected) == 2 or (may_have_positions and len(expected) > 2)
    if not is_known or expected != got:
        remedy = (
            "use targets[:, None]" if expected == (*got, 1) else "one row of D values per input"
        )
        raise ValueError(
            f"expected targets of the output's shape (B, D), here {expected}, got {got}: {remedy}"
        )


def gaussian_nll(output: Output, targets: Tensor) -> Tensor:
    """Return the mean over rows, and positions, of -log N(y; μ, exp s), over outputs, in nats.

    ½ Σ_d (s + (y - μ)² exp(-s) + log 2π)

    Args:
        output: The pair μ and s, the logarithm of the variance; (B, D) each, or (B, D, ...) with
            numbers at every position.
        targets: y, in the shape of μ.

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
    mean, log_variance = output
    check_targets(mean, targets, may_have_positions=True)
    squared = (targets - mean).square() * torch.exp(-log_variance)
    return 0.5 * (log_variance + squared + math.log(2.0 * math.pi)).sum(dim=1).mean()


def pinball_loss(levels: Sequence[float]) -> Loss:
    """Return the loss whose minimum over each output ŷ_dq is the quantile of level τ_q.

    mean over rows of Σ_d 1/Q Σ_q max(τ_q u, (τ_q - 1) u),    u = y_d - ŷ_dq

    In units of the target. The network returns quantiles, (B, D, Q), or (B, Q) of one output; the
    targets are (B, D).

    Args:
        levels: τ in ascending order, .5 among them, as `export(quantile_levels=...)` takes them.

    Raises:
        ValueError: The levels are others; the loss raises it where outputs or targets have another
            shape.

    Source: Koenker and Bassett 1978, Regression Quantiles, Econometrica 46(1).
    """
    if not are_levels(levels):
        raise ValueError(f"expected {LEVELS}, got {list(levels)}: use (0.1, 0.5, 0.9)")

    def loss(output: Output, target_BD: Tensor) -> Tensor:
        quantiles = _single(output)
        quantile_BDQ = quantiles.unsqueeze(1) if quantiles.ndim == 2 else quantiles
        if quantile_BDQ.ndim != 3 or quantile_BDQ.shape[2] != len(levels):
            raise ValueError(
                f"expected {len(levels)} quantiles on the last axis of (B, D, Q), got the shape"
                f" {tuple(quantiles.shape)}: return one for each level"
            )
        check_targets(quantile_BDQ[..., 0], target_BD)
        error_BDQ = target_BD.unsqueeze(2) - quantile_BDQ
        level_Q = torch.tensor(levels, dtype=error_BDQ.dtype, device=error_BDQ.device)
        each_BDQ = torch.maximum(level_Q * error_BDQ, (level_Q - 1.0) * error_BDQ)
        return each_BDQ.mean(dim=2).sum(dim=1).mean()

    return loss


def _single(output: Output) -> Tensor:
    if isinstance(output, Tensor):
        return output
    raise TypeError(
        "this loss expects one tensor, got a pair: use gaussian_nll for mean and log_variance"
    )
