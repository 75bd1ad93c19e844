"""Calibrate a network on held-out rows, and say how good the result is on rows no fit has seen.

Flow: samples and truths → disjoint parts (`splits`) → scaling or noise on the first, held-out
scores of sets or intervals on the second, of the flag on the third, the report on the fourth →
`Calibration`. A score that is fitted or chosen (`flagging`) and a policy with a target (`policy`)
take further parts. What differs by kind of head is the head's.

Dimensions: T samples, B rows, N out-of-distribution rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from dubito.calibration import splits
from dubito.calibration.flags.flagging import Flagging
from dubito.calibration.heads import Head
from dubito.calibration.judge import judge_checked
from dubito.calibration.promises.policy import Policy
from dubito.calibration.record import Calibration
from dubito.calibration.sampled import Indices, Sampled
from dubito.calibration.stored import Reports
from dubito.calibration.terms import Strange, Terms
from dubito.calibration.verdict import JudgedFit
from dubito.errors import InputError
from dubito.report import Check, Evaluation, no_check


def fit(
    head: Head,
    rows: Sampled,
    terms: Terms,
    *,
    strange: Sampled | None = None,
    made: Mapping[str, Sampled] | None = None,
    check: Check = no_check,
) -> Calibration:
    """Fit scaling or noise, sets or intervals, flag and policy; everything in target units.

    Out-of-distribution rows serve the report alone, unless a score shall be chosen on half of them.

    Args:
        head: of the network, raw.
        rows: labelled, with features where the score of the flag may read them.
        terms: what the caller asks.
        strange: out-of-distribution rows, with features likewise.
        made: rows made up to see what the flag is blind to, by kind, with features likewise.
        check: called now and then; whatever it raises ends the fit.

    Raises:
        InputError: too few rows, or rows of a class, for a promise (naming how many are needed),
            truths that are all the same, a choice that has no meaning for the head, or shapes,
            truths or numbers that cannot be used.
    """
    head.check(terms)
    rows = replace(head.checked(rows, terms.sampling).with_draws(terms.seed), check=check)
    if strange is not None:
        strange = replace(head.checked(strange, terms.sampling), check=check)
    parts = head.split(rows, terms)
    parted = Strange.of(strange, terms)
    scaled = head.scaled(rows, parts[splits.FIT], terms)
    judged = scaled.verdict(rows, parts[splits.FIT], terms, check)
    if judged.verdict.is_left_out:
        scaled = head.unscaled(rows, parts[splits.FIT], terms)
    fitted = scaled.promising(rows, parts[splits.CONFORMAL], terms)
    calibration = _decided(_flagged(fitted, rows, parts, parted, terms), rows, parts, terms)
    calibration = _tried(calibration, made or {}, terms, check)
    report = partial(
        judge_checked,
        head,
        rows.take(parts[splits.REPORT]),
        strange=parted.judged,
        seed=terms.seed,
        check=check,
    )
    return _reported(calibration, judged, report(None), report(calibration))


def _flagged(
    head: Head, rows: Sampled, parts: Mapping[str, Indices], strange: Strange, terms: Terms
) -> Calibration:
    """Return the calibration with its flag, without a policy or a report."""
    chosen = None if strange.chosen is None else head.source(strange.chosen)
    flagging = Flagging(head.scores, terms.score, terms.alpha, terms.seed)
    flag = flagging.fit(head.source(rows), chosen, head.groups(rows), parts)
    return Calibration(
        head=head,
        sampling=terms.sampling,
        alpha=terms.alpha,
        ood=flag.detector,
        ood_fitted=flag.fitted,
        splits={name: len(some) for name, some in parts.items()} | strange.sizes(),
        num_rows=len(rows),
        warnings=(*head.unseen(rows), *flag.warnings),
    )


def _decided(
    calibration: Calibration, rows: Sampled, parts: Mapping[str, Indices], terms: Terms
) -> Calibration:
    """Return the calibration with the policy, where a target is asked for."""
    if splits.POLICY not in parts:
        return calibration
    policy_b = parts[splits.POLICY]
    source = calibration.head.source(rows).take(policy_b)
    flag_b = calibration.ood.flags(calibration.ood_scores(source))
    uncertainty_b, is_wrong_b = calibration.head.doubts(rows, policy_b)
    return replace(calibration, policy=Policy.fit(terms.target, uncertainty_b, flag_b, is_wrong_b))


def _tried(
    calibration: Calibration, made: Mapping[str, Sampled], terms: Terms, check: Check
) -> Calibration:
    """Return the calibration with the share that it flags of made rows."""
    if not made:
        return calibration
    head, shares = calibration.head, {}
    for kind, rows in made.items():
        try:
            usable = replace(head.checked(rows, terms.sampling), check=check)
        except InputError:  # the network overflows on them
            continue
        score_N = calibration.ood_scores(head.source(usable))
        shares[kind] = float((calibration.ood.flags(score_N) | np.isnan(score_N)).mean())
    return replace(calibration, made_rows=shares)


def _reported(
    calibration: Calibration, judged: JudgedFit, before: Evaluation, after: Evaluation
) -> Calibration:
    """Return the calibration with the verdict on its fit, its report, intervals and curves."""
    intervals = {"before": before.intervals, "after": after.intervals}
    told = (*calibration.warnings, *judged.warnings, *before.warnings, *after.warnings)
    return replace(
        calibration,
        report=Reports(before.report, after.report, intervals),
        bins=after.bins,
        curves={"before": before.curves, "after": after.curves},
        verdict=judged.verdict,
        warnings=tuple(dict.fromkeys(told)),
    )
