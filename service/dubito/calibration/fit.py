"""Calibrate a network on held-out rows, and say how good the result is on rows no fit has seen.

Flow: samples and truths → four disjoint parts (`splits`) → temperature or noise on the first,
conformal scores on the second, out-of-distribution scores on the third, the report on the fourth
→ `Calibration`.

Dimensions: T samples, B rows, C classes, D outputs, N out-of-distribution rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dubito.calibration import conformal, draws, intervals, sets, splits, truths
from dubito.calibration.choices import DEFAULTS, Choices
from dubito.calibration.evaluate import (
    Evaluation,
    evaluate_classification,
    evaluate_regression,
)
from dubito.calibration.noise import Noise, fit_noise
from dubito.calibration.record import Calibration, Reports
from dubito.calibration.report import Check, no_check
from dubito.calibration.scaling import fit_scaling, mean_probabilities, scaled_logits
from dubito.calibration.sets import SetRule
from dubito.engine.sampling import Sampling
from dubito.engine.scaling import Scaling
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
    choices: Choices = DEFAULTS,
    uniform_B: NDArray[np.float64] | None = None,
    check: Check = no_check,
) -> Calibration:
    """Temperature (or another scaling), sets and flag of a classification.

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
        choices: scaling and sets.
        uniform_B: a number in [0, 1) per row for randomised sets (`draws`); by place where None.
        check: called now and then; whatever it raises ends the fit.

    Raises:
        InputError: too few rows, or rows of a class, for a promise (naming how many are needed),
            one class only, or shapes, labels or numbers that cannot be used.
    """
    logits = truths.logits(logits_TBC, "logits", sampling)
    if ood_logits_TNC is not None:
        ood_logits_TNC = truths.logits(ood_logits_TNC, "ood logits", sampling)
    num_rows, num_classes = logits.shape[1:]
    label_B = truths.labels(label_B, num_rows, num_classes)
    is_isotonic = choices.scaling == "isotonic"
    parts = splits.parts(
        num_rows,
        alpha=alpha,
        coverage=coverage,
        seed=seed,
        label_B=label_B,
        to_fit=splits.FEWEST_TO_FIT_ISOTONIC if is_isotonic else splits.FEWEST_TO_FIT,
    )
    truths.check_classes_vary(label_B)
    if choices.scaling == "none" and choices.sets != "raps":
        parts = splits.without_fit(parts)
    if uniform_B is None:
        uniform_B = draws.by_place(num_rows, seed)

    terms = _Terms(sampling, alpha, coverage, choices)
    calibration = _classification(logits, label_B, uniform_B, parts, terms)
    report_b = parts[splits.REPORT]
    judge = partial(
        evaluate_classification,
        logits[:, report_b],
        label_B[report_b],
        ood_logits_TNC=ood_logits_TNC,
        uniform_B=uniform_B[report_b],
        seed=seed,
        check=check,
    )
    return _reported(calibration, judge(calibration=None), judge(calibration=calibration))


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
    choices: Choices = DEFAULTS,
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
        choices: intervals.
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
    terms = _Terms(sampling, alpha, coverage, choices)
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
    choices: Choices


def _classification(
    logits_TBC: NDArray[np.floating],
    label_B: NDArray[np.int64],
    uniform_B: NDArray[np.float64],
    parts: Mapping[str, NDArray[np.int64]],
    terms: _Terms,
) -> Calibration:
    """The calibration of a classification, without its report."""
    fit_b, set_b, ood_b = (parts[name] for name in (splits.FIT, splits.CONFORMAL, splits.OOD))
    scaling = fit_scaling(terms.choices.scaling, logits_TBC[:, fit_b], label_B[fit_b])
    fitted = logits_TBC[:, fit_b], label_B[fit_b], uniform_B[fit_b]
    rule = _set_rule(fitted, scaling, terms)
    mean_bC = mean_probabilities(logits_TBC[:, set_b], scaling)
    held_out = rule.fit(mean_bC, label_B[set_b], uniform_B[set_b])
    if rule.per_class:
        _check_rows_per_class(held_out, terms.coverage)
    scaled_TbC = scaled_logits(logits_TBC[:, ood_b], scaling)
    score_b = scores.from_logits(scores.DEFAULT_CLASSIFICATION, scaled_TbC)
    return Calibration(
        task="classification",
        sampling=terms.sampling,
        alpha=terms.alpha,
        coverage=terms.coverage,
        temperature=scaling if isinstance(scaling, float) else 1.0,
        noise_variance=None,
        variance_scale=None,
        ood=Detector.fit(scores.DEFAULT_CLASSIFICATION, score_b, terms.alpha),
        ood_reference=None,
        conformal=held_out,
        splits={name: len(rows) for name, rows in parts.items()},
        report=Reports({}, {}),
        bins=(),
        num_rows=len(label_B),
        warnings=(*_absent_classes(label_B, logits_TBC.shape[-1]), *_ties(score_b)),
        scaling=terms.choices.scaling,
        class_map=None if isinstance(scaling, float) else scaling,
        set_rule=rule,
    )


def _set_rule(
    fitted: tuple[NDArray[np.floating], NDArray[np.int64], NDArray[np.float64]],
    scaling: Scaling,
    terms: _Terms,
) -> SetRule:
    """How classes are scored; the penalty of raps from rows that no threshold is taken from."""
    choices = terms.choices
    if choices.sets != "raps":
        return SetRule(choices.sets, choices.per_class)
    logits_TbC, label_b, uniform_b = fitted
    mean_bC = mean_probabilities(logits_TbC, scaling)
    chosen = sets.choose_penalty(mean_bC, label_b, uniform_b, terms.coverage)
    return replace(chosen, per_class=choices.per_class)


def _check_rows_per_class(held_out: conformal.ConformalScores, coverage: float) -> None:
    """Refuse thresholds per class where a class has too few rows for the coverage."""
    needed = conformal.rows_needed(coverage)
    few = [index for index, column in enumerate(held_out.columns) if len(column) < needed]
    if few:
        names = ", ".join(map(str, few[:12]))
        raise InputError(
            f"`per_class` expects at least {splits.rows_per_class(needed)} labelled rows of each "
            f"class for coverage {coverage}, got fewer of class index {names}: {needed} of each "
            "must be among those for sets; send more, or ask for a lower coverage"
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
    score_b = scores.epistemic_variance(mean_TBD[:, ood_b], reference_D)
    set_TbD = mean_TBD[:, set_b]
    if terms.choices.intervals == "cqr":
        log_variance_TbD = None if log_variance_TBD is None else log_variance_TBD[:, set_b]
        variance_TbD = noise.component_variance(set_TbD, log_variance_TbD)
        ends = intervals.quantile_ends(set_TbD, variance_TbD, terms.coverage)
        held_out = intervals.fit_quantiles(ends, target_BD[set_b])
    else:
        variance_bD = set_TbD.var(axis=0) + aleatoric_BD[set_b]
        held_out = intervals.fit_normalised(set_TbD.mean(axis=0), variance_bD, target_BD[set_b])
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
        conformal=held_out,
        splits={name: len(rows) for name, rows in parts.items()},
        report=Reports({}, {}),
        bins=(),
        num_rows=len(target_BD),
        warnings=(*_undetermined(noise), *_ties(score_b)),
        intervals=terms.choices.intervals,
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
