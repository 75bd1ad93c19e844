"""Vector and isotonic scaling: more than one temperature for the logits of every pass.

Flow: `logits_TBC`, `label_B` → `fit_scaling` → a temperature, `Vector` or `Isotonic`, which the
engine applies to every pass → `mean_probabilities`, and `label_nll`, the loss of fits and reports.

What is fitted is the mean over the passes, since that is what is served; what is applied, is
applied to each pass. So the calibrated mean, its entropy and the passes' own entropies and
variances are figures of the same T distributions: predictive = expected entropy + mutual
information holds as before, and no figure is moved without the others.

Dimensions: T samples, B rows, C classes.

Source: Guo et al. 2017, arXiv:1706.04599; Zadrozny and Elkan 2002; Zhang, Kailkhura and Han 2020,
arXiv:2003.07329, all carried over to the mean of T passes.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax

from dubito import ties
from dubito.calibration.choices import ScalingName
from dubito.calibration.scaling.bounded import bounded, limit
from dubito.calibration.scaling.temperature import (
    fit_temperature,
    log_mean_exp,
    relative_to_largest,
)
from dubito.engine.heads.scaling import Isotonic, Scaling, Vector, scaled
from dubito.report import Check, blocks, no_check

if TYPE_CHECKING:
    from sklearn.isotonic import IsotonicRegression

Floats = NDArray[np.float64]

_OF_FACTORS, _OF_OFFSETS = 0.2, 0.4  # standard deviations of the prior
_LOWEST_LOG = -700.0  # below it a probability is 0 in float64
_ROUNDS = 10  # of isotonic regression


def fit_scaling(
    name: ScalingName,
    logits: NDArray[np.floating],
    label: NDArray[np.int64],
    check: Check = no_check,
) -> Scaling:
    """What the name says, fitted on the loss of the mean over the samples; 1 for `none`.

    Args:
        name: of the scaling.
        logits: (T, B, C), or (T, B, P, C) of positions.
        label: (B,), or (B, P): class index of each; -1: nobody has labelled it.
        check: called between blocks of rows; whatever it raises ends the fit.
    """
    if name == "none":
        return 1.0
    num_rows = len(label)
    if label.ndim > 1:
        is_known = label >= 0
        logits, label = logits[:, is_known], label[is_known]
    if name == "vector":
        return fit_vector(logits, label, num_rows, check)
    if name == "isotonic":
        return fit_isotonic(logits, label, check)
    return fit_temperature(logits, label, num_rows, check)


def scaled_logits(logits: NDArray[np.floating], scaling: Scaling) -> Floats:
    """Logits of the calibrated probabilities, classes last; as the engine computes them."""
    if isinstance(scaling, Vector | Isotonic):
        return scaled(torch.from_numpy(logits.astype(np.float64)), scaling).numpy()
    return logits / np.float64(scaling)


def mean_probabilities(
    logits_TBC: NDArray[np.floating], scaling: Scaling, check: Check = no_check
) -> Floats:
    """The mean distribution of the samples, shape (B, C).

    p̄_B = 1/T Σ_t softmax(scaled z_t)
    """
    total_BC = np.zeros(logits_TBC.shape[1:])
    for part in blocks(len(logits_TBC), total_BC.size, check):
        total_BC += softmax(scaled_logits(logits_TBC[part], scaling), axis=-1).sum(axis=0)
    return total_BC / len(logits_TBC)


def label_nll(
    logits: NDArray[np.floating],
    label: NDArray[np.int64],
    scaling: Scaling,
    check: Check = no_check,
) -> Floats:
    """Negative log-likelihood of each label, in nats; that of no label is 0.

    -log 1/T Σ_t softmax(scaled z_t)_y, from logarithms: no probability underflows. It is infinite
    where every pass gives the label a probability of 0.

    Args:
        logits: (T, B, C), or (T, B, P, C) of positions.
        label: (B,), or (B, P): class index of each; -1: nobody has labelled it.
        scaling: of the logits.
        check: called between blocks of passes; whatever it raises ends the work.
    """
    index = np.maximum(label, 0)[..., None]
    log_sum = np.full(label.shape, -np.inf)
    for part in blocks(len(logits), logits[0].size, check):
        scaled_tBC = scaled_logits(logits[part].astype(np.float64), scaling)
        of_label = np.take_along_axis(scaled_tBC, index[None], axis=-1)[..., 0]
        log_prob = of_label - logsumexp(scaled_tBC, axis=-1)
        log_sum = np.logaddexp(log_sum, np.logaddexp.reduce(log_prob, axis=0))
    return np.where(label < 0, 0.0, np.log(len(logits)) - log_sum)


def fit_vector(
    logits_TBC: NDArray[np.floating],
    label_B: NDArray[np.int64],
    num_rows: int | None = None,
    check: Check = no_check,
) -> Vector:
    """The factors and offsets of largest posterior density, by the loss of the mean.

    B·NLL(w, b) + ½ μ² + ½ Σ_c ((log w_c - μ) / 0.2)² + ½ Σ_c (b_c / 0.4)²
    NLL(w, b) = -1/B Σ_b log 1/T Σ_t softmax(w∘ℓ_tb + b)_y, bounded row by row,  ℓ = log softmax(z)

    The prior draws all factors to one, exp(μ), and that one to 1: few rows get little more than a
    temperature, a class without rows the factor of the others and an offset near 0.

    Args:
        logits_TBC: logits of each pass; -inf is a probability of 0.
        label_B: class index of each row.
        num_rows: independent rows among them, where some are positions of one row; None: all.
        check: called between blocks of rows; whatever it raises ends the fit.
    """
    num_classes = logits_TBC.shape[-1]
    most = log(num_classes) + limit(num_rows or len(label_B))
    log_BCT = _log_probabilities(logits_TBC, check)
    level = -log(fit_temperature(logits_TBC, label_B, num_rows, check))
    start = np.r_[np.full(num_classes, level), np.zeros(num_classes), level]

    def loss(point: Floats) -> tuple[float, Floats]:
        log_weight_C, bias_C, middle = np.split(point, (num_classes, 2 * num_classes))
        weight_C = np.exp(log_weight_C)
        value, by_weight_C, by_bias_C = _mean_loss(log_BCT, label_B, weight_C, bias_C, most, check)
        off_C, beside_C = (log_weight_C - middle) / _OF_FACTORS, bias_C / _OF_OFFSETS
        prior = 0.5 * float(middle @ middle + off_C @ off_C + beside_C @ beside_C)
        by_weight_C = by_weight_C + off_C / _OF_FACTORS
        by_bias_C = by_bias_C + beside_C / _OF_OFFSETS
        return value + prior, np.r_[by_weight_C, by_bias_C, middle - off_C.sum() / _OF_FACTORS]

    from scipy.optimize import minimize

    best = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    weight_C, bias_C = np.exp(best[:num_classes]), best[num_classes:-1]
    return Vector(tuple(weight_C.tolist()), tuple((bias_C - bias_C.mean()).tolist()))


def fit_isotonic(
    logits_TBC: NDArray[np.floating], label_B: NDArray[np.int64], check: Check = no_check
) -> Isotonic:
    """The rising function whose mean over the passes is the share of hits.

    Isotonic regression of [y_b = c] on p̄_bc, all rows and classes together, is right for the mean
    g(p̄) and not for the mean of the calibrated passes, q̄. So it is repeated with what the passes
    make of g taken off the truth, [y_b = c] - (q̄_bc - g(p̄_bc)): where this comes to rest, hits and
    q̄ agree on every level of p̄. Of 10 rounds the one of least NLL of q̄ is kept.

    Args:
        logits_TBC: logits of each pass; -inf is a probability of 0.
        label_B: class index of each row.
        check: called between blocks of passes; whatever it raises ends the fit.
    """
    from sklearn.isotonic import IsotonicRegression

    num_rows, num_classes = logits_TBC.shape[1:]
    mean_BC = mean_probabilities(logits_TBC, 1.0, check)
    input_N = ties.merged(mean_BC.ravel())
    is_hit_BC = np.eye(num_classes)[label_B]
    candidates: list[tuple[float, Isotonic]] = []
    offset_BC = np.zeros_like(mean_BC)
    for _ in range(_ROUNDS):
        regression = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
        regression.fit(input_N, (is_hit_BC - offset_BC).ravel())
        candidate = _knots(regression, num_rows)
        served_BC = mean_probabilities(logits_TBC, candidate, check)
        nll = -float(np.log(served_BC[np.arange(num_rows), label_B]).mean())
        if candidates and abs(nll - candidates[-1][0]) < 1e-9:
            break
        candidates.append((nll, candidate))
        offset_BC = served_BC - np.interp(mean_BC, candidate.inputs, candidate.outputs)
    return min(candidates, key=lambda pair: pair[0])[1]


def _knots(regression: IsotonicRegression, num_rows: int) -> Isotonic:
    """The fitted function, flat as far as a tie with a knot reaches, with knots at 0 and 1."""
    at, outputs = regression.X_thresholds_, np.clip(regression.y_thresholds_, 0.0, 1.0)
    inputs = np.r_[0.0, ties.plateaus(at)[1:-1], 1.0]
    return Isotonic(tuple(inputs.tolist()), tuple(np.repeat(outputs, 2).tolist()), num_rows)


def _log_probabilities(logits_TBC: NDArray[np.floating], check: Check) -> Floats:
    """Logarithms of the probabilities of each pass, (B, C, T)."""
    log_BCT = relative_to_largest(logits_TBC, check)
    for rows in blocks(len(log_BCT), log_BCT[0].size, check):
        log_bCT = log_BCT[rows]
        log_bCT -= np.log(np.exp(log_bCT).sum(axis=1, keepdims=True))
        np.maximum(log_bCT, _LOWEST_LOG, out=log_bCT)
    return log_BCT


def _mean_loss(
    log_BCT: Floats,
    label_B: NDArray[np.int64],
    weight_C: Floats,
    bias_C: Floats,
    most: float = np.inf,
    check: Check = no_check,
) -> tuple[float, Floats, Floats]:
    """B·NLL of the mean over the samples, each row's bounded, and its slopes by log w and b.

    With r_tb the share of pass t in the mean probability of the label, e^-most beside it, the slope
    by the scaled logit of class c is Σ_t r_tb (p_tbc - [c = y_b]).
    """
    num_rows, num_classes, num_samples = log_BCT.shape
    value, by_weight_C, by_bias_C = 0.0, np.zeros(num_classes), np.zeros(num_classes)
    for rows in blocks(num_rows, num_samples * num_classes, check):
        log_bCT, label_b = log_BCT[rows], label_B[rows]
        row_b = np.arange(len(label_b))
        scaled_bCT = weight_C[:, None] * log_bCT + bias_C[:, None]
        scaled_bCT -= scaled_bCT.max(axis=1, keepdims=True)
        of_label_bT = scaled_bCT[row_b, label_b]
        slope_bCT = np.exp(scaled_bCT, out=scaled_bCT)
        total_bT = slope_bCT.sum(axis=1)
        of_label_bT -= np.log(total_bT)
        loss_b = bounded(-log_mean_exp(of_label_bT), most)
        value += float(loss_b.sum())
        share_bT = np.exp(of_label_bT + loss_b[:, None]) / num_samples
        slope_bCT *= (share_bT / total_bT)[:, None]
        slope_bCT[row_b, label_b] -= share_bT
        by_bias_C += slope_bCT.sum(axis=(0, 2))
        by_weight_C += weight_C * np.einsum("bct,bct->c", slope_bCT, log_bCT)
    return value, by_weight_C, by_bias_C
