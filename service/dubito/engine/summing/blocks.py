"""The standard error of a mean over a stratified draw, summed up while the samples stream.

Its job: say how much smaller than s/√T the error is. Samples of one block of 16 depend on each
other, blocks do not, so everything hangs on one number per output:

    R = Var(mean of a block) · 16 / Var(one sample)         1 where stratifying does not help

and since the samples of a block are exchangeable, with n samples of a last block cut short

    Var(mean of T) = q · Var(one sample) / T
    q = (16 · blocks · R + n · (1 - (n - 1) / 15 · (1 - R))) / T
    standard error = sqrt(M2 / T · q / (T - q))        M2 / (T - q) is unbiased for the variance

R is known from two sides. Between blocks there are blocks - 1 degrees of freedom: unbiased, and
nothing at all at T = 16. From the shape of the samples: stratifying takes out what is additive
over the units (Stein 1987). A sum of many units is nearly normal (Owen 1992), so an output that
is a function g of such a sum Z is additive in the share W = corr(g(Z), Z)² of its variance (the
first Hermite coefficient), and

    R₀ = 1 - (1 - a) · W        a: what stratifying leaves of Z itself

W is the squared correlation of the samples with their normal scores, block by block (Shapiro and
Francia 1972), drawn down a little while blocks are few, since 16 samples often miss a tail; a is a
number of the version, measured when it is loaded (`dubito.engine.additivity`).

    R = (4 · R₀ + (blocks - 1) · R_between) / (4 + blocks - 1)

R₀ counts as four degrees of freedom, so that a row that is unlike it comes right as T grows. One
row's figures are made of that row's samples alone. Measured over seeds on four networks
(`benchmarks/evidence/stratified.py`), the root of the mean of its square is within a tenth of the
standard deviation of the mean, at T = 16 as at 64. Where nothing interacts at all, a last layer
alone, it is too large by two thirds at T = 16 (the median over outputs; single ones 2.4 times).
Where units are few (fewer than 32 numbers are drawn), nothing is normal and R₀ is 1: the error is
that of independent draws at T = 16, up to four times the true one, and blocks bring it down from
there (up to 2.2 times at T = 64).

Dimensions: T samples, B rows, D outputs or classes.

Source: Stein 1987, Technometrics 29:143; Owen 1992, "A central limit theorem for Latin hypercube
sampling", JRSS B 54:541; Loh 1996, Annals of Statistics 24:2058; Shapiro and Francia 1972, JASA
67:215; Blom 1958 for the scores. Sliced hypercubes (Qian 2012, JASA 107:393) would give degrees of
freedom within a block, but their slices of 8 are no hypercubes of Bernoulli units unless 8 p is
whole, and every one of them costs a fifteenth of what is gained.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

from dubito.engine.calling.columns import Column
from dubito.engine.draws.strata import BLOCK
from dubito.engine.kernels.constants import constant
from dubito.engine.summing.welford import RunningMean

PRIOR_FREEDOM = 4


class Blocks:
    """What a stratified draw needs beside the moments of all samples."""

    def __init__(self) -> None:
        self._means = RunningMean()
        self._slope: Tensor | None = None
        self._waiting: Tensor | None = None

    def add(self, chunk_TBD: Tensor) -> None:
        """Take in the next samples, in order of t."""
        if self._waiting is not None:
            chunk_TBD = torch.cat([self._waiting, chunk_TBD])
        count = chunk_TBD.shape[0]
        whole = count // BLOCK * BLOCK
        if whole:
            block_NTBD = chunk_TBD[:whole].reshape(-1, BLOCK, *chunk_TBD.shape[1:])
            self._means.add(block_NTBD.sum(1) / BLOCK)
            slope_BD = _slope(block_NTBD)
            self._slope = slope_BD if self._slope is None else self._slope + slope_BD
        self._waiting = chunk_TBD[whole:].clone() if whole < count else None

    @property
    def count(self) -> int:
        """Number of whole blocks so far."""
        return self._means.count

    def sums(self) -> dict[str, Tensor]:
        """What R hangs on beside the moments of all samples, by name."""
        slope_BD = self._slope
        if slope_BD is None:
            assert self._waiting is not None
            slope_BD = _slope(self._waiting[None])
        sums = {"slope": slope_BD}
        return sums | {"between": self._means.squares} if self.count > 1 else sums

    def take(self, rows: Tensor) -> Blocks:
        """Return the blocks of some rows."""
        part = Blocks()
        part._means = self._means.take(rows)
        part._slope = None if self._slope is None else self._slope[rows]
        part._waiting = None if self._waiting is None else self._waiting[:, rows]
        return part


def ratio(
    sums: Mapping[str, Column], squares_BD: Column, *, left: float, blocks: int, count: int
) -> Column:
    """Return R of every output; 1 where all samples are equal.

    Args:
        sums: as `Blocks.sums` names them, on the host.
        squares_BD: M2 of all samples.
        left: share of its variance that stratifying leaves of a nearly normal output, a.
        blocks: whole ones.
        count: T.
    """
    freedom, number = max(1, count - 1), max(1, blocks)
    square_BD = np.square(sums["slope"]) * (freedom / number**2)
    straight_BD = np.minimum(square_BD / squares_BD, 1.0) ** (1 + 0.5 / number)
    ratio_BD: Column = 1.0 + (left - 1) * straight_BD
    if blocks > 1:
        total = PRIOR_FREEDOM + blocks - 1
        between_BD = sums["between"] / squares_BD * (BLOCK * freedom / total)
        ratio_BD = ratio_BD * (PRIOR_FREEDOM / total) + between_BD
    ratio_BD[squares_BD == 0] = 1.0
    return ratio_BD


def factor(ratio_BD: Column, count: int) -> Column:
    """The variance of the mean of `count` samples over that of as many independent ones, q.

    Args:
        ratio_BD: R.
        count: T.
    """
    constant, slope = factor_line(count)
    return constant + slope * ratio_BD


def factor_line(count: int) -> tuple[float, float]:
    """Return the factor as a straight line in R: its value at R = 0, and its slope."""
    blocks, left = divmod(count, BLOCK)
    cut_short = left * (left - 1) / (BLOCK - 1)
    return (left - cut_short) / count, (BLOCK * blocks + cut_short) / count


@cache
def normal_scores(size: int) -> NDArray[np.float32]:
    """Return a block's normal scores over their sum of squares, then zeros; (16,).

    s_i = Φ⁻¹((i - 3/8) / (size + 1/4))

    Args:
        size: samples of the block.

    Source: Blom 1958.
    """
    weights = np.zeros(BLOCK, np.float32)
    weights[:size] = _weights(size)
    weights.setflags(write=False)
    return weights


def _slope(block_NTBD: Tensor) -> Tensor:
    """Covariance with the normal scores of their block, summed over the blocks, (B, D)."""
    weight_T = constant(_weights(block_NTBD.shape[1]), block_NTBD)
    ordered_NBDT = block_NTBD.movedim(1, -1).sort(dim=-1).values
    return (ordered_NBDT @ weight_T).sum(0)


@cache
def _weights(size: int) -> tuple[float, ...]:
    score_T = ndtri((np.arange(1, size + 1) - 0.375) / (size + 0.25))
    return tuple(score_T / max(np.square(score_T).sum(), np.finfo(np.float64).tiny))
