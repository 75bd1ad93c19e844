"""From a prediction and the calibration that covers it to what is kept of it."""

from __future__ import annotations

from dubito.calibration.heads import Served
from dubito.calibration.promises.conformal import exact_decimal, order
from dubito.calibration.record import Calibration
from dubito.monitoring.observed import ObservedRows
from dubito.monitoring.outcomes import Laws
from dubito.monitoring.windows import Law


def observe(served: Served, calibration: Calibration) -> ObservedRows | None:
    """Score, flag, mean, and the set or interval at the calibration's own coverage.

    Args:
        served: a prediction under the calibration.
        calibration: the one that covers it.

    Returns:
        None where the interval is that of the passes, and they were not kept.
    """
    observed = served.observed()
    if observed is None:
        return None
    score_B = calibration.ood_scores(served.source)
    return ObservedRows(
        mean=observed.mean,
        score=score_B,
        is_flagged=calibration.ood.flags(score_B),
        is_member=observed.is_member,
        lower=observed.lower,
        upper=observed.upper,
    )


def laws(calibration: Calibration) -> Laws:
    """How misses and flags of a calibration come about where nothing changed."""
    num_conformal, num_ood = calibration.conformal.num_rows, len(calibration.ood.held_out)
    rank = num_conformal + 1 - order(num_conformal, calibration.coverage)
    num_flagged = int((num_ood + 1) * exact_decimal("alpha", calibration.alpha))
    return Laws(Law(num_conformal, rank), Law(num_ood, num_flagged))
