"""From a prediction and the calibration that covers it to what is kept of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dubito.calibration.promises.conformal import exact_decimal, order
from dubito.calibration.promises.intervals import Ends
from dubito.calibration.record import Calibration
from dubito.engine import Classification, Regression
from dubito.monitoring.kept import Kept
from dubito.monitoring.outcomes import Laws
from dubito.monitoring.windows import Law


def observe(
    prediction: Classification | Regression,
    found: Calibration,
    uniform_B: NDArray[np.float64],
    feature_BF: NDArray[np.floating] | None,
) -> Kept | None:
    """Score, flag, mean, and the set or interval at the calibration's own coverage.

    Args:
        prediction: as it was served.
        found: the calibration that covers it.
        uniform_B: a number in [0, 1) per row for randomised sets.
        feature_BF: features of the rows, where the score reads them.

    Returns:
        None where the interval is that of the passes, and they were not kept.
    """
    if isinstance(prediction, Classification):
        score_B = found.class_scores(prediction, feature_BF)
        if prediction.positions is not None:  # its truths are not taken as feedback
            nothing_B0 = np.empty((len(score_B), 0), np.float32)
            return Kept(mean=nothing_B0, score=score_B, is_flagged=found.ood.flags(score_B))
        return Kept(
            mean=prediction.mean.astype(np.float32),
            score=score_B,
            is_flagged=found.ood.flags(score_B),
            is_member=found.prediction_sets(prediction.mean, uniform_B),
        )
    score_B = found.number_scores(prediction.epistemic_variance, feature_BF)
    ends = _ends(prediction, found)
    if ends is None:
        return None
    lower_BD, upper_BD = ends
    return Kept(
        mean=prediction.mean,
        score=score_B,
        is_flagged=found.ood.flags(score_B),
        lower=lower_BD,
        upper=upper_BD,
    )


def _ends(prediction: Regression, found: Calibration) -> Ends | None:
    if found.intervals == "normalised":
        aleatoric_BD = found.aleatoric_variance(prediction.aleatoric_variance)
        variance_BD = prediction.epistemic_variance + aleatoric_BD
        return found.normalised_intervals(prediction.mean, variance_BD)
    if prediction.samples is None or prediction.noise_samples is None:
        return None
    variance_TBD = found.aleatoric_variance(prediction.noise_samples)
    return found.mixture_intervals(prediction.samples, variance_TBD)


def laws(found: Calibration) -> Laws:
    """How misses and flags of a calibration come about where nothing changed."""
    num_conformal, num_ood = found.conformal.num_rows, len(found.ood.held_out)
    rank = num_conformal + 1 - order(num_conformal, found.coverage)
    num_flagged = int((num_ood + 1) * exact_decimal("alpha", found.alpha))
    return Laws(Law(num_conformal, rank), Law(num_ood, num_flagged))
