"""Calibrate a network on held-out rows, and say how good the result is on rows no fit has seen.

Flow: samples and truths → four disjoint parts (`splits`) → temperature or noise on the first,
conformal scores on the second, out-of-distribution scores on the third, the report on the fourth
→ `Calibration`. A score that is fitted or chosen (`flagging`) and a policy with a target (`policy`)
take further parts.

Dimensions: T samples, B rows, C classes, D outputs, N out-of-distribution rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dubito.calibration import conformal, splits, truths
from dubito.calibration.evaluate import evaluate_classification, evaluate_regression
from dubito.calibration.flagging import DEFAULT_FLAG, Flagging, fit_flag, strange_parts
from dubito.calibration.noise import Noise, fit_noise
from dubito.calibration.policy import (
    NO_TARGET,
    Policy,
    Target,
    class_uncertainty,
    number_uncertainty,
)
from dubito.calibration.record import Calibration, Reports
from dubito.calibration.temperature import fit_temperature, mean_probabilities
from dubito.engine.sampling import Sampling
from dubito.errors import InputError
from dubito.ood.source import LogitSource, NumberSource, taken_features


def fit_classification(
    logits_TBC: ArrayLike,
    label_B: ArrayLike,
    *,
    sampling: Sampling,
    alpha: float,
    coverage: float,
    seed: int,
    ood_logits_TNC: ArrayLike | None = None,
    flagging: Flagging = DEFAULT_FLAG,
    target: Target = NO_TARGET,
) -> Calibration:
    """Temperature, sets, flag and policy of a classification.

    Rows known to be strange serve the report alone, unless a score shall be chosen on half of them.

    Args:
        logits_TBC: logits of each pass, drawn with `sampling`.
        label_B: class index of each row.
        sampling: what the calibration is bound to.
        alpha: false-alarm rate of the flag, in (0, 1).
        coverage: of the sets, in (0, 1).
        seed: of the splits.
        ood_logits_TNC: logits of rows known to be strange.
        flagging: the score of the flag, and features where it needs them.
        target: what the policy shall promise.

    Raises:
        InputError: too few rows for a promise (naming how many are needed), one class only, or
            shapes, labels or numbers that cannot be used.
    """
    logits = truths.logits(logits_TBC, "logits", sampling)
    if ood_logits_TNC is not None:
        ood_logits_TNC = truths.logits(ood_logits_TNC, "ood logits", sampling)
    num_rows, num_classes = logits.shape[1:]
    label_B = truths.labels(label_B, num_rows, num_classes)
    terms = _Terms(sampling, alpha, coverage, seed, flagging, target)
    parts = splits.parts(
        num_rows, alpha=alpha, coverage=coverage, seed=seed, label_B=label_B, extra=terms.extra()
    )
    truths.check_classes_vary(label_B)
    strange = _Strange.of(ood_logits_TNC, terms)

    calibration = _classification(logits, label_B, parts, terms, strange)
    report_b = parts[splits.REPORT]
    judge = partial(
        evaluate_classification,
        *(logits[:, report_b], label_B[report_b]),
        ood_logits_TNC=strange.judged,
        feature_BF=taken_features(flagging.features, report_b),
        ood_feature_NF=strange.judged_features,
    )
    before, after = judge(calibration=None), judge(calibration=calibration)
    return replace(calibration, report=Reports(before.report, after.report), bins=after.bins)


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
    flagging: Flagging = DEFAULT_FLAG,
    target: Target = NO_TARGET,
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
        flagging: the score of the flag, and features where it needs them.
        target: what the policy shall promise; a share of accepted rows alone.

    Raises:
        InputError: too few rows for a promise (naming how many are needed), a constant target, or
            shapes or numbers that cannot be used.
    """
    means, log_variances = _regression_samples(mean_TBD, log_variance_TBD, sampling)
    if ood_mean_TND is not None:
        ood_mean_TND = truths.numbers(ood_mean_TND, "ood means", sampling)
    num_rows, num_outputs = means.shape[1:]
    target_BD = truths.targets(target_BD, num_rows, num_outputs)
    target.check_task("regression")
    terms = _Terms(sampling, alpha, coverage, seed, flagging, target)
    parts = splits.parts(num_rows, alpha=alpha, coverage=coverage, seed=seed, extra=terms.extra())
    truths.check_targets_vary(target_BD)
    strange = _Strange.of(ood_mean_TND, terms)

    report_b = parts[splits.REPORT]
    noise = _noise(means, log_variances, target_BD, parts[splits.FIT], noise_precision)
    calibration = _regression(means, log_variances, target_BD, parts, terms, noise, strange)
    judged_log_variances = None if log_variances is None else log_variances[:, report_b]
    judge = partial(
        evaluate_regression,
        *(means[:, report_b], judged_log_variances, target_BD[report_b]),
        ood_mean_TND=strange.judged,
        feature_BF=taken_features(flagging.features, report_b),
        ood_feature_NF=strange.judged_features,
    )
    before, after = judge(calibration=None), judge(calibration=calibration)
    return replace(calibration, report=Reports(before.report, after.report))


@dataclass(frozen=True, slots=True)
class _Terms:
    """What the caller asks of a calibration, and what it is bound to."""

    sampling: Sampling
    alpha: float
    coverage: float
    seed: int
    flagging: Flagging
    target: Target

    def extra(self) -> dict[str, splits.Share]:
        """Parts of the labelled rows beside the usual ones."""
        found, needed = self.flagging.extra(), self.target.rows_needed()
        if needed is not None:
            reason = "for the target of the policy, flagged rows not counted"
            found[splits.POLICY] = splits.Share(5, needed, reason)
        return found


@dataclass(frozen=True)
class _Strange:
    """Strange rows, those to choose a score by and those that the report sees; None: none."""

    chosen: NDArray[np.floating] | None = None
    chosen_features: NDArray[np.floating] | None = None
    judged: NDArray[np.floating] | None = None
    judged_features: NDArray[np.floating] | None = None

    @classmethod
    def of(cls, samples_TND: NDArray[np.floating] | None, terms: _Terms) -> _Strange:
        if samples_TND is None:
            return cls()
        flagging = terms.flagging
        chosen_n, judged_n = strange_parts(samples_TND.shape[1], flagging.score, terms.seed)
        is_chosen = len(chosen_n) > 0
        return cls(
            samples_TND[:, chosen_n] if is_chosen else None,
            taken_features(flagging.ood_features, chosen_n) if is_chosen else None,
            samples_TND[:, judged_n],
            taken_features(flagging.ood_features, judged_n),
        )

    def sizes(self) -> dict[str, int]:
        """Strange rows of each part, where they were parted."""
        if self.chosen is None or self.judged is None:
            return {}
        return {
            "strange_choice": self.chosen.shape[1],
            "strange_report": self.judged.shape[1],
        }


def _classification(
    logits_TBC: NDArray[np.floating],
    label_B: NDArray[np.int64],
    parts: Mapping[str, NDArray[np.int64]],
    terms: _Terms,
    strange: _Strange,
) -> Calibration:
    """The calibration of a classification, without its report."""
    fit_b, set_b = parts[splits.FIT], parts[splits.CONFORMAL]
    temperature = fit_temperature(logits_TBC[:, fit_b], label_B[fit_b])
    mean_bC = mean_probabilities(logits_TBC[:, set_b], temperature)
    rows = LogitSource(logits_TBC, temperature, terms.flagging.features)
    flag = fit_flag(
        *(terms.flagging, "classification", rows, label_B),
        None
        if strange.chosen is None
        else LogitSource(strange.chosen, temperature, strange.chosen_features),
        parts,
        alpha=terms.alpha,
        seed=terms.seed,
    )
    calibration = Calibration(
        task="classification",
        sampling=terms.sampling,
        alpha=terms.alpha,
        coverage=terms.coverage,
        temperature=temperature,
        noise_variance=None,
        variance_scale=None,
        ood=flag.detector,
        ood_reference=None,
        conformal=conformal.fit_classes(mean_bC, label_B[set_b]),
        splits=_sizes(parts, strange),
        report=Reports({}, {}),
        bins=(),
        num_rows=len(label_B),
        warnings=(*_absent_classes(label_B, logits_TBC.shape[-1]), *flag.warnings),
        ood_fitted=flag.fitted,
    )
    if splits.POLICY not in parts:
        return calibration
    policy_b = parts[splits.POLICY]
    mean_bC = mean_probabilities(logits_TBC[:, policy_b], temperature)
    flag_b = calibration.ood.flags(calibration.ood_scores(rows.take(policy_b)))
    is_wrong_b = mean_bC.argmax(axis=-1) != label_B[policy_b]
    policy = Policy.fit(terms.target, class_uncertainty(mean_bC), flag_b, is_wrong_b)
    return replace(calibration, policy=policy)


def _regression(
    mean_TBD: NDArray[np.float64],
    log_variance_TBD: NDArray[np.float64] | None,
    target_BD: NDArray[np.float64],
    parts: Mapping[str, NDArray[np.int64]],
    terms: _Terms,
    noise: Noise,
    strange: _Strange,
) -> Calibration:
    """The calibration of a regression, without its report."""
    fit_b, set_b = parts[splits.FIT], parts[splits.CONFORMAL]
    aleatoric_BD = np.broadcast_to(
        noise.component_variance(mean_TBD, log_variance_TBD).mean(axis=0), target_BD.shape
    )
    reference_D = aleatoric_BD[fit_b].mean(axis=0)
    mean_bD, variance_BD = mean_TBD[:, set_b].mean(axis=0), mean_TBD.var(axis=0) + aleatoric_BD
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
        conformal=conformal.fit_numbers(mean_bD, variance_BD[set_b], target_BD[set_b]),
        splits=_sizes(parts, strange),
        report=Reports({}, {}),
        bins=(),
        num_rows=len(target_BD),
        warnings=(*_undetermined(noise), *flag.warnings),
        ood_fitted=flag.fitted,
    )
    if splits.POLICY not in parts:
        return calibration
    policy_b = parts[splits.POLICY]
    flag_b = calibration.ood.flags(calibration.ood_scores(rows.take(policy_b)))
    uncertainty_b = number_uncertainty(variance_BD[policy_b], reference_D)
    return replace(calibration, policy=Policy.fit(terms.target, uncertainty_b, flag_b, None))


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


def _sizes(parts: Mapping[str, NDArray[np.int64]], strange: _Strange) -> dict[str, int]:
    return {name: len(rows) for name, rows in parts.items()} | strange.sizes()


def _undetermined(noise: Noise) -> list[str]:
    return [
        f"the likelihood of output {output} names no noise: its mean squared residual is used"
        for output in noise.undetermined
    ]
