"""Noise of a regression, fitted on the T-component mixture that will be served.

Flow: `mean_TBD`, `log_variance_TBD` or none, `target_BD` → `fit_noise` → `Noise`, one figure per
output. A head that predicts only means gets a noise variance; one that predicts log-variances gets
a scale on them. All in target units.

    aleatoric variance of a row = scale · 1/T Σ_t exp(s_t) + noise variance

where the one that a head does not have is 1, or 0. Never of averaged parameters: the mean of
exp(s_t), not exp of the mean; the likelihood of the mixture, not of one Gaussian.

Dimensions: T samples, B rows, D outputs.

Source: Gal and Ghahramani 2016, arXiv:1506.02142 (predictive log-likelihood, noise precision);
Laves et al. 2021, arXiv:2104.12376 (scaling of the standard deviation).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pi

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from dubito.calibration.likelihood.bounded import bounded, limit
from dubito.errors import InputError

_FARTHEST = 1e12  # times that the noise variance may be off that of the targets
_WIDEST, _GRID_SIZE = 14.0, 29  # log range to either side of the first guess
_MEDIAN = 0.4549  # of the square of a standard normal number


@dataclass(frozen=True, slots=True)
class Noise:
    """Noise variance (target units squared) and variance scale of each output.

    `undetermined` names the outputs whose likelihood rises to the bound of the search, `outlying`
    the rows, from 0, that are so far off that they have no say.
    """

    variance: tuple[float, ...]
    scale: tuple[float, ...]
    undetermined: tuple[int, ...] = ()
    outlying: tuple[int, ...] = ()

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
        self, mean_TBD: NDArray[np.floating], log_variance_TBD: NDArray[np.floating] | None
    ) -> NDArray[np.float64]:
        """Variance of each component of the mixture, shape (T, B, D), or (1, 1, D) without s_t."""
        noise_D = np.asarray(self.variance)
        if log_variance_TBD is None:
            return noise_D[None, None]
        own_TBD = np.exp(log_variance_TBD.astype(np.float64))
        variance_TBD: NDArray[np.float64] = np.asarray(self.scale) * own_TBD + noise_D
        return variance_TBD


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
) -> Noise:
    """The noise of a given precision, or where there is none, the fitted one.

    Raises:
        InputError: the network has a noise of its own, or the precision is none.
    """
    if noise_precision is None:
        return fit_noise(mean_TBD, log_variance_TBD, target_BD)
    if log_variance_TBD is not None:
        raise InputError(
            "`noise_precision` expects a network that predicts means alone, got one with "
            "log-variances: leave it out, and their scale is fitted"
        )
    return Noise.of_precision(noise_precision, mean_TBD.shape[2])


def fit_noise(
    mean_TBD: NDArray[np.floating],
    log_variance_TBD: NDArray[np.floating] | None,
    target_BD: NDArray[np.float64],
) -> Noise:
    """The noise of largest likelihood, each output on its own.

    NLL(v) = -1/B Σ_b log 1/T Σ_t N(y_b; m_tb, v), with v_tb = v, or scale · exp(s_tb), and each
    row's bounded beyond what it loses under a noise that suits itself
    """
    rows_D = _outputs(mean_TBD, log_variance_TBD, target_BD)
    found = [_fit_output(rows) for rows in rows_D]
    value_D = tuple(value for value, _ in found)
    undetermined = tuple(output for output, (_, is_inside) in enumerate(found) if not is_inside)
    far_BD = [rows.has_no_say(log(value)) for rows, value in zip(rows_D, value_D, strict=True)]
    outlying = tuple(np.flatnonzero(np.any(far_BD, axis=0)).tolist())
    others = (0.0 if log_variance_TBD is not None else 1.0,) * len(value_D)
    pair = (value_D, others) if log_variance_TBD is None else (others, value_D)
    return Noise(*pair, undetermined, outlying)


def noise_losses(
    noise: Noise,
    mean_TBD: NDArray[np.floating],
    log_variance_TBD: NDArray[np.floating] | None,
    target_BD: NDArray[np.float64],
    num_rows: int,
) -> NDArray[np.float64]:
    """What `fit_noise` minimises, row by row, shape (B,): the mean over the outputs.

    Args:
        noise: a noise variance above 0 for means alone, a scale for log-variances.
        mean_TBD: means of the passes.
        log_variance_TBD: their log-variances, or None.
        target_BD: targets.
        num_rows: of the fit.
    """
    factor_D = noise.variance if log_variance_TBD is None else noise.scale
    rows_D = _outputs(mean_TBD, log_variance_TBD, target_BD, num_rows)
    losses_DB = [rows.losses(log(one)) for rows, one in zip(rows_D, factor_D, strict=True)]
    losses_B: NDArray[np.float64] = np.mean(losses_DB, axis=0)
    return losses_B


def mixture_nll(
    mean_TBD: NDArray[np.floating],
    variance_TBD: NDArray[np.float64],
    target_BD: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Negative log density of each target under its mixture, in nats, shape (B, D).

    -log 1/T Σ_t N(y; m_t, v_t), outputs each on their own; infinite or undefined at v = 0.
    """
    square_TBD = (target_BD - mean_TBD.astype(np.float64)) ** 2
    return _mixture_nll(square_TBD, np.log(variance_TBD))


class _Rows:
    """The rows of one output, and what they lose under a factor on exp(log variance).

    Of a noise too large for it a row loses half a nat for each nat of the factor, and no more; what
    it loses of one too small is bounded, by what it loses of one that would suit it by itself.
    """

    def __init__(
        self,
        square_TB: NDArray[np.float64],
        log_variance_TB: NDArray[np.float64],
        floor: float,
        num_rows: int,
    ) -> None:
        self._square_TB, self._log_variance_TB = square_TB, log_variance_TB
        square_B = _standardised(square_TB, log_variance_TB).mean(axis=0)
        self._own_B = np.log(np.clip(square_B, floor, 1e300))
        self._most_B = self._nll(self._own_B) + limit(num_rows)
        known_B = self._own_B[square_B > floor]
        middle = float(np.median(known_B)) if len(known_B) else log(floor)
        self.guess = middle - log(_MEDIAN)

    def losses(self, log_factor: float) -> NDArray[np.float64]:
        """Nats of each row."""
        nll_B = self._nll(log_factor)
        return np.where(self._own_B > log_factor, bounded(nll_B, self._most_B), nll_B)

    def has_no_say(self, log_factor: float) -> NDArray[np.bool_]:
        """Which rows lose more than is counted."""
        is_far_B: NDArray[np.bool_] = (self._own_B > log_factor) & (
            self._nll(log_factor) > self._most_B
        )
        return is_far_B

    def _nll(self, log_factor: NDArray[np.float64] | float) -> NDArray[np.float64]:
        return _mixture_nll(self._square_TB, self._log_variance_TB + log_factor)


def _outputs(
    mean_TBD: NDArray[np.floating],
    log_variance_TBD: NDArray[np.floating] | None,
    target_BD: NDArray[np.float64],
    num_rows: int | None = None,
) -> list[_Rows]:
    found = []
    for output, target_B in enumerate(target_BD.T):
        square_TB = (target_B - mean_TBD[:, :, output].astype(np.float64)) ** 2
        if log_variance_TBD is None:
            log_variance_TB = np.zeros((1, 1))
            floor = max(1e-12 * float(target_B.var()), 1e-300)
        else:
            log_variance_TB, floor = log_variance_TBD[:, :, output].astype(np.float64), 1e-12
        found.append(_Rows(square_TB, log_variance_TB, floor, num_rows or len(target_BD)))
    return found


def _fit_output(rows: _Rows) -> tuple[float, bool]:
    """Factor on exp(log variance) of least loss, and whether it lies inside the range.

    A grid finds the valley, a scalar search its floor.
    """

    def loss(log_factor: float) -> float:
        return float(rows.losses(log_factor).mean())

    grid = np.linspace(rows.guess - _WIDEST, rows.guess + _WIDEST, _GRID_SIZE)
    best = int(np.argmin([loss(point) for point in grid]))
    if best in (0, len(grid) - 1):
        return float(np.exp(rows.guess)), False
    found = minimize_scalar(
        loss, bounds=(grid[best - 1], grid[best + 1]), method="bounded", options={"xatol": 1e-5}
    )
    return float(np.exp(found.x)), True


def _mixture_nll(
    square: NDArray[np.float64], log_variance: NDArray[np.float64]
) -> NDArray[np.float64]:
    log_density = -0.5 * (_standardised(square, log_variance) + log_variance + log(2 * pi))
    nll: NDArray[np.float64] = log(len(square)) - logsumexp(log_density, axis=0)
    return nll


def _standardised(
    square: NDArray[np.float64], log_variance: NDArray[np.float64]
) -> NDArray[np.float64]:
    # Two finite factors: 0 where the residual is 0, never 0 times infinity.
    with np.errstate(over="ignore"):
        standardised: NDArray[np.float64] = square * np.exp(np.minimum(-log_variance, 700.0))
    return standardised
