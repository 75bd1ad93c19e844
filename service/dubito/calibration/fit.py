"""Calibrate a network on held-out rows, and say how good the result is on rows no fit has seen.

Flow: samples and truths → four disjoint parts (`splits`) → temperature or noise on the first,
conformal scores on the second, out-of-distribution scores on the third, the report on the fourth
→ `Calibration`.

Dimensions: T samples, B rows, C classes, D outputs, N out-of-distribution rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dubito.calibration import conformal, splits, truths
from dubito.calibration.evaluate import (
    Evaluation,
    evaluate_classification,
    evaluate_regression,
)
from dubito.calibration.noise import Noise, fit_noise
from dubito.calibration.record import Calibration, Reports
from dubito.calibration.report import Check, no_check
from dubito.calibration.temperature import fit_temperature, mean_probabilities
from dubito.engine.sampling import Sampling
from dubito.errors import InputError
from dubito.ood import scores
from dubito.ood.detector import Detector


def fit_classification(
    logits_TBC: ArrayLike,
    label_B: ArrayLike,
    *,
    sampling: Sampling,
    alpha: float,
    coverage: float,
    seed: int,
    ood_logits_TNC: ArrayLike | None = None,
    check: Check = no_check,
) -> Calibration:
    """Temperature, sets and flag of a classification.

    The score of strange rows is the default, fixed beforehand; rows known to be strange serve the
    report alone.

    Args:
        logits_TBC: logits of each pass, drawn with `sampling`.
        label_B: class index of each row.
        sampling: what the calibration is bound to.
        alpha: false-alarm rate of the flag, in (0, 1).
        coverage: of the sets, in (0, 1).
        seed: of the splits.
        ood_logits_TNC: logits of rows known to be strange.
        check: called now and then; whatever it raises ends the fit.

    Raises:
        InputError: too few rows for a promise (naming how many are needed), one class only, or
            shapes, labels or numbers that cannot be used.
    """
    logits = truths.logits(logits_TBC, "logits", sampling)
    if ood_logits_TNC is not None:
        ood_logits_TNC = truths.logits(ood_logits_TNC, "ood logits", sampling)
    num_rows, num_classes = logits.shape[1:]
    label_B = truths.labels(label_B, num_rows, num_classes)
    parts = splits.parts(num_rows, alpha=alpha, coverage=coverage, seed=seed, label_B=label_B)
    truths.check_classes_vary(label_B)

    calibration = _classification(logits, label_B, parts, _Terms(sampling, alpha, coverage))
    judged = logits[:, parts[splits.REPORT]], label_B[parts[splits.REPORT]]
    before, after = (
        evaluate_classification(
            *judged, calibration=one, ood_logits_TNC=ood_logits_TNC, seed=seed, check=check
        )
        for one in (None, calibration)
    )
    return _reported(calibration, before, after)


def fit_regression(
    mean_TBD: ArrayLike,
    log_variance_TBD: ArrayLike | None,
    target_BD: ArrayLike,
    *,
    sampling: Sampling,
    alpha: float,
    coverage: float,
    seed: int,
    noise_precision: float | None = None,
    ood_mean_TND: ArrayLike | None = None,
    check: Check = no_check,
) -> Calibration:
    """Noise, intervals and flag of a regression; everything in target units.

    Args:
        mean_TBD: means of each pass, drawn with `sampling`.
        log_variance_TBD: log-variances of each pass, or None for a head of means alone.
        target_BD: targets, or (B,) for one output.
        sampling: what the calibration is bound to.
        alpha: false-alarm rate of the flag, in (0, 1).
        coverage: of the intervals, in (0, 1).
        seed: of the splits.
        noise_precision: 1 / noise variance of a head of means alone; fitted where None.
        ood_mean_TND: means of rows known to be strange, for the report alone.
        check: called now and then; whatever it raises ends the fit.

    Raises:
        InputError: too few rows for a promise (naming how many are needed), a constant target, or
            shapes or numbers that cannot be used.
    """
    means, log_variances = _regression_samples(mean_TBD, log_variance_TBD, sampling)
    if ood_mean_TND is not None:
        ood_mean_TND = truths.numbers(ood_mean_TND, "ood means", sampling)
    num_rows, num_outputs = means.shape[1:]
    target_BD = truths.targets(target_BD, num_rows, num_outputs)
    parts = splits.parts(num_rows, alpha=alpha, coverage=coverage, seed=seed)
    truths.check_targets_vary(target_BD)

    report_b = parts[splits.REPORT]
    noise = _noise(means, log_variances, target_BD, parts[splits.FIT], noise_precision)
    terms = _Terms(sampling, alpha, coverage)
    calibration = _regression(means, log_variances, target_BD, parts, terms, noise)
    judged_log_variances = None if log_variances is None else log_variances[:, report_b]
    judged = means[:, report_b], judged_log_variances, target_BD[report_b]
    before, after = (
        evaluate_regression(
            *judged, calibration=one, ood_mean_TND=ood_mean_TND, seed=seed, check=check
        )
        for one in (None, calibration)
    )
    return _reported(calibration, before, after)


def _reported(calibration: Calibration, before: Evaluation, after: Evaluation) -> Calibration:
    """The calibration with its report, intervals and curves."""
    both = {"before": before, "after": after}
    reports = Reports(
        before.report,
        after.report,
        intervals={name: one.intervals for name, one in both.items()},
    )
    curves = {name: one.curves for name, one in both.items()}
    return replace(calibration, report=reports, bins=after.bins, curves=curves)


@dataclass(frozen=True, slots=True)
class _Terms:
    """What the caller asks of a calibration, and what it is bound to."""

    sampling: Sampling
    alpha: float
    coverage: float


def _classification(
    logits_TBC: NDArray[np.floating],
    label_B: NDArray[np.int64],
    parts: Mapping[str, NDArray[np.int64]],
    terms: _Terms,
) -> Calibration:
    """The calibration of a classification, without its report."""
    fit_b, set_b, ood_b = (parts[name] for name in (splits.FIT, splits.CONFORMAL, splits.OOD))
    temperature = fit_temperature(logits_TBC[:, fit_b], label_B[fit_b])
    mean_bC = mean_probabilities(logits_TBC[:, set_b], temperature)
    score_b = scores.from_logits(scores.DEFAULT_CLASSIFICATION, logits_TBC[:, ood_b] / temperature)
    return Calibration(
        task="classification",
        sampling=terms.sampling,
        alpha=terms.alpha,
        coverage=terms.coverage,
        temperature=temperature,
        noise_variance=None,
        variance_scale=None,
        ood=Detector.fit(scores.DEFAULT_CLASSIFICATION, score_b, terms.alpha),
        ood_reference=None,
        conformal=conformal.fit_classes(mean_bC, label_B[set_b]),
        splits={name: len(rows) for name, rows in parts.items()},
        report=Reports({}, {}),
        bins=(),
        num_rows=len(label_B),
        warnings=(*_absent_classes(label_B, logits_TBC.shape[-1]), *_ties(score_b)),
    )


def _regression(
    mean_TBD: NDArray[np.float64],
    log_variance_TBD: NDArray[np.float64] | None,
    target_BD: NDArray[np.float64],
    parts: Mapping[str, NDArray[np.int64]],
    terms: _Terms,
    noise: Noise,
) -> Calibration:
    """The calibration of a regression, without its report."""
    fit_b, set_b, ood_b = (parts[name] for name in (splits.FIT, splits.CONFORMAL, splits.OOD))
    aleatoric_BD = np.broadcast_to(
        noise.component_variance(mean_TBD, log_variance_TBD).mean(axis=0), target_BD.shape
    )
    reference_D = aleatoric_BD[fit_b].mean(axis=0)
    mean_bD, variance_BD = mean_TBD[:, set_b].mean(axis=0), mean_TBD.var(axis=0) + aleatoric_BD
    score_b = scores.epistemic_variance(mean_TBD[:, ood_b], reference_D)
    return Calibration(
        task="regression",
        sampling=terms.sampling,
        alpha=terms.alpha,
        coverage=terms.coverage,
        temperature=None,
        noise_variance=noise.variance,
        variance_scale=noise.scale,
        ood=Detector.fit(scores.DEFAULT_REGRESSION, score_b, terms.alpha),
        ood_reference=tuple(reference_D.tolist()),
        conformal=conformal.fit_numbers(mean_bD, variance_BD[set_b], target_BD[set_b]),
        splits={name: len(rows) for name, rows in parts.items()},
        report=Reports({}, {}),
        bins=(),
        num_rows=len(target_BD),
        warnings=(*_undetermined(noise), *_ties(score_b)),
    )


def _regression_samples(
    mean_TBD: ArrayLike, log_variance_TBD: ArrayLike | None, sampling: Sampling
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    means = truths.numbers(mean_TBD, "means", sampling).astype(np.float64)
    if log_variance_TBD is None:
        return means, None
    log_variances = truths.numbers(log_variance_TBD, "log variances", sampling).astype(np.float64)
    if log_variances.shape != means.shape:
        raise InputError(
            f"`log variances` expects the shape of the means, {means.shape}, "
            f"got {log_variances.shape}: send both heads of the same samples"
        )
    return means, log_variances


def _noise(
    means: NDArray[np.float64],
    log_variances: NDArray[np.float64] | None,
    target_BD: NDArray[np.float64],
    fit_b: NDArray[np.int64],
    noise_precision: float | None,
) -> Noise:
    if noise_precision is None:
        chosen = None if log_variances is None else log_variances[:, fit_b]
        return fit_noise(means[:, fit_b], chosen, target_BD[fit_b])
    if log_variances is not None:
        raise InputError(
            "`noise_precision` expects a network that predicts means alone, got one with "
            "log-variances: leave it out, and their scale is fitted"
        )
    return Noise.of_precision(noise_precision, means.shape[2])


def _absent_classes(label_B: NDArray[np.int64], num_classes: int) -> list[str]:
    absent = np.setdiff1d(np.arange(num_classes), label_B)
    if not absent.size:
        return []
    names = ", ".join(map(str, absent.tolist()))
    return [f"no labelled row is of class index {names}: nothing is promised for it"]


def _ties(score_b: NDArray[np.float64]) -> list[str]:
    if np.unique(score_b).size > 1:
        return []
    return ["all held-out rows have the same out-of-distribution score: hardly a flag is raised"]


def _undetermined(noise: Noise) -> list[str]:
    return [
        f"the likelihood of output {output} names no noise: its mean squared residual is used"
        for output in noise.undetermined
    ]
