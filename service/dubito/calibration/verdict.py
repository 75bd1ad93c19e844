"""Whether a fit is worth having, judged by cross-validation on the rows that it was fitted on.

Flow: rows of the fit, in K folds → fitted on all folds but one, losses on that one → the difference
to what it is compared with, row by row → `Verdict`. The rows of the report stay unseen.

    d_b = NLL_b with the fit - NLL_b without, in nats, each bounded as in the fit
    worse where mean d > max(t · s √(1/n · (1 + K/(K - 1))), log 20 / n)

t is the 99 % quantile of Student's t with n - 1 degrees of freedom, s the standard deviation of d.
The factor in its root is for fits that share rows; log 20, odds of twenty to one over all rows, for
what a fit that nothing speaks against costs by its own chance.

A fit that nobody asked for by name is left out where it does not help: where what it gains, mean
-d, is less than the standard error of d, s / √n, or than one nat over all rows, since rare errors
that no row shows have no part in s. Of what is as good the simplest is taken, which is the
network's own figures.

Dimensions: B rows, n of them for the fit, K folds.

Source: Stone 1974, JRSS B 36:111-147 (cross-validation); Nadeau and Bengio 2003, Machine Learning
52:239-281 (the factor); Diebold and Mariano 1995, JBES 13:253-263 (losses compared in pairs);
Breiman, Friedman, Olshen and Stone 1984, "Classification and Regression Trees", section 3.4.3 (the
rule of one standard error).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import log, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, stdtrit

from dubito.calibration.choices import ScalingName
from dubito.calibration.scaling.bounded import bounded, limit
from dubito.calibration.scaling.noise import Noise, fit_noise, noise_losses
from dubito.calibration.scaling.scaling import fit_scaling, label_nll
from dubito.engine.heads.scaling import Scaling
from dubito.report import Check

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

NUM_FOLDS = 5
_MOST_ROWS = 2000  # that are judged: more would tell little more, and take their time
_CONFIDENCE, _ODDS = 0.99, 20.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a fit costs, by cross-validation; below 0 it gains.

    Args:
        against: `none`: the network's own figures; `fit`: a fitted noise, where one was given;
            `nothing`: there is nothing to compare with.
        nats: mean difference of the rows.
        margin: what chance explains of it.
        num_rows: n.
        is_left_out: whether the network's own figures are taken instead, since it does not help.
    """

    against: Literal["none", "fit", "nothing"] = "nothing"
    nats: float = 0.0
    margin: float = 0.0
    num_rows: int = 0
    is_left_out: bool = False

    @property
    def is_worse(self) -> bool:
        """Whether it is worse than without, beyond chance."""
        return self.nats > self.margin

    @property
    def is_active(self) -> bool:
        """Whether the calibration is to be used: not where its fit is worse than none."""
        return not (self.is_worse and self.against == "none")

    def __str__(self) -> str:
        """Return the verdict in words, for the reader of a reply."""
        if self.against == "nothing":
            return "nothing to judge: without the fit there is no likelihood, or nothing was fitted"
        other = "no fit" if self.against == "none" else "a fitted noise"
        if abs(self.nats) <= self.margin:
            word = f"no different from {other} beyond chance"
        else:
            word = f"{'worse' if self.is_worse else 'better'} than {other} beyond chance"
        told = (
            f"{word}: by cross-validation on {self.num_rows} rows of the fit it "
            f"{'costs' if self.nats > 0 else 'gains'} {abs(self.nats):.3g} nats a row, of which "
            f"chance explains {self.margin:.2g}"
        )
        if self.is_left_out:
            return f"{told}; it is left out, since it gains less than the error of that figure"
        if self.is_active:
            return told
        return (
            f"{told}; it is kept but not active: look for rows with wrong truths, or of a kind "
            "that the network was not trained for, and calibrate again"
        )


@dataclass(frozen=True, slots=True)
class JudgedFit:
    """A verdict, and what the rows of the fit give reason to warn of."""

    verdict: Verdict
    warnings: tuple[str, ...] = ()

    def as_asked(self) -> JudgedFit:
        """The same of a fit that was asked for by name, which is not left out."""
        return replace(self, verdict=replace(self.verdict, is_left_out=False))


def judge_scaling(
    name: ScalingName,
    scaling: Scaling,
    logits: NDArray[np.floating],
    label: Indices,
    fit_b: Indices,
    seed: int,
    check: Check,
) -> JudgedFit:
    """Judge a scaling by cross-validation.

    Args:
        name: of the scaling.
        scaling: as it was fitted.
        logits: (T, B, C), or (T, B, P, C) of positions.
        label: (B,), or (B, P); -1: nobody has labelled it.
        fit_b: rows that it was fitted on.
        seed: of the folds.
        check: called between blocks of their rows; whatever it raises ends the work.
    """
    if name == "none":
        return JudgedFit(Verdict())

    most = log(logits.shape[-1]) + limit(len(fit_b))

    def loss(scaling: Scaling, rows: Indices) -> Floats:
        return bounded(label_nll(logits[:, rows], label[rows], scaling, check), most)

    def difference(known: Indices, held: Indices) -> Floats:
        fitted = fit_scaling(name, logits[:, known], label[known], check)
        return _by_row(loss(fitted, held) - loss(1.0, held), label[held])

    by_class = label if label.ndim == 1 else None
    verdict = _judge("none", difference, fit_b, seed, check, by_class)
    if name == "isotonic":  # shares of hits: no row counts for more than another
        return JudgedFit(verdict)
    each = label_nll(logits[:, fit_b], label[fit_b], scaling, check)
    rows = fit_b[(each > most).reshape(len(fit_b), -1).any(axis=1)]
    warnings = _left_out(rows, len(fit_b), "labels") + _guessed(bounded(each, most), label[fit_b])
    return JudgedFit(verdict, warnings)


def judge_noise(
    noise: Noise,
    is_given: bool,
    mean_TBD: Floats,
    log_variance_TBD: Floats | None,
    target_BD: Floats,
    fit_b: Indices,
    seed: int,
    check: Check,
) -> JudgedFit:
    """Judge the noise of a regression; a given one by the side of a fitted one.

    Args:
        noise: as it was fitted, or given.
        is_given: which of both.
        mean_TBD: means of all rows, (T, B, D), or (T, B, P, D) of positions.
        log_variance_TBD: their log-variances, where the network has them.
        target_BD: their targets; NaN at positions that nobody has measured.
        fit_b: rows that it was, or would be, fitted on.
        seed: of the folds.
        check: called between blocks of their rows; whatever it raises ends the work.
    """

    def log_variance(rows: Indices) -> Floats | None:
        return None if log_variance_TBD is None else log_variance_TBD[:, rows]

    def loss(noise: Noise, rows: Indices) -> Floats:
        return noise_losses(
            noise, mean_TBD[:, rows], log_variance(rows), target_BD[rows], len(fit_b), check
        )

    def difference(known: Indices, held: Indices) -> Floats:
        fitted = fit_noise(mean_TBD[:, known], log_variance(known), target_BD[known], check)
        if is_given:
            return loss(noise, held) - loss(fitted, held)
        return loss(fitted, held) - loss(Noise.none(target_BD.shape[-1]), held)

    warnings = (
        *(
            f"the likelihood of output {output} names no noise, for nearly all of its residuals "
            "are 0 or its targets all the same: a cautious guess decides; send rows that differ"
            for output in noise.undetermined
        ),
        *_left_out(fit_b[list(noise.outlying)], len(fit_b), "targets"),
    )
    if log_variance_TBD is None and not is_given:
        return JudgedFit(Verdict(), warnings)
    verdict = _judge("fit" if is_given else "none", difference, fit_b, seed, check)
    if is_given and verdict.is_worse:
        warnings = (f"`noise_precision`: the given one is {verdict}",)
    return JudgedFit(verdict, warnings)


def _judge(
    against: Literal["none", "fit"],
    difference: Callable[[Indices, Indices], Floats],
    fit_b: Indices,
    seed: int,
    check: Check,
    label_B: Indices | None = None,
) -> Verdict:
    """Fit and judge fold by fold; every class, where there is one per row, in its share of each.

    Else a fold whose class is rare among the others would blame the fit for it.
    """
    order_b = np.random.Generator(np.random.Philox(seed)).permutation(fit_b)[:_MOST_ROWS]
    if label_B is not None:
        order_b = order_b[np.argsort(label_B[order_b], kind="stable")]
    folds = [order_b[index::NUM_FOLDS] for index in range(NUM_FOLDS)]
    differences = []
    for index, held in enumerate(folds):
        check()
        known = np.concatenate([fold for other, fold in enumerate(folds) if other != index])
        differences.append(difference(known, held))
    difference_b, count = np.concatenate(differences), len(order_b)
    mean, error = float(difference_b.mean()), float(difference_b.std(ddof=1)) / sqrt(count)
    shared = error * sqrt(1 + NUM_FOLDS / (NUM_FOLDS - 1))
    margin = max(float(stdtrit(count - 1, _CONFIDENCE)) * shared, log(_ODDS) / count)
    is_left_out = against == "none" and -max(error, 1 / count) <= mean <= margin
    return Verdict(against, mean, margin, count, is_left_out)


def _by_row(difference: Floats, label: Indices) -> Floats:
    """Sums over the positions of a row, in units of the mean number of labelled ones."""
    if label.ndim == 1:
        return difference
    sum_b: Floats = difference.reshape(len(difference), -1).sum(axis=1)
    return sum_b * (len(label) / np.count_nonzero(label >= 0))


def _guessed(loss: Floats, label: Indices) -> tuple[str, ...]:
    """A warning where the shares of the classes alone would be likelier, by two standard errors."""
    known = label >= 0
    share: Floats = np.bincount(label[known]) / max(1, int(known.sum()))
    guess = float(entr(share).sum())
    mean, error = float(loss[known].mean()), float(loss[known].std()) / sqrt(len(label))
    if mean <= guess + 2 * error:
        return ()
    return (
        f"the labels are less likely by the network ({mean:.3g} nats each, with the fit) than by "
        f"the shares of the classes alone ({guess:.3g}): check that the classes are in the "
        "network's order, and that the rows are of the kind that it was trained on",
    )


def _left_out(rows: Indices, num_rows: int, truths: str) -> tuple[str, ...]:
    if len(rows) == 0:
        return ()
    named = ", ".join(str(row) for row in rows[:12].tolist())
    return (
        f"the fit leaves out rows that the network takes for next to impossible, {len(rows)} of "
        f"{num_rows} (row {named}{', ...' * (len(rows) > 12)}): check their {truths} and inputs",
    )
