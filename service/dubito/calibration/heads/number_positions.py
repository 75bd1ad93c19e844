"""Numbers at every position of a row: one noise for all of them, intervals promised for the row.

Rows are dealt out as wholes: the noise of an output is fitted over positions of the rows for it,
one score per row and output is held out for the intervals (`promises.positions`), one per row for
the flag. A position that nobody has measured has NaN for a target, and counts nowhere.

Dimensions: T samples, B rows, b some of them, P positions, N measured ones, D outputs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dubito.calibration import reading, truths
from dubito.calibration.heads.head import Floats, Judged, misfit
from dubito.calibration.heads.numbers import NumberHead, ServedNumbers
from dubito.calibration.heads.served import Columns, KeptFigures, Request
from dubito.calibration.promises import intervals
from dubito.calibration.promises.conformal import ConformalScores, Promise
from dubito.calibration.promises.intervals import NORMALISED, Ends
from dubito.calibration.promises.positions import DEFAULT_SHARE, Positions
from dubito.calibration.sampled import Indices, Sampled
from dubito.calibration.terms import Terms
from dubito.engine import Prediction
from dubito.engine.calling.prediction import NumberMeasures
from dubito.engine.calling.sampling import Sampling
from dubito.engine.heads.number_positions import MEASURES, of_rows, outputs_last
from dubito.errors import InputError
from dubito.report import Check
from dubito.report.number_positions import (
    MeasuredPositions,
    number_position_curves,
    number_position_statistics,
)
from dubito_nn import Manifest

if TYPE_CHECKING:
    from dubito.calibration.stored import Stored

_POSITIONS_FOR_NOISE = 2**13  # of all rows of a fit: a variance to two hundredths, in a second
ALL_POSITIONS = Positions("dense_regression")


@dataclass(frozen=True)
class NumberPositionHead(NumberHead):
    """Numbers at positions; members as of `dubito.calibration.heads.head.Head`.

    Args:
        positions: how they are taken together.
    """

    positions: Positions = ALL_POSITIONS

    name: ClassVar[str] = "dense_regression"
    takes_feedback: ClassVar[bool] = False
    outputs: ClassVar[tuple[str, ...]] = (
        *(name for name in NumberHead.outputs if name != "quantiles"),
        *(f"position_{name}" for name in MEASURES),
    )

    def needs_passes(self, outputs: tuple[str, ...]) -> bool:
        return False

    def read(self, written: reading.Written) -> Floats:
        return reading.read_position_targets(written)

    def parts(self, raw: Tensor, manifest: Manifest) -> tuple[Tensor, ...]:
        return super().parts(outputs_last(raw, manifest), manifest)

    def check(self, terms: Terms) -> None:
        terms.target.check_task(self.task)
        self._sharing(terms)
        if terms.choices.intervals not in (None, "normalised"):
            raise InputError(
                f"`intervals` expects `normalised` for numbers at positions, got "
                f"`{terms.choices.intervals}`, which takes all passes of every position: leave it "
                "out"
            )

    def checked(self, rows: Sampled, sampling: Sampling | None) -> Sampled:
        if rows.truth is None:
            passes = truths.position_numbers(rows.passes[:1], "ood means", sampling)
            return replace(rows, passes=passes)
        passes = truths.position_numbers(rows.passes, "means", sampling)
        return replace(
            rows, passes=passes, truth=truths.position_targets(rows.truth, passes[0].shape[1:])
        )

    def of_rows(self, value_BPD: Floats) -> Floats:
        return of_rows(value_BPD)

    def known(self, rows: Sampled) -> Floats:
        known_ND: Floats = rows.targets[_is_known(rows)]
        return known_ND

    def for_noise(self, rows: Sampled, num_fit: int, seed: int) -> Sampled:
        """With so many positions of each row that those of the fit are not too many.

        Measured ones first, else as chance has it.
        """
        is_known_BP, count = _is_known(rows), max(1, _POSITIONS_FOR_NOISE // num_fit)
        if is_known_BP.shape[1] <= count:
            return rows
        key_BP = np.random.Generator(np.random.Philox(seed)).random(is_known_BP.shape)
        place_BK1 = np.argsort(key_BP + ~is_known_BP, axis=1)[:, :count, None]
        return replace(
            rows,
            passes=tuple(np.take_along_axis(one, place_BK1[None], axis=2) for one in rows.passes),
            truth=np.take_along_axis(rows.targets, place_BK1, axis=1),
        )

    def scaled(self, rows: Sampled, fit_b: Indices, terms: Terms) -> Self:
        return replace(super().scaled(rows, fit_b, terms), positions=self._sharing(terms))

    def unscaled(self, rows: Sampled, fit_b: Indices, terms: Terms) -> Self:
        return replace(super().unscaled(rows, fit_b, terms), positions=self._sharing(terms))

    def promising(self, rows: Sampled, set_b: Indices, terms: Terms) -> Self:
        """One score per row and output: the share of those of its positions."""
        some = rows.take(set_b)
        mean_bPD, is_known_bP = some.means.mean(axis=0), _is_known(some)
        score_bPD = intervals.normalised_scores(mean_bPD, self.variance(some), some.targets)
        columns = [
            self.positions.score_of(one, is_known_bP) for one in np.moveaxis(score_bPD, 2, 0)
        ]
        return replace(self, promise=Promise(terms.coverage, ConformalScores.of(columns)))

    def ends(self, mean_BPD: Floats, variance_BPD: Floats, coverage: float | None) -> Ends:
        """Lower and upper end at each position, in target units."""
        assert self.promise is not None
        level = self.promise.level(coverage)
        return intervals.normalised(self.promise.held_out, mean_BPD, variance_BPD, level)

    def judged(self, rows: Sampled, coverage: float | None, check: Check) -> Judged:
        """Figures of positions are means over measured ones; areas and promises are of rows."""
        measured = MeasuredPositions.of(*self.mixture(rows), rows.targets)
        variance_BPD, is_known_BP = self.variance(rows), _is_known(rows)
        variance_BD, ends, is_covered = of_rows(variance_BPD), None, None
        if self.promise is not None:
            lower_BPD, upper_BPD = self.ends(rows.means.mean(axis=0), variance_BPD, coverage)
            is_held_BPD = (lower_BPD <= rows.targets) & (rows.targets <= upper_BPD)
            is_covered = np.stack(
                [self.positions.holds(one, is_known_BP) for one in np.moveaxis(is_held_BPD, 2, 0)],
                axis=-1,
            )
            ends = lower_BPD[is_known_BP], upper_BPD[is_known_BP]
        return Judged(
            number_position_statistics(measured, variance_BD, ends, is_covered, check),
            number_position_curves(measured, variance_BD),
        )

    def served(self, prediction: Prediction, request: Request) -> ServedNumberPositions:
        said = super().served(prediction, request).prediction
        return ServedNumberPositions(self, said, request)

    def stored(self) -> dict[str, object]:
        return super().stored() | {"positions": self.positions}

    @classmethod
    def of_record(cls, record: Stored) -> Self:
        fits = (record.task, record.intervals) == (cls.task, NORMALISED.kind)
        if record.positions is None or not fits:
            raise misfit(record.task)
        return replace(super().of_record(record), positions=record.positions)

    def _sharing(self, terms: Terms) -> Positions:
        share = terms.choices.position_share
        default = DEFAULT_SHARE[self.positions.head]
        return replace(self.positions, share=default if share is None else share)


@dataclass(frozen=True)
class ServedNumberPositions(ServedNumbers):
    """A prediction at positions; members as of `dubito.calibration.heads.head.Served`.

    What is said of rows is made of their figures, for the noise is a straight line of the
    network's own.
    """

    head: NumberPositionHead

    @cached_property
    def measures(self) -> NumberMeasures:
        """The figures of every position, calibrated where the head is."""
        own = self.prediction.positions
        assert own is not None
        noise = own.aleatoric_variance
        if self.head.promise is not None:
            noise = self.head.noise.beside(noise)
        return replace(own, aleatoric_variance=noise, variance=own.epistemic_variance + noise)

    def columns(self) -> Columns:
        return super().columns() | {
            f"position_{name}": lambda name=name: getattr(self.measures, name) for name in MEASURES
        }

    def observed(self) -> KeptFigures:
        """No truths are taken as feedback, so no mean is kept."""
        return KeptFigures(np.empty((len(self.prediction.mean), 0), np.float32))

    def _ends(self, coverage: float | None, name: str | None = None) -> Ends | None:
        if self.head.promise is None:
            return None
        return self.head.ends(self.prediction.mean, self.measures.variance, coverage)


def _is_known(rows: Sampled) -> NDArray[np.bool_]:
    """Which positions were measured, (B, P)."""
    return np.asarray(np.isfinite(rows.targets).all(axis=-1))
