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
from dubito.report import Check, blocks, no_check

_LOWEST, _HIGHEST = log(0.05), log(20.0)
_STEP = (_HIGHEST - _LOWEST) / 12


def fit_temperature(
    logits_TBC: NDArray[np.floating],
    label_B: NDArray[np.int64],
    num_rows: int | None = None,
    check: Check = no_check,
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
        check: called between blocks of rows; whatever it raises ends the fit.
    """
    most = log(logits_TBC.shape[-1]) + limit(num_rows or len(label_B))
    shifted_BCT = relative_to_largest(logits_TBC, check)

    def loss(log_temperature: float) -> float:
        nll = _mean_loss(shifted_BCT, label_B, float(np.exp(log_temperature)), most, check)
        return float(nll + 0.5 * log_temperature**2 / len(label_B))

    from scipy.optimize import minimize_scalar

    best = min(_grid(shifted_BCT, check), key=loss)
    bounds = (best - _STEP, best + _STEP)
    optimum = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return float(np.exp(optimum.x))


def relative_to_largest(logits_TBC: NDArray[np.floating], check: Check) -> NDArray[np.float64]:
    """Logits less the largest of their pass, (B, C, T): exp never overflows.

    Samples come last, since sums along a long axis of few classes are slow.
    """
    num_samples, num_rows, num_classes = logits_TBC.shape
    shifted_BCT = np.empty((num_rows, num_classes, num_samples))
    for rows in blocks(num_rows, num_samples * num_classes, check):
        shifted_bCT = shifted_BCT[rows]
        shifted_bCT[:] = logits_TBC[:, rows].transpose(1, 2, 0)
        shifted_bCT -= shifted_bCT.max(axis=1, keepdims=True)
    return shifted_BCT


def log_mean_exp(log_bT: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm of the mean over the samples, last; -inf where all of them are."""
    largest_b = log_bT.max(axis=-1)
    shift_b = np.where(np.isfinite(largest_b), largest_b, 0.0)
    with np.errstate(divide="ignore"):
        log_mean_b: NDArray[np.float64] = np.log(np.exp(log_bT - shift_b[:, None]).mean(axis=-1))
    return log_mean_b + shift_b


def _grid(shifted_BCT: NDArray[np.float64], check: Check) -> list[float]:
    """Values of log τ, which two grids that overlap have in common."""
    num_rows, num_classes, num_samples = shifted_BCT.shape
    lead_BT = np.empty((num_rows, num_samples))
    for rows in blocks(num_rows, num_samples * num_classes, check):
        lead_BT[rows] = -np.partition(shifted_BCT[rows], -2, axis=1)[:, -2]
    check()
    leads = lead_BT[np.isfinite(lead_BT) & (lead_BT > 0)]
    check()
    shift = round(log(np.median(leads)) / _STEP) if leads.size else 0
    steps = {*range(13), *range(shift, shift + 13)}
    return [_LOWEST + _STEP * step for step in sorted(steps)]


def _mean_loss(
    shifted_BCT: NDArray[np.float64],
    label_B: NDArray[np.int64],
    temperature: float,
    most: float,
    check: Check,
) -> float:
    """Mean over the rows of -log of the mean probability of the label, each bounded, in nats."""
    num_rows, num_classes, num_samples = shifted_BCT.shape
    total = 0.0
    for rows in blocks(num_rows, num_samples * num_classes, check):
        scaled_bCT, label_b = shifted_BCT[rows] / temperature, label_B[rows]
        label_logit_bT = scaled_bCT[np.arange(len(label_b)), label_b]
        # One of the C terms is exp(0) = 1, so the sum is at least 1.
        log_prob_bT = label_logit_bT - np.log(np.exp(scaled_bCT, out=scaled_bCT).sum(axis=1))
        total += float(bounded(-log_mean_exp(log_prob_bT), most).sum())
    return float(total / num_rows)
