"""Judge a network on labelled rows, with a calibration or without; nothing is fitted.

Flow: samples and truths → the figures as they would be served → `report` and reliability bins.

Dimensions: T samples, B rows, C classes, D outputs, N out-of-distribution rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dubito.calibration import truths
from dubito.calibration.noise import Noise
from dubito.calibration.record import Calibration
from dubito.calibration.report import (
    ReliabilityBin,
    Report,
    classification_figures,
    ood_figures,
    regression_figures,
    reliability_bins,
)
from dubito.calibration.temperature import mean_probabilities
from dubito.ood import scores
from dubito.ood.source import LogitSource, NumberSource, Source


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A report, and the reliability bins behind its ECE (empty for regression)."""

    report: Report
    bins: tuple[ReliabilityBin, ...]


def evaluate_classification(
    logits_TBC: ArrayLike,
    label_B: ArrayLike,
    *,
    calibration: Calibration | None,
    coverage: float | None = None,
    ood_logits_TNC: ArrayLike | None = None,
    feature_BF: NDArray[np.floating] | None = None,
    ood_feature_NF: NDArray[np.floating] | None = None,
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

    Raises:
        InputError: shapes, labels or numbers that cannot be used.
    """
    logits = truths.logits(logits_TBC, "logits", None)
    label_B = truths.labels(label_B, logits.shape[1], logits.shape[2])
    temperature = 1.0 if calibration is None else calibration.temperature or 1.0
    mean_BC = mean_probabilities(logits, temperature)
    score_B = _scores(calibration, LogitSource(logits, temperature, feature_BF))
    ood_score_N = None
    if ood_logits_TNC is not None:
        strange = truths.logits(ood_logits_TNC, "ood logits", None)
        ood_score_N = _scores(calibration, LogitSource(strange, temperature, ood_feature_NF))
    sets_BC = calibration.prediction_sets(mean_BC, coverage) if calibration else None
    flag_B = calibration.ood.flags(score_B) if calibration else None
    figures = classification_figures(mean_BC, label_B, sets_BC)
    figures |= ood_figures(flag_B, score_B, ood_score_N)
    return Evaluation(figures, reliability_bins(mean_BC, label_B))


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

    Raises:
        InputError: shapes or numbers that cannot be used.
    """
    means = truths.numbers(mean_TBD, "means", None).astype(np.float64)
    target_BD = truths.targets(target_BD, means.shape[1], means.shape[2])
    log_variance = None
    if log_variance_TBD is not None:
        log_variance = truths.numbers(log_variance_TBD, "log variances", None)
    noise, reference_D = Noise.none(means.shape[2]), target_BD.var(axis=0)
    if calibration is not None and calibration.noise_variance and calibration.variance_scale:
        noise = Noise(calibration.noise_variance, calibration.variance_scale)
        reference_D = np.asarray(calibration.ood_reference)
    variance = noise.component_variance(means, log_variance)
    interval, flag_B = None, None
    score_B = _scores(calibration, NumberSource(means.var(axis=0), reference_D, feature_BF))
    level = coverage
    if calibration is not None:
        level = calibration.coverage if coverage is None else coverage
        total_BD = means.var(axis=0) + variance.mean(axis=0)
        interval = calibration.intervals(means.mean(axis=0), total_BD, level)
        flag_B = calibration.ood.flags(score_B)
    ood_score_N = None
    if ood_mean_TND is not None:
        strange = truths.numbers(ood_mean_TND, "ood means", None).astype(np.float64)
        source = NumberSource(strange.var(axis=0), reference_D, ood_feature_NF)
        ood_score_N = _scores(calibration, source)
    figures = regression_figures(means, variance, target_BD, interval, level)
    return Evaluation(figures | ood_figures(flag_B, score_B, ood_score_N), ())


def _scores(calibration: Calibration | None, source: Source) -> NDArray[np.float64]:
    """The scores of the calibration, or those of the default."""
    if calibration is not None:
        return calibration.ood_scores(source)
    is_numbers = isinstance(source, NumberSource)
    name = scores.DEFAULT_REGRESSION if is_numbers else scores.DEFAULT_CLASSIFICATION
    with np.errstate(divide="ignore", invalid="ignore"):  # a constant target has no variance
        return source.plain(name)
