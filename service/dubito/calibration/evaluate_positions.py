"""Judge a network with several labels or positions per row on labelled rows; nothing is fitted.

Flow: samples and truths → the figures as they would be served → `report`. Figures of positions are
means over all labelled positions; sets, flags and areas are those of rows.

Dimensions: T samples, B rows, P positions, C classes, N out-of-distribution rows.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dubito import ties
from dubito.calibration import truths
from dubito.calibration.evaluate import (
    Evaluation,
    as_evaluation,
    impossible,
    scores_of,
    threshold_of,
)
from dubito.calibration.flags import scores
from dubito.calibration.flags.source import PositionSource
from dubito.calibration.promises.positions import UNLABELLED, PositionHead, Positions
from dubito.calibration.record import Calibration
from dubito.calibration.scaling.scaling import label_nll, mean_probabilities
from dubito.engine.heads.scaling import Scaling
from dubito.report import (
    Check,
    Curves,
    adaptive_bins,
    no_check,
    ood_statistics,
    reliability_bins,
    score_counts,
)
from dubito.report.curves import Line, line_of, places
from dubito.report.positions import LabelledPositions, position_statistics, row_risk
from dubito.report.statistics import Floats


def evaluate_positions(
    logits_TBPC: ArrayLike,
    label_BP: ArrayLike,
    head: PositionHead,
    *,
    calibration: Calibration | None,
    coverage: float | None = None,
    ood_logits_TNPC: ArrayLike | None = None,
    feature_BF: NDArray[np.floating] | None = None,
    ood_feature_NF: NDArray[np.floating] | None = None,
    seed: int = 0,
    check: Check = no_check,
) -> Evaluation:
    """The report of such rows; without a calibration there are no sets and no flags.

    Args:
        logits_TBPC: logits of each pass.
        label_BP: class index of each label or position; -1: nobody has labelled it.
        head: `multilabel` or `dense`.
        calibration: the one to apply, or None for the raw figures.
        coverage: of the sets; the calibration's own where None.
        ood_logits_TNPC: logits of rows known to be strange.
        feature_BF: features of the rows, where the calibration's score reads them.
        ood_feature_NF: features of the strange rows.
        seed: of the resamples behind the intervals.
        check: called now and then; whatever it raises ends the evaluation.

    Raises:
        InputError: shapes, labels or numbers that cannot be used.
    """
    logits = truths.position_logits(logits_TBPC, "logits", None)
    label = truths.position_labels(label_BP, logits.shape[1:3], logits.shape[3])
    scaling: Scaling = 1.0 if calibration is None else calibration.logit_scaling
    mean_BPC = mean_probabilities(logits, scaling)
    score_B = scores_of(calibration, PositionSource(logits, scaling, head, feature_BF))
    ood_score_N = None
    if ood_logits_TNPC is not None:
        strange = truths.position_logits(ood_logits_TNPC, "ood logits", None)
        source = PositionSource(strange, scaling, head, ood_feature_NF)
        ood_score_N = scores_of(calibration, source)
    is_known = label != UNLABELLED
    positions, sets_NC, is_covered_B = Positions(head), None, None
    if calibration is not None and calibration.positions is not None:
        positions = calibration.positions
        uniform_B = np.zeros(0)  # these sets are not randomised
        sets_BPC = calibration.prediction_sets(mean_BPC, uniform_B, coverage)
        sets_NC, is_covered_B = sets_BPC[is_known], positions.is_covered(sets_BPC, label)
    flag_B = calibration.ood.flags(score_B) if calibration else None
    check()
    rows = LabelledPositions.of(mean_BPC, is_known, label, head)
    name = scores.DEFAULT_CLASSIFICATION if calibration is None else calibration.ood.score
    uncertainty_B = positions.uncertainty(mean_BPC)
    nll_BP = label_nll(logits, label, scaling)
    statistics = {
        **position_statistics(rows, uncertainty_B, sets_NC, is_covered_B, nll_BP[is_known]),
        **ood_statistics(flag_B, score_B, ood_score_N, name),
    }
    curves = Curves(
        scores=score_counts(name, score_B, ood_score_N, threshold_of(calibration)),
        bins=reliability_bins(rows.mean, rows.label),
        adaptive_bins=adaptive_bins(rows.mean, rows.label),
        risk_coverage=_risk_coverage(rows, uncertainty_B),
    )
    found = as_evaluation(statistics, curves, score_B, ood_score_N, seed, check)
    return replace(found, warnings=impossible(nll_BP))


def _risk_coverage(rows: LabelledPositions, uncertainty_B: Floats) -> Line:
    is_right_N = (ties.most_probable(rows.mean) == rows.label).astype(np.float64)
    risk_B = row_risk(uncertainty_B, 1 - rows.sums(is_right_N) / rows.count)
    place_P = places(len(risk_B))
    return line_of(place_P / len(risk_B), risk_B[place_P - 1])
