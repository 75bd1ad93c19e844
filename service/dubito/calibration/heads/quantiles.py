"""Quantiles of numbers in target units: nothing is fitted but how far intervals move.

An interval lies between the two quantiles whose levels are nearest to (1 - c)/2 and (1 + c)/2, with
c the coverage that the calibration was fitted for, each moved outwards by a held-out score:

    scores max(l - y, y - u),  interval [l - Q, u + Q]     conformalized quantile regression

Any pair of levels keeps the promise; at another coverage Q makes up for it.

Dimensions: T samples, B rows, b some of them, D outputs, Q quantiles.
Source: Romano, Patterson and Candès 2019, arXiv:1905.03222.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from torch import Tensor

from dubito.calibration import reading, splits, truths
from dubito.calibration.choices import Task
from dubito.calibration.flags.scorer import OF_NUMBERS, ScoreFamily
from dubito.calibration.flags.source import SampledSource
from dubito.calibration.heads.head import Floats, Judged, misfit, wrong_task
from dubito.calibration.heads.numbers import NumberHead
from dubito.calibration.heads.served import Request
from dubito.calibration.heads.served_numbers import HeadOfNumbers, ServedRegression
from dubito.calibration.promises.conformal import Promise
from dubito.calibration.promises.intervals import Ends, fit_quantiles, widened
from dubito.calibration.promises.policy import number_uncertainty
from dubito.calibration.promises.positions import refuse_share
from dubito.calibration.sampled import Indices, Sampled
from dubito.calibration.terms import Terms
from dubito.calibration.verdict import JudgedFit, Verdict
from dubito.columns import Column
from dubito.engine import Prediction, Regression
from dubito.engine.calling.prediction import in_order
from dubito.engine.calling.sampling import Sampling
from dubito.engine.heads.quantiles import (
    Levels,
    aleatoric_variance,
    levels_of,
    median_and_quantiles,
)
from dubito.errors import InputError
from dubito.report import Check, quantile_curves, quantile_statistics
from dubito_nn import Manifest
from dubito_nn.manifest import are_levels

if TYPE_CHECKING:
    from dubito.calibration.stored import Stored


@dataclass(frozen=True)
class QuantileHead(HeadOfNumbers):
    """Quantiles of numbers; members as of `dubito.calibration.heads.head.Head`.

    Args:
        levels: of the quantiles, ascending.
        reference: variance of each output that scores and uncertainties are counted in.
    """

    levels: Levels = ()
    reference: tuple[float, ...] = ()

    name: ClassVar[str] = "quantiles"
    task: ClassVar[Task] = "regression"
    scores: ClassVar[ScoreFamily] = OF_NUMBERS
    foreign: ClassVar[tuple[str, ...]] = NumberHead.foreign
    outputs: ClassVar[tuple[str, ...]] = NumberHead.outputs

    @classmethod
    def of_manifest(cls, manifest: Manifest) -> Self:
        return cls(levels=levels_of(manifest))

    def read(self, written: reading.Written) -> Floats:
        return reading.read_targets(written)

    def parts(self, raw: Tensor, manifest: Manifest) -> tuple[Tensor, ...]:
        """Return the passes' level .5, and of every level the mean over them, (1, B, D, Q)."""
        median_TBD, quantile_TBDQ = median_and_quantiles(raw, manifest)
        return median_TBD, quantile_TBDQ.mean(0, keepdim=True)

    def check(self, terms: Terms) -> None:
        terms.target.check_task(self.task)
        refuse_share(terms.choices, self.name)
        if terms.choices.intervals == "normalised":
            raise InputError(
                "`intervals` expects `cqr` for a network of quantiles, which moves two of them, "
                "got `normalised`, a multiple of a deviation: leave it out"
            )
        if terms.choices.noise_precision is not None:
            raise InputError(
                "`noise_precision` expects a network that predicts means alone, got one with "
                "quantiles, beside which no noise is fitted: leave it out"
            )

    def checked(self, rows: Sampled, sampling: Sampling | None) -> Sampled:
        """Keep of rows without truths the level .5 alone, which is all that scores read."""
        name = "quantiles" if rows.truth is not None else "ood quantiles"
        median_TBD = truths.numbers(rows.passes[0], name, sampling).astype(np.float64)
        if rows.truth is None:
            return replace(rows, passes=(median_TBD,))
        level_MBDQ = rows.passes[1]
        truths.numbers(level_MBDQ.reshape(*level_MBDQ.shape[:2], -1), name, None)
        target_BD = truths.targets(rows.truth, *median_TBD.shape[1:])
        return replace(rows, passes=(median_TBD, level_MBDQ), truth=target_BD)

    def split(self, rows: Sampled, terms: Terms) -> dict[str, Indices]:
        parts = terms.parts(rows, fits="more for the intervals")
        truths.check_targets_vary(rows.targets)
        return splits.without_fit(parts)

    def raw(self, rows: Sampled) -> QuantileHead:
        """Count scores in units of the targets' variance."""
        return replace(self, reference=tuple(rows.targets.var(axis=0).tolist()))

    def scaled(self, rows: Sampled, fit_b: Indices, terms: Terms) -> QuantileHead:
        return self

    def unscaled(self, rows: Sampled, fit_b: Indices, terms: Terms) -> QuantileHead:
        return self

    def promising(self, rows: Sampled, set_b: Indices, terms: Terms) -> QuantileHead:
        """Take the units as well: the network's noise, or without any the targets' variance."""
        some = rows.take(set_b)
        held_out = fit_quantiles(self.pair(_quantiles(some), terms.coverage), some.targets)
        own_D = np.median(self._aleatoric(some), axis=0)
        reference_D = np.where(own_D > 0, own_D, rows.targets.var(axis=0))
        return replace(
            self,
            promise=Promise(terms.coverage, held_out),
            reference=tuple(reference_D.tolist()),
        )

    def verdict(self, rows: Sampled, fit_b: Indices, terms: Terms, check: Check) -> JudgedFit:
        return JudgedFit(Verdict())

    def source(self, rows: Sampled) -> SampledSource:
        return SampledSource(rows.means.var(axis=0), 0, self.score, rows.features, rows.check)

    def doubts(self, rows: Sampled, some_b: Indices) -> tuple[Floats, None]:
        some = rows.take(some_b)
        return number_uncertainty(self._variance(some), np.asarray(self.reference)), None

    def judged(self, rows: Sampled, coverage: float | None, check: Check) -> Judged:
        """Judge the quantiles, which are no density: there is neither NLL nor CRPS."""
        quantile_BDQ, error_BD = _quantiles(rows), rows.means.mean(axis=0) - rows.targets
        variance_BD, ends, level = self._variance(rows), None, coverage
        if self.promise is not None:
            level = self.promise.level(coverage)
            ends = self.ends(quantile_BDQ, level)
        check()
        said = quantile_BDQ, self.levels, rows.targets
        return Judged(
            quantile_statistics(*said, error_BD, variance_BD, ends, level),
            quantile_curves(*said, error_BD, variance_BD),
        )

    def pair(self, quantile_BDQ: Floats, coverage: float) -> Ends:
        """Return the quantiles of the levels nearest to (1 ∓ c)/2; of two as near the outer one."""
        low_Q, high_Q = (
            np.abs(np.asarray(self.levels) - level).round(12)
            for level in ((1 - coverage) / 2, (1 + coverage) / 2)
        )
        upper = len(high_Q) - 1 - int(high_Q[::-1].argmin())
        return quantile_BDQ[..., int(low_Q.argmin())], quantile_BDQ[..., upper]

    def ends(self, quantile_BDQ: Floats, coverage: float | None) -> Ends:
        """Return lower and upper ends, (B, D) each; infinite where held-out rows are too few."""
        assert self.promise is not None
        pair, level = self.pair(quantile_BDQ, self.promise.coverage), self.promise.level(coverage)
        return widened(self.promise.held_out, pair, level)

    def served(self, prediction: Prediction, request: Request) -> ServedQuantiles:
        if not isinstance(prediction, Regression) or prediction.levels is None:
            raise wrong_task("network without quantiles", "network with them")
        return ServedQuantiles(self, prediction, request)

    def stored(self) -> dict[str, object]:
        return {
            "task": self.task,
            "ood_reference": self.reference,
            "intervals": "cqr",
            "quantile_levels": self.levels,
        }

    @classmethod
    def of_record(cls, record: Stored) -> QuantileHead:
        levels, reference = record.quantile_levels or (), record.ood_reference or ()
        fits = (record.task, record.intervals) == ("regression", "cqr")
        fits = fits and 0 < len(reference) == len(record.conformal.columns)
        if not fits or min(reference) <= 0 or not are_levels(levels):
            raise misfit(record.task)
        return cls(record.promise, levels, reference)

    def _aleatoric(self, rows: Sampled) -> Floats:
        return aleatoric_variance(_quantiles(rows), self.levels)

    def _variance(self, rows: Sampled) -> Floats:
        """Return the sum of both parts, (B, D)."""
        variance_BD: Floats = rows.means.var(axis=0) + self._aleatoric(rows)
        return variance_BD


@dataclass(frozen=True)
class ServedQuantiles(ServedRegression):
    """A prediction of quantiles; members as of `dubito.calibration.heads.served.Served`."""

    head: QuantileHead

    @cached_property
    def quantiles(self) -> Floats:
        """Ascending, (B, D, Q)."""
        assert self.prediction.quantiles is not None
        return self.prediction.quantiles

    def _ends(self, coverage: float | None, name: str | None = None) -> Ends | None:
        return None if self.head.promise is None else self.head.ends(self.quantiles, coverage)

    def _quantiles(self) -> Column:
        levels = enumerate(self.head.levels)
        return {str(level): self.quantiles[..., index] for index, level in levels}


def _quantiles(rows: Sampled) -> Floats:
    """Return each level averaged over the passes, or over networks, then sorted; (B, D, Q)."""
    return in_order(rows.passes[1].mean(axis=0, dtype=np.float64))
