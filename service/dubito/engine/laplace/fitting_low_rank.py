"""From what rows say to a posterior of many classes, and how far it is from that of all eigenpairs.

The prior precision is found as in `fitting`; the marginal likelihood counts the classes beside the
eigenpairs with their weights ρ, those of nearly equal d together.

What the low rank leaves out is measured: for some classes and rows the variance is computed with
the whole factor, by quadrature.

Dimensions: B rows, F features, G directions, C classes, R eigenpairs, S nodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dubito.engine.laplace.class_factor import ClassFactor
from dubito.engine.laplace.curvature import CurvatureSums, eigen
from dubito.engine.laplace.fitting import (
    Evidence,
    FitResult,
    Labelled,
    check_rows,
    check_votes,
    chosen_prior,
)
from dubito.engine.laplace.low_rank import MOST_NUMBERS, LowRankPosterior

USUAL_RANK = 256
_BEYOND = 16
_LEVELS = 512  # of d, by which the likelihood counts
_JUDGED_CLASSES, _JUDGED_ROWS, _STEPS = 32, 256, 64
_LARGE_ERROR = 0.2


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalues of N B: the largest, and the classes beside them.

    Args:
        values: of both, (R + C,).
        weights: how often each counts.
    """

    values: Tensor
    weights: Tensor

    def evidence(self, of_directions: Tensor, squared_norm: float) -> Evidence:
        """The marginal likelihood over the prior precision."""
        precisions = self.values[:, None] * of_directions
        return Evidence(precisions, squared_norm, self.weights[:, None])


def most_rank(num_classes: int) -> int:
    """The largest rank of so many classes: its vectors take 128 MiB in 64 bits."""
    return min(num_classes, MOST_NUMBERS // num_classes - _BEYOND)


def fit_low_rank(
    seen: CurvatureSums,
    factor: ClassFactor,
    *,
    rank: int,
    num_training_rows: int,
    has_bias: bool,
    squared_norm: float,
    prior_precision: float | None,
    held_out: Labelled | None,
) -> FitResult:
    """A posterior of a head of many classes.

    Args:
        seen: of all rows, without the products of pairs of classes.
        factor: of some of them.
        rank: R, eigenpairs that are kept.
        num_training_rows: N, that the network was trained on.
        has_bias: whether the last map adds one.
        squared_norm: ‖θ‖² of the map.
        prior_precision: δ; None: found.
        held_out: labelled rows, by whose likelihood δ is found; None: by the marginal likelihood.

    Raises:
        InputError: rows that say nothing of the curvature.
    """
    check_rows(seen)
    check_votes(seen)
    features_F, rotation = eigen(seen.squares / float(seen.count))
    bias = torch.ones(1 if has_bias else 0, dtype=torch.float64)
    values_R, frame_CR = factor.leading(rank)
    own_C = torch.from_numpy(seen.own / float(seen.count))
    first = LowRankPosterior(
        rotation,
        torch.cat([features_F, bias]),
        frame_CR.float(),
        num_training_rows * values_R,
        num_training_rows * _beside(own_C, values_R, frame_CR),
        (1 - frame_CR.square().sum(1)).clamp_min(0),
        torch.tensor(1.0, dtype=torch.float64),
    )

    def made(prior: float) -> LowRankPosterior:
        return replace(first, prior_precision=torch.tensor(prior, dtype=torch.float64))

    evidence = _spectrum(first).evidence(first.of_directions, squared_norm)
    prior, report = chosen_prior(evidence, made, prior_precision, held_out)
    posterior = made(prior)
    told = _beside(factor.diagonal, values_R, frame_CR) * num_training_rows
    off = _error(replace(posterior, of_classes=told), factor, num_training_rows)
    report |= {
        "rank": len(values_R),
        "rows_of_rank": len(factor.features),
        "trace_of_rank": float(values_R.sum() / factor.diagonal.sum()),
        "error_of_variance": float(off.mean()),
        "error_of_variance_95": float(off.flatten().quantile(0.95)),
    }
    result = FitResult(posterior, report)
    if float(off.mean()) <= _LARGE_ERROR or rank >= most_rank(len(own_C)):
        return result
    return result.with_warning(
        f"with `rank` {rank} the variances of scores are off by {float(off.mean()):.0%} in the "
        f"mean: ask for a larger one, of at most {most_rank(len(own_C))}"
    )


def _beside(own_C: Tensor, values_R: Tensor, frame_CR: Tensor) -> Tensor:
    """What every class has beside the eigenpairs, (C,)."""
    squares_CR = frame_CR.square()
    rest_C = (1 - squares_CR.sum(1)).clamp_min(torch.finfo(torch.float64).eps)
    return ((own_C - squares_CR @ values_R) / rest_C).clamp_min(0)


def _spectrum(posterior: LowRankPosterior) -> Spectrum:
    """The eigenvalues, those of the classes in levels of nearly the same."""
    order_C = posterior.of_classes.argsort()
    values_C, weights_C = posterior.of_classes[order_C], posterior.rest[order_C]
    levels = [
        (values * weights).sum() / weights.sum().clamp_min(1e-300)
        for values, weights in zip(
            values_C.tensor_split(_LEVELS), weights_C.tensor_split(_LEVELS), strict=True
        )
    ]
    counts = [weights.sum() for weights in weights_C.tensor_split(_LEVELS)]
    ones_R = torch.ones_like(posterior.of_outputs)
    return Spectrum(
        torch.cat([posterior.of_outputs, torch.stack(levels)]),
        torch.cat([ones_R, torch.stack(counts)]),
    )


def _error(posterior: LowRankPosterior, factor: ClassFactor, num_training_rows: int) -> Tensor:
    """Relative errors of the variances of some rows and classes, (B, V).

    Half of the classes are the likeliest in the mean, half are any.
    """
    num_classes = len(factor.mean)
    generator = torch.Generator().manual_seed(0)
    likely = factor.mean.argsort(descending=True)[: _JUDGED_CLASSES // 2]
    others = torch.randperm(num_classes, generator=generator)[: _JUDGED_CLASSES // 2]
    classes_V = torch.from_numpy(np.union1d(likely, others))
    nodes_VS, weights_VS = factor.quadrature(classes_V, _STEPS)
    every = math.ceil(len(factor.features) / _JUDGED_ROWS)
    some_BF = factor.features[::every].double()
    squares_BG = posterior.directions(some_BF).square()
    precisions_VSG = num_training_rows * nodes_VS[:, :, None] * posterior.of_directions
    inverse_VSG = 1 / (precisions_VSG + posterior.prior_precision)
    exact_BV = squares_BG @ torch.einsum("vs,vsg->gv", weights_VS, inverse_VSG)
    return (posterior.variances(some_BF)[:, classes_V] / exact_BV - 1).abs()
