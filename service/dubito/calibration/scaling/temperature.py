"""One temperature for all passes: logits / τ, then softmax, then the mean over the samples.

Flow: `logits_TBC`, `label_B` → `fit_temperature` → τ → `scaling.mean_probabilities`.

Dimensions: T samples, B rows, C classes.

Source: Guo et al. 2017, arXiv:1706.04599, carried over to the mean of T passes: the temperature
divides each pass's logits and is fitted on the loss of the mean that will be served.
"""

from __future__ import annotations

from math import log

import numpy as np
from numpy.typing import NDArray

from dubito.calibration.scaling.bounded import bounded, limit

_LOWEST, _HIGHEST = log(0.05), log(20.0)
_STEP = (_HIGHEST - _LOWEST) / 12
_ROWS_AT_ONCE_ELEMENTS = 2**18  # stays in the cache; larger temporaries cost more than their sums


def fit_temperature(
    logits_TBC: NDArray[np.floating], label_B: NDArray[np.int64], num_rows: int | None = None
) -> float:
    """The temperature of largest posterior density, by the loss of the mean over the samples.

    B·NLL(τ) + ½ (log τ)²,  NLL(τ) = -1/B Σ_b log 1/T Σ_t softmax(z_tb / τ)_y, bounded row by row

    The second term is a standard normal prior on log τ. A hundred rows of an accurate network may
    hold no error at all; their loss then falls all the way to τ = 0, where the probabilities
    become votes. The prior keeps τ sober there and fades as 1/B elsewhere.

    A grid on log τ finds the valley, a bounded scalar minimisation its floor. The grid spans 0.05
    to 20, and that times the typical lead of the winner: logits may be cosines, or thousands.

    Args:
        logits_TBC: logits of each pass; -inf is a probability of 0.
        label_B: class index of each row.
        num_rows: independent rows among them, where some are positions of one row; None: all.
    """
    most = log(logits_TBC.shape[-1]) + limit(num_rows or len(label_B))
    # Logits relative to the largest of their pass are <= 0: exp never overflows.
    shifted_TBC = logits_TBC.astype(np.float64)
    shifted_TBC -= shifted_TBC.max(axis=-1, keepdims=True)

    def loss(log_temperature: float) -> float:
        nll = _mean_loss(shifted_TBC, label_B, float(np.exp(log_temperature)), most)
        return float(nll + 0.5 * log_temperature**2 / len(label_B))

    from scipy.optimize import minimize_scalar

    best = min(_grid(shifted_TBC), key=loss)
    bounds = (best - _STEP, best + _STEP)
    optimum = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return float(np.exp(optimum.x))


def _grid(shifted_TBC: NDArray[np.float64]) -> list[float]:
    """Values of log τ, which two grids that overlap have in common."""
    lead_TB = -np.partition(shifted_TBC, -2, axis=-1)[..., -2]
    leads = lead_TB[np.isfinite(lead_TB) & (lead_TB > 0)]
    shift = round(log(np.median(leads)) / _STEP) if leads.size else 0
    steps = {*range(13), *range(shift, shift + 13)}
    return [_LOWEST + _STEP * step for step in sorted(steps)]


def _mean_loss(
    shifted_TBC: NDArray[np.float64], label_B: NDArray[np.int64], temperature: float, most: float
) -> float:
    """Mean over the rows of -log of the mean probability of the label, each bounded, in nats."""
    num_samples, num_rows, num_classes = shifted_TBC.shape
    step = max(1, _ROWS_AT_ONCE_ELEMENTS // (num_samples * num_classes))
    total = 0.0
    for start in range(0, num_rows, step):
        rows = slice(start, start + step)
        scaled_TbC = shifted_TBC[:, rows] / temperature
        label_b = label_B[rows]
        label_logit_Tb = scaled_TbC[:, np.arange(len(label_b)), label_b]
        # One of the C terms is exp(0) = 1, so the sum is at least 1.
        log_prob_Tb = label_logit_Tb - np.log(np.exp(scaled_TbC, out=scaled_TbC).sum(axis=-1))
        nll_b = log(num_samples) - np.logaddexp.reduce(log_prob_Tb, axis=0)
        total += float(bounded(nll_b, most).sum())
    return float(total / num_rows)
