"""The figures of a regression, each a function of how often its rows count.

Dimensions: T samples, B rows, D outputs.
"""

from __future__ import annotations

import numpy as np

from dubito.report.crps import mixture_crps
from dubito.report.likelihood import mixture_nll
from dubito.report.rejection import ause
from dubito.report.statistics import (
    Check,
    Floats,
    Statistics,
    mean_of,
    no_check,
    root_mean_of,
)


def regression_statistics(
    mean_TBD: Floats,
    variance_TBD: Floats,
    target_BD: Floats,
    interval: tuple[Floats, Floats] | None,
    coverage: float | None,
    check: Check = no_check,
) -> Statistics:
    """RMSE, NLL and CRPS of the mixture, AUSE; coverage, mean width and score of the intervals.

    interval_score = (u - l) + 2/(1-c) (l - y)[y < l] + 2/(1-c) (y - u)[y > u]

    Each but AUSE is the mean over rows and outputs, in target units (NLL in nats). NLL is None
    where the network gives no variance and no calibration has supplied one.

    Source: Gneiting and Raftery 2007, JASA 102:359-378.
    """
    error_BD = mean_TBD.mean(axis=0) - target_BD
    total_BD = mean_TBD.var(axis=0) + np.broadcast_to(variance_TBD, mean_TBD.shape).mean(axis=0)
    nll = None
    if (variance_TBD > 0).all():
        nll = mean_of(mixture_nll(mean_TBD, variance_TBD, target_BD, check).mean(axis=-1))
    check()
    crps = mean_of(mixture_crps(mean_TBD, variance_TBD, target_BD, check).mean(axis=-1))
    return {
        "rmse": root_mean_of((error_BD**2).mean(axis=-1)),
        "nll": nll,
        "crps": crps,
        "ause": ause(total_BD, error_BD),
        **interval_statistics(target_BD, interval, coverage),
    }


def interval_statistics(
    target_BD: Floats, interval: tuple[Floats, Floats] | None, coverage: float | None
) -> Statistics:
    """Return coverage, mean width and score of intervals; None where there are none."""
    if interval is None or coverage is None:
        return dict.fromkeys(("interval_coverage", "interval_width", "interval_score"))
    lower_BD, upper_BD = interval
    below_BD = np.maximum(lower_BD - target_BD, 0.0)
    above_BD = np.maximum(target_BD - upper_BD, 0.0)
    width_BD = upper_BD - lower_BD
    inside_BD = ((below_BD == 0) & (above_BD == 0)).astype(np.float64)
    score_BD = width_BD + 2.0 / (1.0 - coverage) * (below_BD + above_BD)
    return {
        "interval_coverage": mean_of(inside_BD.mean(axis=-1)),
        "interval_width": mean_of(width_BD.mean(axis=-1)),
        "interval_score": mean_of(score_BD.mean(axis=-1)),
    }
