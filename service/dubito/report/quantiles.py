"""The figures and curves of quantiles, each figure a function of how often its rows count.

Dimensions: B rows, D outputs, Q quantiles.
"""

from __future__ import annotations

import numpy as np

from dubito.report.curves import Curves, left_out_curves, line_of, ranks
from dubito.report.numbers import interval_statistics
from dubito.report.rejection import ause
from dubito.report.statistics import Floats, Statistics, mean_of, root_mean_of


def quantile_statistics(
    quantile_BDQ: Floats,
    levels: tuple[float, ...],
    target_BD: Floats,
    error_BD: Floats,
    variance_BD: Floats,
    interval: tuple[Floats, Floats] | None,
    coverage: float | None,
) -> Statistics:
    """Return RMSE of the level .5, pinball loss, AUSE; coverage, width and score of the intervals.

    pinball = mean over rows of Σ_d 1/Q Σ_q max(τ_q u, (τ_q - 1) u),  u = y_d - q_dq

    In target units. NLL and CRPS are None: quantiles are no density, nor a distribution beyond the
    outermost of them.

    Args:
        quantile_BDQ: ascending.
        levels: τ of each.
        target_BD: targets.
        error_BD: of the level .5.
        variance_BD: by which rows are left out.
        interval: lower and upper ends, where there are any.
        coverage: of them.

    Source: Koenker and Bassett 1978, Econometrica 46(1).
    """
    below_BDQ = target_BD[..., None] - quantile_BDQ
    level_Q = np.asarray(levels)
    pinball_BDQ = np.maximum(level_Q * below_BDQ, (level_Q - 1.0) * below_BDQ)
    return {
        "rmse": root_mean_of((error_BD**2).mean(axis=-1)),
        "nll": None,
        "crps": None,
        "pinball": mean_of(pinball_BDQ.mean(axis=-1).sum(axis=-1)),
        "ause": ause(variance_BD, error_BD),
        **interval_statistics(target_BD, interval, coverage),
    }


def quantile_curves(
    quantile_BDQ: Floats,
    levels: tuple[float, ...],
    target_BD: Floats,
    error_BD: Floats,
    variance_BD: Floats,
) -> Curves:
    """Return the share of targets at or below each quantile, as `coverage`, and sparsification.

    Of many levels some 60, the outermost among them. Arguments as of `quantile_statistics`.
    """
    is_below_BDQ = target_BD[..., None] <= quantile_BDQ
    rank_P = ranks(len(levels)) - 1
    share_P = is_below_BDQ[..., rank_P].mean(axis=(0, 1))
    line = line_of(np.asarray(levels)[rank_P], share_P)
    return left_out_curves(Curves(coverage=line), variance_BD, error_BD)
