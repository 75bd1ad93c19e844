"""The continuous ranked probability score of a Gaussian mixture.

    CRPS = E|Y - y| - 1/2 E|Y - Y'| = ∫ (F(x) - [x >= y])² dx

for Y, Y' drawn from the mixture with distribution F. The first term is a closed form for every
component. The second is one of three, all exact to 1e-9 of the spread: a sum over sorted means
where there is no noise; ∫ F (1 - F) dx by the trapezoid rule, whose error falls faster than any
power of its step for so smooth a function; the closed form of every pair of components where these
are fewer than the nodes of that rule, which the narrowest component sets.

Dimensions: T samples, B rows, D outputs, P nodes.

Source: Gneiting and Raftery 2007, JASA 102:359-378; Grimit et al. 2006, Quarterly Journal of the
Royal Meteorological Society 132:2925-2942 (mixtures); Trefethen and Weideman 2014, SIAM Review
56:385-458 (trapezoid rule).
"""

from __future__ import annotations

from math import pi, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from dubito.report.statistics import Check, Floats, no_check

_TAIL = 7.0  # deviations beyond the outermost means, where 1 - Φ is 1e-12
_NODES_PER_DEVIATION = 1.5  # of the narrowest component: error exp(-(1.5π)²) = 2e-10
_VALUES_AT_ONCE = 2**16  # numbers in a temporary: 512 kB stay in the cache


def mixture_crps(
    mean_TBD: Floats, variance_TBD: Floats, target_BD: Floats, check: Check = no_check
) -> Floats:
    """CRPS of the T-component Gaussian mixture, shape (B, D), in target units.

    Args:
        mean_TBD: means of the components.
        variance_TBD: their variances, at least 0; broadcast to the means.
        target_BD: what came true.
        check: called now and then; whatever it raises ends the work.
    """
    num_samples = len(mean_TBD)
    deviation_TBD = np.broadcast_to(np.sqrt(variance_TBD), mean_TBD.shape)
    mean_TN = mean_TBD.reshape(num_samples, -1)
    deviation_TN = deviation_TBD.reshape(num_samples, -1)
    target_N = target_BD.reshape(-1)
    node_N = _nodes(mean_TN, deviation_TN)
    order_N = np.argsort(node_N, kind="stable")  # cells of like need go together
    crps_N = np.empty(len(target_N))
    step = max(1, _VALUES_AT_ONCE // num_samples)
    for start in range(0, len(target_N), step):
        check()
        cells = order_N[start : start + step]
        mean_Tn, deviation_Tn = mean_TN[:, cells], deviation_TN[:, cells]
        distance_n = _expected_distance(target_N[cells] - mean_Tn, deviation_Tn).mean(axis=0)
        spread_n = _spread(mean_Tn, deviation_Tn, float(node_N[cells].max()), check)
        crps_N[cells] = distance_n - 0.5 * spread_n
    return crps_N.reshape(target_BD.shape)


def _nodes(mean_TN: Floats, deviation_TN: Floats) -> Floats:
    """Nodes of the trapezoid rule that each cell needs; infinite where a component is a point."""
    with np.errstate(divide="ignore", invalid="ignore"):
        node_N = (
            (np.ptp(mean_TN, axis=0) + 2 * _TAIL * deviation_TN.max(axis=0))
            / deviation_TN.min(axis=0)
            * _NODES_PER_DEVIATION
        )
    return np.where(np.isnan(node_N), np.inf, node_N)


def _spread(mean_Tn: Floats, deviation_Tn: Floats, num_nodes: float, check: Check) -> Floats:
    """Return E|Y - Y'| of each mixture."""
    if not deviation_Tn.any():
        return _spread_of_points(mean_Tn)
    if num_nodes < len(mean_Tn) / 2:
        return _spread_by_nodes(mean_Tn, deviation_Tn, int(num_nodes) + 2, check)
    return _spread_by_pairs(mean_Tn, deviation_Tn, check)


def _spread_of_points(mean_Tn: Floats) -> Floats:
    """2/T² Σ_t (2t - T - 1) m_(t), with m_(t) the t-th smallest, t = 1..T."""
    num_samples = len(mean_Tn)
    weight_T = 2.0 * np.arange(1, num_samples + 1) - num_samples - 1
    return 2.0 * (weight_T @ np.sort(mean_Tn, axis=0)) / num_samples**2


def _spread_by_nodes(mean_Tn: Floats, deviation_Tn: Floats, num_nodes: int, check: Check) -> Floats:
    """Return 2 ∫ F (1 - F) dx of each mixture."""
    margin_n = _TAIL * deviation_Tn.max(axis=0)
    lower_n, upper_n = mean_Tn.min(axis=0) - margin_n, mean_Tn.max(axis=0) + margin_n
    step_n = (upper_n - lower_n) / (num_nodes - 1)
    area_n = np.zeros(mean_Tn.shape[1])
    for node in range(num_nodes):
        check()
        below_n = ndtr((lower_n + node * step_n - mean_Tn) / deviation_Tn).mean(axis=0)
        area_n += below_n * (1.0 - below_n)
    spread_n: Floats = 2.0 * step_n * area_n
    return spread_n


def _spread_by_pairs(mean_Tn: Floats, deviation_Tn: Floats, check: Check) -> Floats:
    """1/T² Σ_ij A(m_i - m_j, σ_i² + σ_j²); the pairs i < j count twice, as A is even."""
    num_samples, variance_Tn = len(mean_Tn), deviation_Tn**2
    twice_Tn = np.sqrt(2.0) * deviation_Tn
    total_n = _expected_distance(np.zeros_like(mean_Tn), twice_Tn).sum(axis=0)
    for first in range(num_samples - 1):
        check()
        deviation_tn = np.sqrt(variance_Tn[first] + variance_Tn[first + 1 :])
        difference_tn = mean_Tn[first] - mean_Tn[first + 1 :]
        total_n += 2.0 * _expected_distance(difference_tn, deviation_tn).sum(axis=0)
    spread_n: Floats = total_n / num_samples**2
    return spread_n


def _expected_distance(mean: Floats, deviation: Floats) -> Floats:
    """E|X| of X ~ N(mean, deviation²): 2 σ φ(μ/σ) + μ (2 Φ(μ/σ) - 1), and |μ| at σ = 0."""
    is_point: NDArray[np.bool_] = deviation == 0
    z = mean / np.where(is_point, 1.0, deviation)
    density = np.exp(-0.5 * z**2) / sqrt(2 * pi)
    distance: Floats = 2.0 * deviation * density + mean * (2.0 * ndtr(z) - 1.0)
    return np.where(is_point, np.abs(mean), distance)
