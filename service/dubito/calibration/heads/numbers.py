"""Numbers of a row in target units: noise, intervals, and what is said of a mixture.

Dimensions: T samples, B rows, b some of them, D outputs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from torch import Tensor

from dubito.calibration import reading, truths
from dubito.calibration.choices import Task
from dubito.calibration.flags.scorer import OF_NUMBERS, ScoreFamily
from dubito.calibration.flags.source import SampledSource
from dubito.calibration.heads.head import Floats, Judged, misfit, wrong_task
from dubito.calibration.heads.served import (
    Request,
    warn_without_passes,
)
from dubito.calibration.heads.served_numbers import HeadOfNumbers, ServedRegression
from dubito.calibration.promises import intervals, mixture
from dubito.calibration.promises.conformal import Promise
from dubito.calibration.promises.intervals import NORMALISED, Ends, IntervalRule, Passes
from dubito.calibration.promises.policy import number_uncertainty
from dubito.calibration.promises.positions import refuse_share
from dubito.calibration.sampled import Indices, Sampled
from dubito.calibration.scaling.noise import UNFITTED, Noise, check_precision, noise_of
from dubito.calibration.terms import Terms
from dubito.calibration.verdict import JudgedFit, judge_noise
from dubito.columns import Column
from dubito.engine import Prediction, Regression
from dubito.engine.calling.sampling import Sampling
from dubito.engine.heads.numbers import log_variance, mean_and_variance
from dubito.errors import InputError
from dubito.report import Check, number_curves, regression_statistics
from dubito_nn import Manifest

if TYPE_CHECKING:
    from dubito.calibration.stored import Stored


@dataclass(frozen=True)
class NumberHead(HeadOfNumbers):
    """Numbers with noise; members as of `dubito.calibration.heads.head.Head`.

    Args:
        noise: scale · the network's own variance + noise variance, per output.
        reference: variance of each output that scores and uncertainties are counted in.
        intervals: what intervals are built around.
    """

    noise: Noise = UNFITTED
    reference: tuple[float, ...] = ()
    intervals: IntervalRule = NORMALISED

    name: ClassVar[str] = "regression"
    task: ClassVar[Task] = "regression"
    scores: ClassVar[ScoreFamily] = OF_NUMBERS
    foreign: ClassVar[tuple[str, ...]] = ("scaling", "sets", "per_class", "empty_sets")
    outputs: ClassVar[tuple[str, ...]] = (
        "mean",
        "variance",
        "standard_error",
        "num_samples_used",
        "epistemic_variance",
        "aleatoric_variance",
        "quantiles",
        "interval",
        "decision",
        "ood",
    )

    def needs_passes(self, outputs: tuple[str, ...]) -> bool:
        if self.promise is None:
            return False
        return "quantiles" in outputs or ("interval" in outputs and self.intervals.kind == "cqr")

    def read(self, written: reading.Written) -> Floats:
        return reading.read_targets(written)

    def parts(self, raw: Tensor, manifest: Manifest) -> tuple[Tensor, ...]:
        mean_TBD, own_TBD = mean_and_variance(raw, manifest)[0], log_variance(raw, manifest)
        return (mean_TBD,) if own_TBD is None else (mean_TBD, own_TBD)

    def check(self, terms: Terms) -> None:
        terms.target.check_task(self.task)
        refuse_share(terms.choices, self.name)

    def checked(self, rows: Sampled, sampling: Sampling | None) -> Sampled:
        """Of rows without truths the means alone, which are all that scores read."""
        if rows.truth is None:
            mean_TND = truths.numbers(rows.passes[0], "ood means", sampling)
            return replace(rows, passes=(mean_TND.astype(np.float64),))
        passes = truths.heads(rows.passes[0], rows.log_variances, sampling)
        target_BD = truths.targets(rows.truth, *passes[0].shape[1:])
        return replace(rows, passes=passes, truth=target_BD)

    def of_rows(self, value_BD: Floats) -> Floats:
        """Figures of rows, (B, D), from those of all that is predicted of them."""
        return value_BD

    def known(self, rows: Sampled) -> Floats:
        """All targets that are known, (N, D)."""
        return rows.targets

    def for_noise(self, rows: Sampled, num_fit: int, seed: int) -> Sampled:
        """The rows as noise is fitted to some of them, and judged.

        Args:
            rows: all rows.
            num_fit: how many it is fitted to.
            seed: of the fit.
        """
        return rows

    def split(self, rows: Sampled, terms: Terms) -> dict[str, Indices]:
        parts = terms.parts(rows, fits="to fit the noise")
        truths.check_targets_vary(self.known(rows))
        return parts

    def raw(self, rows: Sampled) -> Self:
        """Without noise; scores count in units of the targets' variance."""
        variance_D = self.known(rows).var(axis=0)
        return replace(
            self, noise=Noise.none(len(variance_D)), reference=tuple(variance_D.tolist())
        )

    def scaled(self, rows: Sampled, fit_b: Indices, terms: Terms) -> Self:
        precision = terms.choices.noise_precision
        fit = self.for_noise(rows, len(fit_b), terms.seed).take(fit_b)
        noise = noise_of(precision, fit.means, fit.log_variances, fit.targets, fit.check)
        if precision is not None:
            check_precision(precision, self.known(rows))
        return self._with(noise, rows, fit_b, terms)

    def unscaled(self, rows: Sampled, fit_b: Indices, terms: Terms) -> Self:
        return self._with(Noise.none(rows.targets.shape[-1]), rows, fit_b, terms)

    def _with(self, noise: Noise, rows: Sampled, fit_b: Indices, terms: Terms) -> Self:
        # of one row with a vast noise no mean
        reference_D = np.median(self.of_rows(_aleatoric(noise, rows))[fit_b], axis=0)
        return replace(
            self,
            noise=noise,
            reference=tuple(reference_D.tolist()),
            intervals=IntervalRule(terms.choices.intervals or NORMALISED.kind),
        )

    def promising(self, rows: Sampled, set_b: Indices, terms: Terms) -> Self:
        some, total_bD = rows.take(set_b), self.variance(rows)[set_b]
        held_out = self.intervals.fit(
            self.mixture(some), total_bD, some.targets, terms.coverage, rows.check
        )
        return replace(self, promise=Promise(terms.coverage, held_out))

    def verdict(self, rows: Sampled, fit_b: Indices, terms: Terms, check: Check) -> JudgedFit:
        rows = self.for_noise(rows, len(fit_b), terms.seed)
        is_given, own_TBD = terms.choices.noise_precision is not None, rows.log_variances
        mean_TBD, target_BD, seed = rows.means, rows.targets, terms.seed
        return judge_noise(self.noise, is_given, mean_TBD, own_TBD, target_BD, fit_b, seed, check)

    def source(self, rows: Sampled) -> SampledSource:
        epistemic_BD = self.of_rows(rows.means.var(axis=0))
        return SampledSource(epistemic_BD, 0, self.score, rows.features, rows.check)

    def doubts(self, rows: Sampled, some_b: Indices) -> tuple[Floats, None]:
        variance_bD = self.of_rows(self.variance(rows.take(some_b)))
        return number_uncertainty(variance_bD, np.asarray(self.reference)), None

    def judged(self, rows: Sampled, coverage: float | None, check: Check) -> Judged:
        """Without a promise a head of means alone has no noise, so its NLL is None."""
        passes, ends, level = self.mixture(rows), None, coverage
        if self.promise is not None:
            level = self.promise.level(coverage)
            ends = self.intervals.ends(self.promise, passes, level, check)
        return Judged(
            regression_statistics(*passes, rows.targets, ends, level, check),
            number_curves(*passes, rows.targets, None),
        )

    def served(self, prediction: Prediction, request: Request) -> ServedNumbers:
        if not isinstance(prediction, Regression):
            raise wrong_task("classification", self.task)
        return ServedNumbers(self, prediction, request)

    def stored(self) -> dict[str, object]:
        return {
            "task": self.task,
            "noise_variance": self.noise.variance,
            "variance_scale": self.noise.scale,
            "ood_reference": self.reference,
            "intervals": self.intervals.kind,
        }

    @classmethod
    def of_record(cls, record: Stored) -> Self:
        noise, scale = record.noise_variance or (), record.variance_scale or ()
        reference, num_outputs = record.ood_reference or (), len(record.conformal.columns)
        fits = (record.temperature, record.class_map) == (None, None)
        fits = fits and {len(noise), len(scale), len(reference)} == {num_outputs} != {0}
        if not fits or min(*scale, *reference) <= 0:
            raise misfit(record.task)
        if min(noise) < 0:
            raise InputError("a noise variance expects at least 0: calibrate the version again")
        return cls(record.promise, Noise(noise, scale), reference, IntervalRule(record.intervals))

    def mixture(self, rows: Sampled) -> Passes:
        """Means and calibrated variances of all passes."""
        return rows.means, self.noise.component_variance(rows.log_variances)

    def variance(self, rows: Sampled) -> Floats:
        """Of the mixture, (B, D)."""
        variance_BD: Floats = rows.means.var(axis=0) + _aleatoric(self.noise, rows)
        return variance_BD


@dataclass(frozen=True)
class ServedNumbers(ServedRegression):
    """A prediction with noise; members as of `dubito.calibration.heads.served.Served`."""

    head: NumberHead

    @cached_property
    def aleatoric(self) -> Floats:
        """Noise variance, calibrated where the head is, (B, D)."""
        own_BD = self.prediction.aleatoric_variance
        return own_BD if self.head.promise is None else self.head.noise.beside(own_BD)

    def _ends(self, coverage: float | None, name: str | None = None) -> Ends | None:
        promise, rule = self.head.promise, self.head.intervals
        if promise is None:
            return None
        if rule.kind == "cqr":
            passes = self._passes(name)
            return None if passes is None else rule.ends(promise, passes, coverage)
        held_out, level = promise.held_out, promise.level(coverage)
        return intervals.normalised(held_out, self.prediction.mean, self.variance, level)

    def _quantiles(self) -> Column:
        """Quantiles of the mixture, by level: both ends of the coverage, and the median."""
        promise = self.head.promise
        passes = None if promise is None else self._passes("quantiles")
        if promise is None or passes is None:
            return None
        coverage = promise.level(self.request.coverage)
        levels = ((1 - coverage) / 2, 0.5, (1 + coverage) / 2)
        return {f"{level:.10g}": mixture.quantiles(*passes, level) for level in levels}

    def _passes(self, name: str | None = None) -> Passes | None:
        """Means and calibrated variances of all passes; None, for a column with a warning."""
        said = self.prediction
        if said.samples is not None and said.noise_samples is not None:
            return said.samples, self.head.noise.beside(said.noise_samples)
        if name is not None:
            warn_without_passes(name, self.request)
        return None


def _aleatoric(noise: Noise, rows: Sampled) -> Floats:
    """Noise variance of each row and output, (B, D)."""
    own_BD = noise.component_variance(rows.log_variances).mean(axis=0)
    return np.broadcast_to(own_BD, rows.targets.shape)
