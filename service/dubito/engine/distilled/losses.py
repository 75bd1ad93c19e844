"""How far what a head says of rows is from what the passes said.

Classes, with p_n the probabilities at N fixed points of the scores, q and v mean and variance of
the passes' probabilities, A their expected entropy, I their mutual information:

    KL(q ‖ p̄) + |H̄ - A| + |J - I| + ¼ (log(J + ε) - log(I + ε))² + Σ_c (√Var p_n - √v)²
    p̄ = mean p_n,   H̄ = mean H[p_n],   J = H[p̄] - H̄

Numbers, with m, v, a the passes' mean, variance and noise, and w, of a network without it, 0:

    (m' - m)² / (v + v̄) + (log(v' + ε) - log(v + ε))² + w (log a' - log a)²

The logarithms let rows of which the passes are nearly sure count too, by which ranks are decided.

Dimensions: B rows, N fixed points, C classes, D numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from dubito.engine.distilled.lessons import Lessons
from dubito.engine.moments import OutputMoments

Loss: TypeAlias = Callable[[OutputMoments, Lessons], Tensor]
_LEAST_INFORMATION = 1e-5
_LEAST_VARIANCE = 1e-6
_LEAST_SHARE = 1e-3  # of the mean variance over all rows
_OF_RANKS = 0.25
_TINY = 1e-12


def loss_of(output: str, lessons: Lessons) -> Loss:
    """The loss of a kind of output.

    Args:
        output: as the bundle declares it.
        lessons: all that will be learned, whose scale counts.
    """
    if output not in ("mean", "mean_and_log_variance"):
        return of_classes
    usual_D = lessons.spread.double().mean(0).clamp_min(_TINY).float()

    def of_numbers(moments: OutputMoments, asked: Lessons) -> Tensor:
        return _of_numbers(moments, asked, usual_D, is_pair=output != "mean")

    return of_numbers


def of_classes(moments: OutputMoments, asked: Lessons) -> Tensor:
    """The mean loss of some rows of classes, of moments of their logits."""
    z_BCN = moments.nodes_inside()
    if z_BCN.shape[1] == 1:
        z_BCN = torch.cat([torch.zeros_like(z_BCN), z_BCN], 1)
    log_p_BCN = z_BCN.log_softmax(1)
    p_BCN = log_p_BCN.exp()
    mean_BC1 = p_BCN.mean(-1, keepdim=True)
    log_mean_BC1 = mean_BC1.clamp_min(_TINY).log()
    information_B = (p_BCN * (log_p_BCN - log_mean_BC1)).sum(1).mean(-1).clamp_min(0)
    expected_B = -(p_BCN * log_p_BCN).sum(1).mean(-1)
    known_B, entropy_B = asked.epistemic[:, 0], asked.aleatoric[:, 0]
    q_BC = asked.mean
    divergence_B = (q_BC * (q_BC.clamp_min(_TINY).log() - log_mean_BC1[..., 0])).sum(-1)
    deviation_BC = ((p_BCN - mean_BC1).square().mean(-1) + _LEAST_VARIANCE).sqrt()
    apart_B = (deviation_BC - (asked.spread + _LEAST_VARIANCE).sqrt()).square().sum(-1)
    ranks_B = _logs_apart(information_B, known_B, _LEAST_INFORMATION)
    far_B = (expected_B - entropy_B).abs() + (information_B - known_B).abs()
    return (divergence_B + far_B + apart_B + _OF_RANKS * ranks_B).mean()


def _of_numbers(
    moments: OutputMoments, asked: Lessons, usual_D: Tensor, *, is_pair: bool
) -> Tensor:
    mean, variance = moments.mean, moments.variance
    noise_apart = mean.new_zeros(())
    if is_pair:
        num = mean.shape[1] // 2
        log_noise = mean[:, num:] + variance[:, num:] / 2
        noise_apart = (log_noise - asked.aleatoric.clamp_min(_TINY).log()).square()
        mean, variance = mean[:, :num], variance[:, :num]
    far = (mean - asked.mean).square() / (asked.spread + usual_D)
    ranks = _logs_apart(variance / usual_D, asked.spread / usual_D, _LEAST_SHARE)
    return (far + ranks + noise_apart).mean()


def _logs_apart(one: Tensor, other: Tensor, least: float) -> Tensor:
    return ((one + least).log() - (other + least).log()).square()
