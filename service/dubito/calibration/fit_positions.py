"""Calibrate a head with several labels or positions per row.

Flow: as of `fit`, with rows dealt out as wholes: one temperature (or another scaling) over all
positions of the rows that fit it, one score per row for the sets (`positions`), one for the flag.

Dimensions: T samples, B rows, P positions, C classes, N out-of-distribution rows.
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
from dubito.calibration.evaluate_positions import evaluate_positions
from dubito.calibration.fit import reported, sizes
from dubito.calibration.flags.flagging import DEFAULT_FLAG, Flagging, fit_flag
from dubito.calibration.flags.source import PositionSource, taken_features
from dubito.calibration.promises.conformal import ConformalScores
from dubito.calibration.promises.policy import NO_TARGET, Policy, Target
from dubito.calibration.promises.positions import UNLABELLED, PositionHead, Positions, check_choices
from dubito.calibration.record import Calibration
from dubito.calibration.scaling.scaling import fit_scaling, mean_probabilities
from dubito.calibration.terms import Strange, Terms
from dubito.calibration.unreported import without_report
from dubito.calibration.verdict import judge_scaling
from dubito.engine.calling.sampling import Sampling
from dubito.report import Check, no_check


def fit_positions(
    logits_TBPC: ArrayLike,
    label_BP: ArrayLike,
    head: PositionHead,
    *,
    sampling: Sampling,
    alpha: float,
    coverage: float,
    seed: int,
    share: float = 1.0,
    ood_logits_TNPC: ArrayLike | None = None,
    choices: Choices = DEFAULTS,
    flagging: Flagging = DEFAULT_FLAG,
    target: Target = NO_TARGET,
    check: Check = no_check,
) -> Calibration:
    """Temperature (or another scaling), sets, flag and policy of such a head.

    Args:
        logits_TBPC: logits of each pass, drawn with `sampling`; of labels C is 2.
        label_BP: class index of each label or position; -1: nobody has labelled it.
        head: `multilabel` or `dense`.
        sampling: what the calibration is bound to.
        alpha: false-alarm rate of the flag of a row, in (0, 1).
        coverage: of the promise for a row, in (0, 1).
        seed: of the splits.
        share: of a row's positions, the least that its sets hold at once.
        ood_logits_TNPC: logits of rows known to be strange.
        choices: scaling; sets are `lac`.
        flagging: the score of the flag, and features where it needs them.
        target: what the policy shall promise of rows.
        check: called now and then; whatever it raises ends the fit.

    Raises:
        InputError: too few rows for a promise (naming how many are needed), one class only, a
            choice that has no meaning here, or shapes, labels or numbers that cannot be used.
    """
    check_choices(head, choices, target, flagging.score, share)
    logits = truths.position_logits(logits_TBPC, "logits", sampling)
    label = truths.position_labels(label_BP, logits.shape[1:3], logits.shape[3])
    if ood_logits_TNPC is not None:
        ood_logits_TNPC = truths.position_logits(ood_logits_TNPC, "ood logits", sampling)
    terms = Terms(sampling, alpha, coverage, seed, choices, flagging, target)
    parts = _parts(label, terms)
    strange = Strange.of(ood_logits_TNPC, terms)
    calibration = _fitted(logits, label, Positions(head, share), parts, terms, strange)
    fit_b, report_b = parts[splits.FIT], parts[splits.REPORT]
    scaling = calibration.logit_scaling
    judged = judge_scaling(choices.scaling, scaling, logits, label, fit_b, seed, check)
    judge = partial(
        evaluate_positions,
        *(logits[:, report_b], label[report_b], head),
        ood_logits_TNPC=strange.judged,
        feature_BF=taken_features(flagging.features, report_b),
        ood_feature_NF=strange.judged_features,
        seed=seed,
        check=check,
    )
    return reported(calibration, judged, judge(calibration=None), judge(calibration=calibration))


def _parts(label_BP: NDArray[np.int64], terms: Terms) -> dict[str, NDArray[np.int64]]:
    """The parts of the rows; where nothing is fitted to the logits, more for sets."""
    is_isotonic = terms.choices.scaling == "isotonic"
    parts = splits.parts(
        len(label_BP),
        alpha=terms.alpha,
        coverage=terms.coverage,
        seed=terms.seed,
        to_fit=splits.FEWEST_TO_FIT_ISOTONIC if is_isotonic else splits.FEWEST_TO_FIT,
        extra=terms.extra(),
    )
    truths.check_classes_vary(label_BP[label_BP != UNLABELLED])
    return splits.without_fit(parts) if terms.choices.scaling == "none" else parts


def _fitted(
    logits_TBPC: NDArray[np.floating],
    label_BP: NDArray[np.int64],
    positions: Positions,
    parts: Mapping[str, NDArray[np.int64]],
    terms: Terms,
    strange: Strange,
) -> Calibration:
    """The calibration without its report."""
    fit_b, set_b = parts[splits.FIT], parts[splits.CONFORMAL]
    scaling = fit_scaling(terms.choices.scaling, logits_TBPC[:, fit_b], label_BP[fit_b])
    mean_bPC = mean_probabilities(logits_TBPC[:, set_b], scaling)
    held_out = ConformalScores.of([positions.row_scores(mean_bPC, label_BP[set_b])])
    rows = PositionSource(logits_TBPC, scaling, positions.head, terms.flagging.features)
    chosen = strange.chosen
    flag = fit_flag(
        *(terms.flagging, "classification", rows, None),
        None
        if chosen is None
        else PositionSource(chosen, scaling, positions.head, strange.chosen_features),
        parts,
        alpha=terms.alpha,
        seed=terms.seed,
    )
    calibration = without_report(
        (held_out, scaling, flag),
        terms,
        splits=sizes(parts, strange),
        num_rows=len(label_BP),
        absent=_absent(label_BP, positions, logits_TBPC.shape[-1]),
        positions=positions,
    )
    if splits.POLICY not in parts:
        return calibration
    policy_b = parts[splits.POLICY]
    mean_bPC = mean_probabilities(logits_TBPC[:, policy_b], scaling)
    flag_b = calibration.ood.flags(calibration.ood_scores(rows.take(policy_b)))
    is_off_bP = (ties.most_probable(mean_bPC) != label_BP[policy_b]) & (
        label_BP[policy_b] != UNLABELLED
    )
    uncertainty_b = positions.uncertainty(mean_bPC)
    policy = Policy.fit(terms.target, uncertainty_b, flag_b, is_off_bP.any(axis=1))
    return replace(calibration, policy=policy)


def _absent(label_BP: NDArray[np.int64], positions: Positions, num_classes: int) -> list[str]:
    if positions.head == "dense":
        return truths.absent_classes(label_BP[label_BP != UNLABELLED], num_classes)
    never = [int(place) for place in np.flatnonzero(~(label_BP == 1).any(axis=0))]
    if not never:
        return []
    return [f"label number {', '.join(map(str, never))} is on in no labelled row"]
