"""Noise of a regression, fitted on the T-component mixture that will be served.

Flow: `mean_TBD`, `log_variance_TBD` or none, `target_BD` → `fit_noise` → `Noise`, one figure per
output. A head that predicts only means gets a noise variance; one that predicts log-variances gets
a scale on them. All in target units.

    aleatoric variance of a row = scale · 1/T Σ_t exp(s_t) + noise variance

where the one that a head does not have is 1, or 0. Never of averaged parameters: the mean of
exp(s_t), not exp of the mean; the likelihood of the mixture, not of one Gaussian.

A residual below float32's resolution of the mean or target is 0. Of such rows the density rises
without end as the noise goes to 0, so that the end is no optimum: the one inside the range is taken
that leaves out the fewest rows, at the largest noise. Where there is none, as where all residuals
are 0, one row more decides, which fades with B:

    factor = (r + Σ_b z_b) / (B + 1),  z_b = mean over t of (y_b - m_tb)² / exp(s_tb)

With log-variances r is 1, a row as the network states it, and the factor 1 at most, what it has
without a fit. An optimum that rows met exactly pull at is at least that factor with r = 0, for they
are no reason to leave out what the network allows for; where all targets are the same, at least
1 / (B + 1). Of means alone r is float32's ε times the variance of the targets, or where these are
all the same, their square (1 for 0).

Of numbers at positions, (T, B, P, D) and (B, P, D), every measured position counts as a row here;
NaN among the targets stands for the others. What a row loses is then the sum over its positions, in
units of the mean number of measured ones.

Dimensions: T samples, B rows, P positions, D outputs.

Source: Gal and Ghahramani 2016, arXiv:1506.02142 (predictive log-likelihood, noise precision);
Laves et al. 2021, arXiv:2104.12376 (scaling of the standard deviation); Day 1969, Biometrika
56:463-474 (the optimum inside, where the likelihood has no upper bound); Kass and Wasserman 1995,
JASA 90:928-934 (a prior that weighs one row).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import log

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from dubito.calibration.scaling.bounded import bounded, limit
from dubito.errors import InputError
from dubito.report import Check, blocks, no_check
from dubito.report.likelihood import nll_of_squares

_FARTHEST = 1e12  # times that the noise variance may be off that of the targets
_WIDEST = 14  # log range to either side of the rows' own factors, in steps of 1
_FINE = 0.25  # step where those do not find an optimum
_MEDIAN = 0.4549  # of the square of a standard normal number
_RESOLUTION = float(np.finfo(np.float32).eps)  # relative, of what a network returns
_LOG_RANGE = -708.0, 690.0  # of a factor that float64 holds, with room above


@dataclass(frozen=True, slots=True)
class Noise:
    """Noise variance (target units squared) and variance scale of each output.

    `undetermined` names the outputs whose likelihood has no optimum that could be used, `outlying`
    the rows, from 0, that are so far off that they have no say.
    """

    variance: tuple[float, ...]
    scale: tuple[float, ...]
    undetermined: tuple[int, ...] = field(default=(), compare=False)
    outlying: tuple[int, ...] = field(default=(), compare=False)

    @classmethod
    def none(cls, num_outputs: int) -> Noise:
        """What an uncalibrated network says: its own variance, and nothing beside."""
        return cls((0.0,) * num_outputs, (1.0,) * num_outputs)

    @classmethod
    def of_precision(cls, noise_precision: float, num_outputs: int) -> Noise:
        """A given τ, in target units to the power -2: noise variance 1/τ for each output.

        Raises:
            InputError: where τ is not positive and finite.
        """
        if not 0 < noise_precision < float("inf"):
            raise InputError(
                f"`noise_precision` expects a positive number, got {noise_precision}: "
                "give 1 / noise variance in target units, or leave it out to have it fitted"
            )
        return cls((1.0 / noise_precision,) * num_outputs, (1.0,) * num_outputs)

    def component_variance(
        self, log_variance_TBD: NDArray[np.floating] | None
    ) -> NDArray[np.float64]:
        """Variance of each component of the mixture, shape (T, B, D), or (1, 1, D) without s_t."""
        if log_variance_TBD is None:
            return np.asarray(self.variance)[None, None]
        return self.beside(np.exp(log_variance_TBD.astype(np.float64)))

    def beside(self, variance_D: NDArray[np.float64]) -> NDArray[np.float64]:
        """The calibrated variance: scale · the network's own + noise variance, outputs last."""
        calibrated: NDArray[np.float64] = np.asarray(self.scale) * variance_D + np.asarray(
            self.variance
        )
        return calibrated


UNFITTED = Noise((), ())


def check_precision(noise_precision: float, target_BD: NDArray[np.float64]) -> None:
    """Refuse a noise that is nothing, or everything, beside the targets of some output.

    1e-12 <= 1/τ / variance of the targets <= 1e12

    Args:
        noise_precision: τ.
        target_BD: targets, not constant.

    Raises:
        InputError: naming the range.
    """
    variance_D = target_BD.var(axis=0)
    low, high = 1 / (_FARTHEST * variance_D.min()), _FARTHEST / variance_D.max()
    if not low <= noise_precision <= high:
        raise InputError(
            f"`noise_precision` expects 1 / noise variance in target units, from {low:.3g} to "
            f"{high:.3g} for targets like these, got {noise_precision:.3g}: correct the unit, or "
            "leave it out to have it fitted"
        )


def noise_of(
    noise_precision: float | None,
    mean_TBD: NDArray[np.floating],
    log_variance_TBD: NDArray[np.floating] | None,
    target_BD: NDArray[np.float64],
    check: Check = no_check,
) -> Noise:
    """The noise of a given precision, or where there is none, the fitted one.

    Raises:
        InputError: the network has a noise of its own, or the precision is none.
    """
    if noise_precision is None:
        return fit_noise(mean_TBD, log_variance_TBD, target_BD, check)
    if log_variance_TBD is not None:
        raise InputError(
            "`noise_precision` expects a network that predicts means alone, got one with "
            "log-variances: leave it out, and their scale is fitted"
        )
    return Noise.of_precision(noise_precision, mean_TBD.shape[-1])


def fit_noise(
    mean_TBD: NDArray[np.floating],
    log_variance_TBD: NDArray[np.floating] | None,
    target_BD: NDArray[np.float64],
    check: Check = no_check,
) -> Noise:
    """The noise of largest likelihood, each output on its own.

    NLL(v) = -1/B Σ_b log 1/T Σ_t N(y_b; m_tb, v), with v_tb = v, or scale · exp(s_tb), and each
    row's bounded beyond what it loses under a noise that suits itself

    Args:
        mean_TBD: means of the passes.
        log_variance_TBD: their log-variances, or None.
        target_BD: targets.
        check: called between blocks of rows; whatever it raises ends the fit.
    """
    rows_D = _outputs(mean_TBD, log_variance_TBD, target_BD, check)
    has_variance = log_variance_TBD is not None
    optima = [_fit_output(rows, has_variance) for rows in rows_D]
    value_D = tuple(value for value, _ in optima)
    undetermined = tuple(output for output, (_, is_inside) in enumerate(optima) if not is_inside)
    far_DB = [rows.has_no_say(log(value)) for rows, value in zip(rows_D, value_D, strict=True)]
    outlying = tuple(np.flatnonzero(np.any(far_DB, axis=0)).tolist())
    others = (0.0 if log_variance_TBD is not None else 1.0,) * len(value_D)
    pair = (value_D, others) if log_variance_TBD is None else (others, value_D)
    return Noise(*pair, undetermined, outlying)


def noise_losses(
    noise: Noise,
    mean_TBD: NDArray[np.floating],
    log_variance_TBD: NDArray[np.floating] | None,
    target_BD: NDArray[np.float64],
    num_rows: int,
    check: Check = no_check,
) -> NDArray[np.float64]:
    """What `fit_noise` minimises, row by row, shape (B,): the mean over the outputs.

    Args:
        noise: a noise variance above 0 for means alone, a scale for log-variances.
        mean_TBD: means of the passes.
        log_variance_TBD: their log-variances, or None.
        target_BD: targets.
        num_rows: of the fit.
        check: called between blocks of rows; whatever it raises ends the work.
    """
    factor_D = noise.variance if log_variance_TBD is None else noise.scale
    rows_D = _outputs(mean_TBD, log_variance_TBD, target_BD, check, num_rows)
    losses_DB = [rows.of_rows(log(factor)) for rows, factor in zip(rows_D, factor_D, strict=True)]
    losses_B: NDArray[np.float64] = np.mean(losses_DB, axis=0)
    return losses_B


class _Rows:
    """The rows, or measured positions, of one output; what they lose by a factor on exp(log var).

    Of a noise too large for it a row loses half a nat for each nat of the factor, and no more; what
    it loses of one too small is bounded, by what it loses of one that would suit it by itself.
    """

    def __init__(
        self,
        square_TB: NDArray[np.float64],
        log_variance_TB: NDArray[np.float64],
        num_rows: int,
        target_B: NDArray[np.float64],
        row_B: NDArray[np.int64],
        check: Check,
    ) -> None:
        self._square_TB, self._check = square_TB, check
        self._log_variance_TB = np.broadcast_to(
            log_variance_TB, (len(log_variance_TB), len(target_B))
        )
        self.target_B, self._row_B = target_B, row_B
        self.own_B = np.empty(len(target_B))  # -inf: met exactly
        for rows in self._blocks():
            with np.errstate(divide="ignore"):
                log_square_Tb = np.log(square_TB[:, rows]) - self._log_variance_TB[:, rows]
            self.own_B[rows] = logsumexp(log_square_Tb, axis=0) - log(len(square_TB))
        self._most_B = self._nll(np.clip(self.own_B, *_LOG_RANGE)) + limit(num_rows)

    def losses(self, log_factor: float) -> NDArray[np.float64]:
        """Return the loss of each row, in nats, (B,)."""
        nll_B = self._nll(log_factor)
        return np.where(self.own_B > log_factor, bounded(nll_B, self._most_B), nll_B)

    def of_rows(self, log_factor: float) -> NDArray[np.float64]:
        """Nats of each row, over its positions."""
        nats_B = self._summed(self.losses(log_factor))
        return nats_B * (len(nats_B) / len(self._row_B))

    def has_no_say(self, log_factor: float) -> NDArray[np.bool_]:
        """Which rows lose more than is counted, at one position at least."""
        is_far_B = (self.own_B > log_factor) & (self._nll(log_factor) > self._most_B)
        return self._summed(is_far_B) > 0

    def _summed(self, value_B: NDArray[np.generic] | float) -> NDArray[np.float64]:
        """Sums over the positions of each row, which has one at least."""
        weights = np.broadcast_to(value_B, self._row_B.shape)
        return np.bincount(self._row_B, weights).astype(np.float64)

    def _nll(self, log_factor: NDArray[np.float64] | float) -> NDArray[np.float64]:
        factor_B = np.broadcast_to(log_factor, self.target_B.shape)
        nll_B = np.empty(self.target_B.shape)
        for rows in self._blocks():
            log_variance_Tb = self._log_variance_TB[:, rows] + factor_B[rows]
            nll_B[rows] = nll_of_squares(self._square_TB[:, rows], log_variance_Tb)
        return nll_B

    def _blocks(self) -> Iterator[slice]:
        return blocks(len(self.target_B), len(self._square_TB), self._check)


def _outputs(
    mean_TBD: NDArray[np.floating],
    log_variance_TBD: NDArray[np.floating] | None,
    target_BD: NDArray[np.float64],
    check: Check,
    num_rows: int | None = None,
) -> list[_Rows]:
    rows_D = []
    is_known = np.isfinite(target_BD).all(axis=-1)
    (row_B, *_), is_every = np.nonzero(is_known), is_known.ndim == 1

    def of(output: int, value: NDArray[np.floating]) -> NDArray[np.float64]:
        """Of one output, the rows last, or all that is known of their positions."""
        of_output = value[..., output].astype(np.float64)
        return of_output if is_every else of_output[..., is_known]

    for output in range(target_BD.shape[-1]):
        check()
        mean_TB, target_B = of(output, mean_TBD), of(output, target_BD)
        square_TB = (target_B - mean_TB) ** 2
        rounding_TB = _RESOLUTION * np.maximum(np.abs(mean_TB), np.abs(target_B))
        square_TB[square_TB <= rounding_TB**2] = 0.0
        log_variance_TB = (
            np.zeros((1, 1)) if log_variance_TBD is None else of(output, log_variance_TBD)
        )
        rows_D.append(
            _Rows(square_TB, log_variance_TB, num_rows or len(target_BD), target_B, row_B, check)
        )
    return rows_D


def _fit_output(rows: _Rows, has_variance: bool) -> tuple[float, bool]:
    """Factor on exp(log variance), and whether it is the one of least loss."""
    target_B = rows.target_B
    weight, is_constant = 1 / (len(target_B) + 1), np.ptp(target_B) == 0
    residuals = float(np.exp(np.minimum(rows.own_B, _LOG_RANGE[1])).sum())
    optimum, falls_on = _optimum(rows)
    if optimum is None:
        if has_variance:
            return min(weight * (1.0 + residuals), 1.0), False
        return weight * (_least_square(target_B) + residuals), False
    least = 0.0
    if has_variance and (falls_on or is_constant):
        least = min(weight * (1.0 if is_constant else residuals), 1.0)
    return max(optimum, least), optimum >= least


def _least_square(target_B: NDArray[np.float64]) -> float:
    """The square that a row more adds to those of means alone, in target units squared."""
    if np.ptp(target_B) == 0:
        return float(target_B[0] ** 2) or 1.0
    return _RESOLUTION * float(target_B.var())


def _optimum(rows: _Rows) -> tuple[float | None, bool]:
    """Factor of least loss inside the range, or None; whether rows met exactly pull beyond it.

    A grid about the residuals finds the valley, a scalar search its floor. Only where the loss
    falls to the end, a finer grid is asked: beside rows met exactly valleys are narrow.
    """

    def loss(log_factor: float) -> float:
        return float(rows.losses(log_factor).mean())

    known_b = rows.own_B[np.isfinite(rows.own_B)]
    if not len(known_b):
        return None, True
    guess = float(np.median(known_b)) - log(_MEDIAN)
    offset_b = np.append(np.round(known_b - guess), 0.0)
    for step in (1.0, _FINE):
        near_S = np.arange(-_WIDEST, _WIDEST + 1, step)
        grid = guess + np.unique(offset_b[:, None] + near_S)
        loss_G = np.array([loss(point) for point in grid])
        inside = np.flatnonzero((loss_G[1:-1] < loss_G[:-2]) & (loss_G[1:-1] <= loss_G[2:])) + 1
        is_lowest_outside = int(loss_G.argmin()) not in inside
        if not is_lowest_outside:
            break
    from scipy.optimize import minimize_scalar

    falls_on = is_lowest_outside and len(known_b) < len(rows.own_B)
    if not len(inside):
        return None, falls_on
    best = int(inside[-1] if falls_on else inside[loss_G[inside].argmin()])
    optimum = minimize_scalar(
        loss, bounds=(grid[best - 1], grid[best + 1]), method="bounded", options={"xatol": 1e-5}
    )
    return float(np.exp(np.clip(optimum.x, *_LOG_RANGE))), falls_on
