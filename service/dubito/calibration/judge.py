"""Judge a network on labelled rows, with a calibration or without; nothing is fitted.

Flow: samples and truths → the figures as they would be served → `report`, its intervals and curves.

Dimensions: B rows, N out-of-distribution rows.
"""

from __future__ import annotations

from dataclasses import replace
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from dubito.calibration.flags.scorer import FittedScore
from dubito.calibration.heads import Head
from dubito.calibration.record import Calibration
from dubito.calibration.sampled import Sampled
from dubito.report import Check, Evaluation, as_evaluation, no_check, ood_statistics, score_counts


def judge(
    head: Head,
    rows: Sampled,
    calibration: Calibration | None,
    *,
    strange: Sampled | None = None,
    coverage: float | None = None,
    seed: int = 0,
    check: Check = no_check,
) -> Evaluation:
    """The report of some rows; without a calibration there are no sets or intervals, and no flags.

    Args:
        head: of the network.
        rows: labelled, with features where the calibration's score reads them.
        calibration: the one to apply, or None for the raw figures.
        strange: out-of-distribution rows, with features likewise.
        coverage: of sets and intervals; the calibration's own where None.
        seed: of the resamples behind the intervals.
        check: called now and then; whatever it raises ends the work.

    Raises:
        InputError: shapes, truths or numbers that cannot be used.
    """
    rows = replace(head.checked(rows, None), check=check)
    if strange is not None:
        strange = replace(head.checked(strange, None), check=check)
    if calibration is not None:
        rows = rows.with_draws(calibration.sampling.seed)
    return judge_checked(
        head, rows, calibration, strange=strange, coverage=coverage, seed=seed, check=check
    )


def judge_checked(
    head: Head,
    rows: Sampled,
    calibration: Calibration | None,
    *,
    strange: Sampled | None = None,
    coverage: float | None = None,
    seed: int = 0,
    check: Check = no_check,
) -> Evaluation:
    """Report as `judge` does, of rows that are known to be sound."""
    acting = head.raw(rows) if calibration is None else calibration.head
    score_B, flag_B = _scores(acting, calibration, rows), None
    score_N = None if strange is None else _scores(acting, calibration, strange)
    name, threshold = acting.scores.default, None
    if calibration is not None:
        name, flag_B = calibration.ood.score, calibration.ood.flags(score_B)
        if isfinite(calibration.ood.threshold):
            threshold = calibration.ood.threshold
    check()
    judged = acting.judged(rows, coverage, check)
    statistics = {**judged.statistics, **ood_statistics(flag_B, score_B, score_N, name)}
    curves = replace(judged.curves, scores=score_counts(name, score_B, score_N, threshold))
    evaluation = as_evaluation(statistics, curves, score_B, score_N, seed, check)
    return replace(evaluation, warnings=judged.warnings, confusion=judged.confusion)


def _scores(head: Head, calibration: Calibration | None, rows: Sampled) -> NDArray[np.float64]:
    """Return the flag's score of each row: the calibration's, or the head's default."""
    source = head.source(rows)
    if calibration is not None:
        return calibration.ood_scores(source)
    with np.errstate(divide="ignore", invalid="ignore"):  # a constant target has no variance
        return FittedScore().score(head.scores.default, source)
