"""Calibrate a network on held-out rows, and say how good the result is on rows no fit has seen.

Flow: samples and truths → four disjoint parts (`splits`) → temperature or noise on the first,
conformal scores on the second, out-of-distribution scores on the third, the report on the fourth
→ `Calibration`. A score that is fitted or chosen (`flagging`) and a policy with a target (`policy`)
take further parts.

Dimensions: T samples, B rows, C classes, D outputs, N out-of-distribution rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dubito import ties
from dubito.calibration import splits, truths
from dubito.calibration.choices import DEFAULTS, Choices
from dubito.calibration.evaluate import (
    Evaluation,
    evaluate_classification,
    evaluate_regression,
)
from dubito.calibration.flags.flagging import DEFAULT_FLAG, Flagging, fit_flag
from dubito.calibration.flags.source import LogitSource, NumberSource, taken_features
from dubito.calibration.promises import conformal, draws, intervals, sets
from dubito.calibration.promises.conformal import ConformalScores
from dubito.calibration.promises.policy import (
    NO_TARGET,
    Policy,
    Target,
    class_uncertainty,
    number_uncertainty,
)
from dubito.calibration.promises.sets import SetRule
from dubito.calibration.record import Calibration, Reports
from dubito.calibration.scaling.noise import Noise, check_precision, noise_of
from dubito.calibration.scaling.scaling import fit_scaling, mean_probabilities
from dubito.calibration.terms import Strange, Terms
from dubito.calibration.unreported import without_report
from dubito.calibration.verdict import JudgedFit, judge_noise, judge_scaling
from dubito.engine.calling.sampling import Sampling
from dubito.engine.heads.scaling import Scaling
from dubito.errors import InputError
from dubito.report import Check, no_check


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
    flagging: Flagging = DEFAULT_FLAG,
    target: Target = NO_TARGET,
    uniform_B: NDArray[np.float64] | None = None,
    check: Check = no_check,
) -> Calibration:
    """Temperature (or another scaling), sets, flag and policy of a classification.

    Rows known to be strange serve the report alone, unless a score shall be chosen on half of them.

    Args:
        logits_TBC: logits of each pass, drawn with `sampling`.
        label_B: class index of each row.
        sampling: what the calibration is bound to.
        alpha: false-alarm rate of the flag, in (0, 1).
        coverage: of the sets, in (0, 1).
        seed: of the splits.
        ood_logits_TNC: logits of rows known to be strange.
        choices: scaling and sets.
        flagging: the score of the flag, and features where it needs them.
        target: what the policy shall promise.
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
    terms = Terms(sampling, alpha, coverage, seed, choices, flagging, target)
    parts = _class_parts(label_B, terms)
    strange = Strange.of(ood_logits_TNC, terms)
    if uniform_B is None:
        uniform_B = draws.by_place(num_rows, seed)

    calibration = _classification(logits, label_B, uniform_B, parts, terms, strange)
    fit_b, report_b = parts[splits.FIT], parts[splits.REPORT]
    scaling = calibration.logit_scaling
    judged = judge_scaling(choices.scaling, scaling, logits, label_B, fit_b, seed, check)
    judge = partial(
        evaluate_classification,
        *(logits[:, report_b], label_B[report_b]),
        ood_logits_TNC=strange.judged,
        feature_BF=taken_features(flagging.features, report_b),
        ood_feature_NF=strange.judged_features,
        uniform_B=uniform_B[report_b],
        seed=seed,
        check=check,
    )
    return reported(calibration, judged, judge(calibration=None), judge(calibration=calibration))


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
    flagging: Flagging = DEFAULT_FLAG,
    target: Target = NO_TARGET,
    check: Check = no_check,
) -> Calibration:
    """Noise, intervals, flag and policy of a regression; everything in target units.

    Args:
        mean_TBD: means of each pass, drawn with `sampling`.
        log_variance_TBD: log-variances of each pass, or None for a head of means alone.
        target_BD: targets, or (B,) for one output.
        sampling: what the calibration is bound to.
        alpha: false-alarm rate of the flag, in (0, 1).
        coverage: of the intervals, in (0, 1).
        seed: of the splits.
        noise_precision: 1 / noise variance of a head of means alone; fitted where None.
        ood_mean_TND: means of strange rows, for the report, or half each to choose a score.
        choices: intervals.
        flagging: the score of the flag, and features where it needs them.
        target: what the policy shall promise; a share of accepted rows alone.
        check: called now and then; whatever it raises ends the fit.

    Raises:
        InputError: too few rows for a promise (naming how many are needed), a constant target, or
            shapes or numbers that cannot be used.
    """
    means, log_variances = truths.heads(mean_TBD, log_variance_TBD, sampling)
    if ood_mean_TND is not None:
        ood_mean_TND = truths.numbers(ood_mean_TND, "ood means", sampling)
    num_rows, num_outputs = means.shape[1:]
    target_BD = truths.targets(target_BD, num_rows, num_outputs)
    target.check_task("regression")
    terms = Terms(sampling, alpha, coverage, seed, choices, flagging, target)
    parts = splits.parts(num_rows, alpha=alpha, coverage=coverage, seed=seed, extra=terms.extra())
    truths.check_targets_vary(target_BD)
    strange = Strange.of(ood_mean_TND, terms)

    fit_b, report_b = parts[splits.FIT], parts[splits.REPORT]
    own = None if log_variances is None else log_variances[:, fit_b]
    noise = noise_of(noise_precision, means[:, fit_b], own, target_BD[fit_b])
    if noise_precision is not None:
        check_precision(noise_precision, target_BD)
    calibration = _regression(means, log_variances, target_BD, parts, terms, noise, strange)
    is_given = noise_precision is not None
    judged = judge_noise(noise, is_given, means, log_variances, target_BD, fit_b, seed, check)
    judge = partial(
        evaluate_regression,
        means[:, report_b],
        None if log_variances is None else log_variances[:, report_b],
        target_BD[report_b],
        ood_mean_TND=strange.judged,
        feature_BF=taken_features(flagging.features, report_b),
        ood_feature_NF=strange.judged_features,
        seed=seed,
        check=check,
    )
    return reported(calibration, judged, judge(calibration=None), judge(calibration=calibration))


def reported(
    calibration: Calibration, judged: JudgedFit, before: Evaluation, after: Evaluation
) -> Calibration:
    """The calibration with the verdict on its fit, its report, intervals and curves."""
    both = {"before": before, "after": after}
    reports = Reports(
        before.report,
        after.report,
        intervals={name: one.intervals for name, one in both.items()},
    )
    curves = {name: one.curves for name, one in both.items()}
    told = (*calibration.warnings, *judged.warnings, *before.warnings, *after.warnings)
    return replace(
        calibration,
        report=reports,
        bins=after.bins,
        curves=curves,
        verdict=judged.verdict,
        warnings=tuple(dict.fromkeys(told)),
    )


def _class_parts(label_B: NDArray[np.int64], terms: Terms) -> dict[str, NDArray[np.int64]]:
    """The parts of the labelled rows; where nothing is fitted to the logits, more for sets."""
    choices = terms.choices
    is_isotonic = choices.scaling == "isotonic"
    parts = splits.parts(
        len(label_B),
        alpha=terms.alpha,
        coverage=terms.coverage,
        seed=terms.seed,
        label_B=label_B,
        to_fit=splits.FEWEST_TO_FIT_ISOTONIC if is_isotonic else splits.FEWEST_TO_FIT,
        extra=terms.extra(),
    )
    truths.check_classes_vary(label_B)
    is_nothing_fitted = choices.scaling == "none" and choices.sets != "raps"
    return splits.without_fit(parts) if is_nothing_fitted else parts


def _classification(
    logits_TBC: NDArray[np.floating],
    label_B: NDArray[np.int64],
    uniform_B: NDArray[np.float64],
    parts: Mapping[str, NDArray[np.int64]],
    terms: Terms,
    strange: Strange,
) -> Calibration:
    """The calibration of a classification, without its report."""
    fit_b, set_b = parts[splits.FIT], parts[splits.CONFORMAL]
    scaling = fit_scaling(terms.choices.scaling, logits_TBC[:, fit_b], label_B[fit_b])
    rule = _set_rule((logits_TBC[:, fit_b], label_B[fit_b], uniform_B[fit_b]), scaling, terms)
    mean_bC = mean_probabilities(logits_TBC[:, set_b], scaling)
    held_out = rule.fit(mean_bC, label_B[set_b], uniform_B[set_b])
    if rule.per_class:
        _check_rows_per_class(held_out, terms)
    rows = LogitSource(logits_TBC, scaling, terms.flagging.features)
    flag = fit_flag(
        *(terms.flagging, "classification", rows, label_B),
        None
        if strange.chosen is None
        else LogitSource(strange.chosen, scaling, strange.chosen_features),
        parts,
        alpha=terms.alpha,
        seed=terms.seed,
    )
    calibration = without_report(
        (held_out, scaling, flag),
        terms,
        splits=sizes(parts, strange),
        num_rows=len(label_B),
        absent=truths.absent_classes(label_B, logits_TBC.shape[-1]),
        set_rule=rule,
    )
    if splits.POLICY not in parts:
        return calibration
    policy_b = parts[splits.POLICY]
    mean_bC = mean_probabilities(logits_TBC[:, policy_b], scaling)
    flag_b = calibration.ood.flags(calibration.ood_scores(rows.take(policy_b)))
    is_wrong_b = ties.most_probable(mean_bC) != label_B[policy_b]
    policy = Policy.fit(terms.target, class_uncertainty(mean_bC), flag_b, is_wrong_b)
    return replace(calibration, policy=policy)


def _set_rule(
    fitted: tuple[NDArray[np.floating], NDArray[np.int64], NDArray[np.float64]],
    scaling: Scaling,
    terms: Terms,
) -> SetRule:
    """How classes are scored; the penalty of raps from rows that no threshold is taken from."""
    choices = terms.choices
    if choices.sets != "raps":
        return SetRule(choices.sets, choices.per_class)
    logits_TbC, label_b, uniform_b = fitted
    mean_bC = mean_probabilities(logits_TbC, scaling)
    chosen = sets.choose_penalty(mean_bC, label_b, uniform_b, terms.coverage)
    return replace(chosen, per_class=choices.per_class)


def _check_rows_per_class(held_out: ConformalScores, terms: Terms) -> None:
    """Refuse thresholds per class where a class has too few rows for the coverage."""
    needed = conformal.rows_needed(terms.coverage)
    few = [index for index, column in enumerate(held_out.columns) if len(column) < needed]
    if few:
        names = ", ".join(map(str, few[:12]))
        shares = splits.with_extra(terms.extra())
        in_all = splits.rows_per_class(needed, shares)
        raise InputError(
            f"`per_class` expects at least {in_all} labelled rows of each class for coverage "
            f"{terms.coverage}, got fewer of class index {names}: {needed} of each must be among "
            "those for sets; send more, or ask for a lower coverage"
        )


def _regression(
    mean_TBD: NDArray[np.float64],
    log_variance_TBD: NDArray[np.float64] | None,
    target_BD: NDArray[np.float64],
    parts: Mapping[str, NDArray[np.int64]],
    terms: Terms,
    noise: Noise,
    strange: Strange,
) -> Calibration:
    """The calibration of a regression, without its report."""
    fit_b, set_b = parts[splits.FIT], parts[splits.CONFORMAL]
    aleatoric_BD = np.broadcast_to(
        noise.component_variance(mean_TBD, log_variance_TBD).mean(axis=0), target_BD.shape
    )
    reference_D = np.median(aleatoric_BD[fit_b], axis=0)  # of one row with a vast noise no mean
    variance_BD = mean_TBD.var(axis=0) + aleatoric_BD
    held_out = _held_out_intervals(
        mean_TBD[:, set_b],
        None if log_variance_TBD is None else log_variance_TBD[:, set_b],
        variance_BD[set_b],
        target_BD[set_b],
        noise,
        terms,
    )
    rows = NumberSource(mean_TBD.var(axis=0), reference_D, terms.flagging.features)
    flag = fit_flag(
        *(terms.flagging, "regression", rows, None),
        None
        if strange.chosen is None
        else NumberSource(strange.chosen.var(axis=0), reference_D, strange.chosen_features),
        parts,
        alpha=terms.alpha,
        seed=terms.seed,
    )
    calibration = Calibration(
        task="regression",
        sampling=terms.sampling,
        alpha=terms.alpha,
        coverage=terms.coverage,
        temperature=None,
        noise_variance=noise.variance,
        variance_scale=noise.scale,
        ood=flag.detector,
        ood_reference=tuple(reference_D.tolist()),
        conformal=held_out,
        splits=sizes(parts, strange),
        report=Reports({}, {}),
        bins=(),
        num_rows=len(target_BD),
        warnings=flag.warnings,
        ood_fitted=flag.fitted,
        intervals=terms.choices.intervals,
    )
    if splits.POLICY not in parts:
        return calibration
    policy_b = parts[splits.POLICY]
    flag_b = calibration.ood.flags(calibration.ood_scores(rows.take(policy_b)))
    uncertainty_b = number_uncertainty(variance_BD[policy_b], reference_D)
    return replace(calibration, policy=Policy.fit(terms.target, uncertainty_b, flag_b, None))


def _held_out_intervals(
    mean_TbD: NDArray[np.float64],
    log_variance_TbD: NDArray[np.float64] | None,
    variance_bD: NDArray[np.float64],
    target_bD: NDArray[np.float64],
    noise: Noise,
    terms: Terms,
) -> ConformalScores:
    """The scores of the rows held out for intervals."""
    if terms.choices.intervals == "normalised":
        return intervals.fit_normalised(mean_TbD.mean(axis=0), variance_bD, target_bD)
    variance_TbD = noise.component_variance(mean_TbD, log_variance_TbD)
    ends = intervals.quantile_ends(mean_TbD, variance_TbD, terms.coverage)
    return intervals.fit_quantiles(ends, target_bD)


def sizes(parts: Mapping[str, NDArray[np.int64]], strange: Strange) -> dict[str, int]:
    """Rows of each part, strange ones among them."""
    return {name: len(rows) for name, rows in parts.items()} | strange.sizes()
