"""Noise that the units of a layer have in common, in a few directions.

Behind a linear map the units are correlated, in trained networks strongly so in the directions of
its largest singular values. There the noise is kept with its covariance, elsewhere per unit:

    a = W h:   cov a ≈ U M Uᵀ + diag,   M = Uᵀ W cov(h) Wᵀ U

with U, (C, R), an orthonormal basis of the R largest directions of W. A value then is
mean + own noise + Fᵀ z with z ~ N(0, I) and F = (U M^½)ᵀ, (B, R, C); a pointwise function φ takes
F to E[φ'] F, which is the covariance to first order, and a mask to E[f] F. All of it costs about
R (R + 1) / 2 outputs more per layer.

Dimensions: B rows, J inputs and C outputs of a map, R directions, P pairs of directions.
Source: Price 1958 for E[φ'] (Bussgang's theorem); Halko, Martinsson, Tropp 2011, arXiv:0909.4061.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

NUM_DIRECTIONS = 8
_EXTRA, _ROUNDS = 8, 6
MIN_WIDTH = NUM_DIRECTIONS + _EXTRA  # of a map's inputs and outputs, below which it has none


@dataclass(frozen=True, eq=False)
class Common:
    """F and the variance that it brings.

    Args:
        factors: F, (B, R, C); the units lie last, so that F is mixed as rows are.
        variance: Σ_r F², (B, C).
    """

    factors: Tensor
    variance: Tensor

    def scaled(self, factor: Tensor | float) -> Common:
        """The noise of each unit times a number of its own."""
        each = factor.unsqueeze(-2) if isinstance(factor, Tensor) and factor.ndim else factor
        return Common(self.factors * each, self.variance * (factor * factor))


@dataclass(frozen=True, eq=False)
class Directions:
    """The largest directions of a linear map, made once.

    Args:
        basis: U, (C, R).
        inputs: Uᵀ W, (R, J).
        input_pairs: products of two rows of Uᵀ W, (P, J).
        output_pairs: products of two columns of U, those of different ones twice, (C, P).
    """

    basis: Tensor
    inputs: Tensor
    input_pairs: Tensor
    output_pairs: Tensor

    @classmethod
    def of(cls, weight_CJ: Tensor) -> Directions:
        """Find the directions by subspace iteration from fixed numbers."""
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(
            len(weight_CJ), NUM_DIRECTIONS + _EXTRA, generator=generator, dtype=torch.float64
        )
        weight = weight_CJ.double()
        basis = torch.linalg.qr(start.to(weight.device)).Q
        for _ in range(_ROUNDS):
            basis = torch.linalg.qr(weight @ (weight.T @ basis)).Q
        small = torch.linalg.svd(weight.T @ basis, full_matrices=False)
        basis = (basis @ small.Vh.T[:, :NUM_DIRECTIONS]).to(weight_CJ.dtype)
        inputs = (basis.T @ weight_CJ).contiguous()
        first, second = torch.triu_indices(NUM_DIRECTIONS, NUM_DIRECTIONS, device=weight.device)
        twice = torch.where(first == second, 1.0, 2.0).to(weight_CJ.dtype)
        return cls(
            basis,
            inputs,
            inputs[first] * inputs[second],
            basis[:, first] * basis[:, second] * twice,
        )

    def split(
        self, noise_BJ: Tensor, before: Common | None, total_BC: Tensor
    ) -> tuple[Tensor, Common]:
        """What is each output's own, and what they have in common.

        Args:
            noise_BJ: variance of each input's own noise.
            before: what the inputs have in common.
            total_BC: variance that the inputs' own noise gives each output.
        """
        pairs_BP = functional.linear(noise_BJ, self.input_pairs)
        noise_BC = (total_BC - functional.linear(pairs_BP, self.output_pairs)).clamp_min_(0)
        first, second, square = pairs_of(NUM_DIRECTIONS)
        inner_BRR = pairs_BP[:, square]
        if before is not None:
            seen_BRR = functional.linear(before.factors, self.inputs)
            inner_BRR = inner_BRR + seen_BRR.mT @ seen_BRR
            pairs_BP = inner_BRR[:, first, second]
        variance_BC = functional.linear(pairs_BP, self.output_pairs).clamp_min_(0)
        factors_BRC = functional.linear(_root(inner_BRR).mT, self.basis)
        return noise_BC, Common(factors_BRC, variance_BC)


@cache
def pairs_of(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs (c, p) with c ≤ p, and at which of them each entry of a (count, count) square is."""
    first, second = torch.triu_indices(count, count)
    square = torch.empty(count, count, dtype=torch.int64)
    square[first, second] = square[second, first] = torch.arange(len(first))
    return first, second, square


def _root(matrix_BRR: Tensor) -> Tensor:
    raised = matrix_BRR.clone()
    diagonal = raised.diagonal(dim1=-2, dim2=-1)
    diagonal += 1e-6 * diagonal.amax(-1, keepdim=True).clamp_min(1e-30)
    root: Tensor = torch.linalg.cholesky_ex(raised).L
    return root.nan_to_num_(0.0, 0.0, 0.0)
