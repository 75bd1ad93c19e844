"""Predictions of classes, from columns by name and from other predictions.

Dimensions: M networks, B rows, P positions (one axis or more), C classes.
Source: Miller 1955, "Note on the bias of information estimates", for the correction of a mixture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import entr

from dubito import ties
from dubito.engine.calling.columns import Columns
from dubito.engine.calling.prediction import Classification, PositionMeasures, Prediction
from dubito.engine.calling.sampling import Sampling
from dubito.engine.heads import mixture
from dubito_nn import Manifest

LEAN_COLUMNS = frozenset(
    {
        *("label", "mean", "num_samples_used", "variation_ratio"),
        *("predictive_entropy", "expected_entropy", "mutual_information"),
    }
)
"""What is said of classes without the spread of their probabilities over the passes."""
SPREAD_COLUMNS = {
    **dict.fromkeys(("variance", "standard_error", "vote_share"), "mean"),
    "mutual_information_corrected": "mutual_information",
}
"""What needs it, or as much room, and a column of the same shape."""


def answer(
    columns: Columns,
    manifest: Manifest,
    sampling: Sampling,
    positions: PositionMeasures | None = None,
) -> Classification:
    """Columns as a prediction.

    Args:
        columns: by their names in it.
        manifest: of the network.
        sampling: with which they were drawn.
        positions: the figures of every label or position.
    """
    others = dict(columns)
    used_B, label_B = others.pop("num_samples_used"), others.pop("label_index", None)
    return Classification(
        sampling=sampling,
        classes=manifest.classes or (),
        label_index=ties.most_probable(columns["mean"])
        if label_B is None
        else label_B.astype(np.int64),
        num_samples_used=used_B.astype(np.int64),
        positions=positions,
        **others,
    )


def mixed_classes(answers: Sequence[Prediction]) -> Columns:
    """The columns of a mixture, with one figure per position where there are positions.

    entropy    H[mean] = 1/M Σ_m expected_m + mutual information, within and between networks

    The corrected mutual information adds what M·T passes take from H[mean] on average, to second
    order: ½ Σ_c error_c² / mean_c.

    Args:
        answers: classifications of the same rows.
    """
    members = [answer for answer in answers if isinstance(answer, Classification)]
    columns = mixture.shared_columns(members)
    mean_BC, error_BC = columns["mean"], columns["standard_error"]
    each = [answer.positions or answer for answer in members]
    expected_B = mixture.mean([answer.expected_entropy for answer in each])
    # by concavity; rounding must not undo it
    predictive_B = np.maximum(entr(mean_BC).sum(-1), expected_B)
    bias_BC = np.divide(error_BC**2, 2 * mean_BC, out=np.zeros_like(mean_BC), where=mean_BC > 0)
    share_BC = mixture.mean([answer.vote_share for answer in members])
    energies = [answer.energy for answer in members]
    energy_variances = [answer.energy_spread**2 for answer in members]
    return {
        **columns,
        "variance": mixture.variance(
            [answer.variance for answer in members], [answer.mean for answer in members]
        ),
        "predictive_entropy": predictive_B,
        "expected_entropy": expected_B,
        "mutual_information": predictive_B - expected_B,
        "mutual_information_corrected": predictive_B - expected_B + bias_BC.sum(-1),
        "vote_share": share_BC,
        # a pass that overflowed votes for nothing
        "variation_ratio": 1 - share_BC.max(-1) + 0 * expected_B,
        "energy": mixture.mean(energies),
        "energy_spread": np.sqrt(mixture.variance(energy_variances, energies)),
        "max_logit": mixture.mean([answer.max_logit for answer in members]),
    }
