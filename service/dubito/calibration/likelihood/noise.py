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

from collections.abc import Callable
from dataclasses import dataclass
from math import log, pi

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from dubito.errors import InputError

_FARTHEST = 1e12  # times that the noise variance may be off that of the targets
_WIDEST, _GRID_SIZE = 14.0, 29  # log range to either side of the first guess


@dataclass(frozen=True, slots=True)
class Noise:
    """Noise variance (target units squared) and variance scale of each output.

    `undetermined` names the outputs whose likelihood rises to the bound of the search.
    """

    variance: tuple[float, ...]
    scale: tuple[float, ...]
    undetermined: tuple[int, ...] = ()

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


def fit_noise(
    mean_TBD: NDArray[np.floating],
    log_variance_TBD: NDArray[np.floating] | None,
    target_BD: NDArray[np.float64],
) -> Noise:
    """The noise of largest likelihood, each output on its own.

    NLL(v) = -1/B Σ_b log 1/T Σ_t N(y_b; m_tb, v), with v_tb = v, or scale · exp(s_tb)
    """
    found = []
    for output in range(target_BD.shape[-1]):
        square_TB = (target_BD[:, output] - mean_TBD[:, :, output].astype(np.float64)) ** 2
        if log_variance_TBD is None:
            log_variance_TB = np.zeros((1, 1))
        else:
            log_variance_TB = log_variance_TBD[:, :, output].astype(np.float64)
        floor = 1e-12 if log_variance_TBD is not None else 1e-12 * target_BD[:, output].var()
        found.append(_fit_output(square_TB, log_variance_TB, float(floor)))
    value_D = tuple(value for value, _ in found)
    undetermined = tuple(output for output, (_, inside) in enumerate(found) if not inside)
    if log_variance_TBD is None:
        return Noise(value_D, (1.0,) * len(value_D), undetermined)
    return Noise((0.0,) * len(value_D), value_D, undetermined)


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


def _fit_output(
    square_TB: NDArray[np.float64], log_variance_TB: NDArray[np.float64], floor: float
) -> tuple[float, bool]:
    """Factor on exp(log variance) of largest likelihood, and whether it lies inside the range."""
    # First guess: the factor that makes the mean squared standardised residual 1.
    guess = log(max(float(np.mean(square_TB * np.exp(-log_variance_TB))), floor))

    def loss(log_factor: float) -> float:
        return float(_mixture_nll(square_TB, log_variance_TB + log_factor).mean())

    return _minimise(loss, guess)


def _minimise(loss: Callable[[float], float], guess: float) -> tuple[float, bool]:
    """Exp of the argument of least loss: a grid finds the valley, a scalar search its floor."""
    grid = np.linspace(guess - _WIDEST, guess + _WIDEST, _GRID_SIZE)
    best = int(np.argmin([loss(point) for point in grid]))
    if best in (0, len(grid) - 1):
        return float(np.exp(guess)), False
    found = minimize_scalar(
        loss, bounds=(grid[best - 1], grid[best + 1]), method="bounded", options={"xatol": 1e-5}
    )
    return float(np.exp(found.x)), True


def _mixture_nll(
    square: NDArray[np.float64], log_variance: NDArray[np.float64]
) -> NDArray[np.float64]:
    log_density = -0.5 * (square * np.exp(-log_variance) + log_variance + log(2 * pi))
    nll: NDArray[np.float64] = log(len(square)) - logsumexp(log_density, axis=0)
    return nll
