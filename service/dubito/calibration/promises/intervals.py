"""Prediction intervals: from where to where a row's target lies, as promised.

Flow: means and variances of every pass → `fit` → `ConformalScores`, one column per output → the
intervals of other rows, at any coverage. With Q the k-th smallest held-out score of the output:

    normalised    |y - ȳ| / σ                   [ȳ - Q σ, ȳ + Q σ]
    cqr           max(l - y, y - u)             [l - Q, u + Q]

ȳ and σ are mean and standard deviation of the mixture that the passes predict, l and u its
quantiles at (1 ∓ c)/2, with c the coverage that the calibration was fitted for. Where another is
asked for, Q makes up for it; where Q takes more than the width, the middle is left. Ends lie
further out by the tolerance of a tie, so that a target that ties with an end is inside.

Dimensions: T samples, B rows, D outputs.

Source: Lei et al. 2018, arXiv:1604.04173; Romano, Patterson and Candès 2019, arXiv:1905.03222.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dubito import ties
from dubito.calibration.choices import IntervalsName
from dubito.calibration.promises.conformal import ConformalScores, Promise
from dubito.calibration.promises.mixture import quantiles
from dubito.report import Check, no_check

Floats = NDArray[np.float64]
Ends = tuple[Floats, Floats]
Passes = tuple[Floats, Floats]
"""Means (T, B, D) and variances, or (1, 1, D) where all have the same."""


@dataclass(frozen=True, slots=True)
class IntervalRule:
    """What intervals are built around: `normalised`, or `cqr`, which takes all passes."""

    kind: IntervalsName = "normalised"

    def fit(
        self,
        passes: Passes,
        total_BD: Floats,
        target_BD: Floats,
        coverage: float,
        check: Check = no_check,
    ) -> ConformalScores:
        """The scores of held-out rows.

        Args:
            passes: means and variances of all passes.
            total_BD: variance of the mixture.
            target_BD: targets.
            coverage: of the quantiles of `cqr`.
            check: called between blocks of rows; whatever it raises ends the work.
        """
        if self.kind == "normalised":
            return fit_normalised(passes[0].mean(axis=0), total_BD, target_BD)
        return fit_quantiles(quantile_ends(*passes, coverage, check), target_BD)

    def ends(
        self,
        promise: Promise,
        passes: Passes,
        coverage: float | None = None,
        check: Check = no_check,
    ) -> Ends:
        """Lower and upper ends, each (B, D); infinite where the held-out rows are too few.

        Args:
            promise: of held-out rows.
            passes: means and calibrated variances of all passes.
            coverage: that of the promise where None.
            check: called between blocks of rows; whatever it raises ends the work.
        """
        level = promise.level(coverage)
        if self.kind == "cqr":
            ends = quantile_ends(*passes, promise.coverage, check)
            return widened(promise.held_out, ends, level)
        mean_TBD, variance_TBD = passes
        total_BD = mean_TBD.var(axis=0) + variance_TBD.mean(axis=0)
        return normalised(promise.held_out, mean_TBD.mean(axis=0), total_BD, level)


NORMALISED = IntervalRule()


def fit_normalised(mean_BD: Floats, variance_BD: Floats, target_BD: Floats) -> ConformalScores:
    """Scores |y - ȳ| / σ of held-out rows, for each output on its own."""
    return ConformalScores.of(list(normalised_scores(mean_BD, variance_BD, target_BD).T))


def normalised_scores(mean_BD: Floats, variance_BD: Floats, target_BD: Floats) -> Floats:
    """|y - ȳ| / σ of each row, or position, and output."""
    score_BD: Floats = np.abs(target_BD - mean_BD) / np.sqrt(_positive(variance_BD))
    return score_BD


def normalised(
    held_out: ConformalScores, mean_BD: Floats, variance_BD: Floats, coverage: float
) -> Ends:
    """Return the lower and upper end for each row and output, in target units."""
    half_BD = held_out.thresholds(coverage) * np.sqrt(_positive(variance_BD))
    half_BD = half_BD + ties.margin(mean_BD, half_BD)
    return mean_BD - half_BD, mean_BD + half_BD


def fit_quantiles(ends: Ends, target_BD: Floats) -> ConformalScores:
    """Scores max(l - y, y - u) of held-out rows, below 0 inside; for each output on its own."""
    score_BD = np.maximum(ends[0] - target_BD, target_BD - ends[1])
    return ConformalScores.of(list(score_BD.T))


def widened(held_out: ConformalScores, ends: Ends, coverage: float) -> Ends:
    """Return the lower and upper end for each row and output, in target units."""
    more_D = held_out.thresholds(coverage)
    half_BD = 0.5 * (ends[1] - ends[0]) + np.abs(more_D)
    lower_BD = ends[0] - more_D - ties.margin(ends[0], half_BD)
    upper_BD = ends[1] + more_D + ties.margin(ends[1], half_BD)
    is_crossed_BD = lower_BD > upper_BD
    middle_BD = 0.5 * (ends[0] + ends[1])
    return (
        np.where(is_crossed_BD, middle_BD, lower_BD),
        np.where(is_crossed_BD, middle_BD, upper_BD),
    )


def quantile_ends(
    mean_TBD: Floats, variance_TBD: Floats, coverage: float, check: Check = no_check
) -> Ends:
    """The mixture's quantiles at (1 - c)/2 and (1 + c)/2, each (B, D), in target units."""
    lower, upper = (1 - coverage) / 2, (1 + coverage) / 2
    return (
        quantiles(mean_TBD, variance_TBD, lower, check),
        quantiles(mean_TBD, variance_TBD, upper, check),
    )


def _positive(variance_BD: Floats) -> Floats:
    """Variances kept off zero, so that a row without spread has a finite score."""
    return np.maximum(variance_BD, np.finfo(np.float64).tiny)
