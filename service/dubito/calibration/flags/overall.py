"""The default score where there are features: what the outputs say beside all that features say.

Parts, each as minus the logarithm of the share of held-out rows that are at least as strange:

    of the outputs  the task's default: `predictive_entropy`, at weight 1, or `epistemic_variance`,
                    at 1/2: a regression knows less of strange rows than its features do
    mahalanobis     of the features
    outside         what the 128 directions of the features leave out, where they leave any
    profile         `mahalanobis` of the means along the axes, where there are several; these three
                    have weight 1 together
    transitions     from one position to the next, where features are positions, at weight 1/2

Parts and weights were chosen on ten pairs of data and networks and confirmed on eleven others:
`benchmarks/evidence/flags.py`.

Dimensions: B rows, b of the banks.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dubito.calibration.flags.combined import Tail
from dubito.calibration.flags.distances import FeatureBank
from dubito.calibration.flags.scorer import (
    OUTSIDE,
    PROFILE,
    TRANSITIONS,
    FittedScore,
    ScoreFamily,
    flat,
    profiles,
)
from dubito.calibration.flags.source import Source
from dubito.calibration.flags.transitions import Transitions

_OF_TRANSITIONS = 0.5


def fit_overall(
    family: ScoreFamily,
    source: Source,
    label_B: NDArray[np.int64] | None,
    bank_b: NDArray[np.int64],
    tail: Source,
) -> FittedScore:
    """What the overall score needs: banks of some rows, and the tails of others.

    Args:
        family: of the task.
        source: all rows.
        label_B: classes that distances are taken to; None: all rows are of one kind.
        bank_b: places of the rows of the banks.
        tail: rows that are in no bank.
    """
    assert source.features is not None
    feature_b = source.features[bank_b]
    label_b = None if label_B is None else label_B[bank_b]
    banks = _banks(feature_b, label_b)
    distances = ["mahalanobis"]
    if banks.bank is not None and banks.bank.projection is not None:
        distances.append(OUTSIDE)
    if banks.profile is not None:
        distances.append(PROFILE)
    weights = {family.default: family.output_weight}
    weights |= dict.fromkeys(distances, 1 / len(distances))
    if banks.transitions is not None:
        weights[TRANSITIONS] = _OF_TRANSITIONS
    tails = [Tail.fit(name, banks.score(name, tail), weight) for name, weight in weights.items()]
    return replace(banks, tails=tuple(tails))


def _banks(feature_b: NDArray[np.floating], label_b: NDArray[np.int64] | None) -> FittedScore:
    bank = FeatureBank.fit(flat(feature_b), label_b).without_rows()
    profile = transitions = None
    if (profile_b := profiles(feature_b)).size:
        profile = FeatureBank.fit(profile_b, label_b).without_rows()
    if feature_b.ndim == 3 and min(feature_b.shape[1:]) > 1:
        transitions = Transitions.fit(feature_b, label_b)
    return FittedScore(bank, profile=profile, transitions=transitions)
