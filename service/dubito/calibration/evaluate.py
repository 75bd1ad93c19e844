"""Judge a network on labelled rows, with a calibration or without; nothing is fitted.

Flow: samples and truths → the figures as they would be served → `report` and reliability bins.

Dimensions: T samples, B rows, C classes, D outputs, N out-of-distribution rows.
"""

from __future__ import annotations

from dataclasses import replace
from math import isfinite

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dubito.calibration import truths
from dubito.calibration.flags import scores
from dubito.calibration.flags.source import LogitSource, NumberSource, Source
from dubito.calibration.promises import draws
from dubito.calibration.record import Calibration
from dubito.calibration.scaling.noise import Noise
from dubito.calibration.scaling.scaling import label_nll, mean_probabilities
from dubito.engine.heads.scaling import Scaling
from dubito.report import (
    Check,
    Evaluation,
    as_evaluation,
    class_curves,
    classification_statistics,
    no_check,
    number_curves,
    ood_statistics,
    regression_statistics,
    score_counts,
)


def evaluate_classification(
    logits_TBC: ArrayLike,
    label_B: ArrayLike,
    *,
    calibration: Calibration | None,
    coverage: float | None = None,
    ood_logits_TNC: ArrayLike | None = None,
    feature_BF: NDArray[np.floating] | None = None,
    ood_feature_NF: NDArray[np.floating] | None = None,
    uniform_B: NDArray[np.float64] | None = None,
    seed: int = 0,
    check: Check = no_check,
) -> Evaluation:
    """The report of a classification; without a calibration there are no sets and no flags.

    Args:
        logits_TBC: logits of each pass.
        label_B: class index of each row.
        calibration: the one to apply, or None for the raw figures.
        coverage: of the sets; the calibration's own where None.
        ood_logits_TNC: logits of rows known to be strange.
        feature_BF: features of the rows, where the calibration's score reads them.
        ood_feature_NF: features of the strange rows.
        uniform_B: a number in [0, 1) per row for randomised sets (`draws`); by place where None.
        seed: of the resamples behind the intervals.
        check: called now and then; whatever it raises ends the evaluation.

    Raises:
        InputError: shapes, labels or numbers that cannot be used.
    """
    logits = truths.logits(logits_TBC, "logits", None)
    label_B = truths.labels(label_B, logits.shape[1], logits.shape[2])
    scaling: Scaling = 1.0 if calibration is None else calibration.logit_scaling
    mean_BC = mean_probabilities(logits, scaling)
    score_B = scores_of(calibration, LogitSource(logits, scaling, feature_BF))
    ood_score_N = None
    if ood_logits_TNC is not None:
        strange = truths.logits(ood_logits_TNC, "ood logits", None)
        ood_score_N = scores_of(calibration, LogitSource(strange, scaling, ood_feature_NF))
    sets_BC = None
    if calibration is not None:
        if uniform_B is None:
            uniform_B = draws.by_place(len(label_B), calibration.sampling.seed)
        sets_BC = calibration.prediction_sets(mean_BC, uniform_B, coverage)
    flag_B = calibration.ood.flags(score_B) if calibration else None
    check()
    name = scores.DEFAULT_CLASSIFICATION if calibration is None else calibration.ood.score
    nll_B = label_nll(logits, label_B, scaling)
    statistics = {
        **classification_statistics(mean_BC, label_B, sets_BC, nll_B),
        **ood_statistics(flag_B, score_B, ood_score_N, name),
    }
    shown = score_counts(name, score_B, ood_score_N, threshold_of(calibration))
    curves = class_curves(mean_BC, label_B, shown)
    found = as_evaluation(statistics, curves, score_B, ood_score_N, seed, check)
    return replace(found, warnings=impossible(nll_B))


def evaluate_regression(
    mean_TBD: ArrayLike,
    log_variance_TBD: ArrayLike | None,
    target_BD: ArrayLike,
    *,
    calibration: Calibration | None,
    coverage: float | None = None,
    ood_mean_TND: ArrayLike | None = None,
    feature_BF: NDArray[np.floating] | None = None,
    ood_feature_NF: NDArray[np.floating] | None = None,
    seed: int = 0,
    check: Check = no_check,
) -> Evaluation:
    """The report of a regression; without a calibration there are no intervals and no flags.

    Without one, a head of means alone has no noise, so its NLL is None, and the score of strange
    rows counts in units of the targets' variance.

    Args:
        mean_TBD: means of each pass, in target units.
        log_variance_TBD: log-variances of each pass (log of target units squared), or None.
        target_BD: targets.
        calibration: the one to apply, or None for the raw figures.
        coverage: of the intervals; the calibration's own where None.
        ood_mean_TND: means of rows known to be strange.
        feature_BF: features of the rows, where the calibration's score reads them.
        ood_feature_NF: features of the strange rows.
        seed: of the resamples behind the intervals.
        check: called now and then; whatever it raises ends the evaluation.

    Raises:
        InputError: shapes or numbers that cannot be used.
    """
    means = truths.numbers(mean_TBD, "means", None).astype(np.float64)
    target_BD = truths.targets(target_BD, means.shape[1], means.shape[2])
    log_variance = None
    if log_variance_TBD is not None:
        log_variance = truths.log_variances(log_variance_TBD, None)
    noise, reference_D = _noise(calibration, target_BD)
    variance = noise.component_variance(means, log_variance)
    interval, flag_B = None, None
    score_B = scores_of(calibration, NumberSource(means.var(axis=0), reference_D, feature_BF))
    level = coverage
    if calibration is not None:
        level = calibration.coverage if coverage is None else coverage
        interval = calibration.mixture_intervals(means, variance, level)
        flag_B = calibration.ood.flags(score_B)
    ood_score_N = None
    if ood_mean_TND is not None:
        strange = truths.numbers(ood_mean_TND, "ood means", None).astype(np.float64)
        source = NumberSource(strange.var(axis=0), reference_D, ood_feature_NF)
        ood_score_N = scores_of(calibration, source)
    name = scores.DEFAULT_REGRESSION if calibration is None else calibration.ood.score
    statistics = {
        **regression_statistics(means, variance, target_BD, interval, level, check),
        **ood_statistics(flag_B, score_B, ood_score_N, name),
    }
    shown = score_counts(name, score_B, ood_score_N, threshold_of(calibration))
    curves = number_curves(means, variance, target_BD, shown)
    return as_evaluation(statistics, curves, score_B, ood_score_N, seed, check)


def _noise(
    calibration: Calibration | None, target_BD: NDArray[np.float64]
) -> tuple[Noise, NDArray[np.float64]]:
    """The noise that is added, and the variance of each output that the score counts in."""
    if calibration is None or not (calibration.noise_variance and calibration.variance_scale):
        return Noise.none(target_BD.shape[1]), target_BD.var(axis=0)
    noise = Noise(calibration.noise_variance, calibration.variance_scale)
    return noise, np.asarray(calibration.ood_reference)


def impossible(nll_B: NDArray[np.float64]) -> tuple[str, ...]:
    """A warning where a label has a probability of 0.

    Args:
        nll_B: negative log-likelihoods, (B,) or (B, P).
    """
    rows_b = np.flatnonzero(np.isinf(nll_B).reshape(len(nll_B), -1).any(axis=1))
    if not rows_b.size:
        return ()
    return (
        f"`nll` is null: the label has a probability of 0 in {rows_b.size} rows, the first of them "
        f"row {rows_b[0]} of those judged: check its label, or export the network with its logits",
    )


def threshold_of(calibration: Calibration | None) -> float | None:
    """The threshold of the flag, where there is one."""
    if calibration is None or not isfinite(calibration.ood.threshold):
        return None
    return calibration.ood.threshold


def scores_of(calibration: Calibration | None, source: Source) -> NDArray[np.float64]:
    """The scores of the calibration, or those of the default."""
    if calibration is not None:
        return calibration.ood_scores(source)
    is_numbers = isinstance(source, NumberSource)
    name = scores.DEFAULT_REGRESSION if is_numbers else scores.DEFAULT_CLASSIFICATION
    with np.errstate(divide="ignore", invalid="ignore"):  # a constant target has no variance
        return source.plain(name)
