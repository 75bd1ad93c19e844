"""The calibration record: what was fitted, with what it was fitted, and how it is applied.

Flow: `fit` → `Calibration` → JSON in the registry → `Calibration` → sets, intervals, p-values of
predictions drawn as it was. Numbers survive the round trip to the last bit.

Dimensions: B rows, C classes, D outputs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from itertools import pairwise
from math import isfinite
from types import NoneType
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError

from dubito.calibration.choices import IntervalsName, ScalingName
from dubito.calibration.flags import scores
from dubito.calibration.flags.detector import Detector
from dubito.calibration.flags.scorer import FittedScore
from dubito.calibration.flags.source import ColumnSource, NumberSource, PositionColumns, Source
from dubito.calibration.promises.conformal import ConformalScores, exact_decimal
from dubito.calibration.promises.intervals import Ends, normalised, quantile_ends, widened
from dubito.calibration.promises.policy import (
    DEFAULT_POLICY,
    Policy,
    class_uncertainty,
    number_uncertainty,
)
from dubito.calibration.promises.positions import Positions
from dubito.calibration.promises.sets import LAC, SetRule
from dubito.calibration.verdict import Verdict
from dubito.engine.calling.sampling import Sampling
from dubito.engine.heads.scaling import ClassMap, Isotonic, Scaling, Vector
from dubito.errors import InputError
from dubito.problems import read_problems
from dubito.report import Curves, Intervals, ReliabilityBin, Report

Floats = NDArray[np.float64]
Task = Literal["classification", "regression"]

_MAPS: Mapping[str, type] = {
    "temperature": NoneType,
    "none": NoneType,
    "vector": Vector,
    "isotonic": Isotonic,
}


@dataclass(frozen=True, slots=True)
class Reports:
    """The report on rows that no fit has seen, without and with the calibration.

    `intervals` holds the 95 % intervals of the figures, under `before` and `after`; a record of an
    earlier build has none.
    """

    before: Report
    after: Report
    intervals: dict[str, Intervals] = field(default_factory=dict)


@dataclass(frozen=True)
class Calibration:
    """What was fitted on held-out rows of one version, drawn with one sampling.

    Args:
        task: what the network predicts.
        sampling: the only settings that it covers.
        alpha: false-alarm rate of the flag.
        coverage: of sets and intervals where a request names none.
        temperature: divides the logits of each pass; None for regression.
        noise_variance: of each output, in target units squared; None for classification.
        variance_scale: factor on each output's own aleatoric variance; None for classification.
        ood: score, its held-out values and α.
        ood_reference: variance of each output that the regression score is counted in.
        conformal: scores of the rows held out for sets or intervals.
        splits: rows of each part: one for each fit, and one for the report.
        report: figures before and after.
        bins: reliability bins after; empty for regression.
        num_rows: labelled rows in all.
        warnings: what the rows could not settle.
        ood_fitted: what the score needs beside the row; None where it needs nothing.
        policy: what decides between accepting and reviewing.
        scaling: what was fitted to the logits; passed over for regression.
        class_map: the fitted `Vector` or `Isotonic`, with `temperature` 1; None otherwise.
        set_rule: how classes are scored; passed over for regression.
        intervals: what intervals are built around; passed over for classification.
        curves: what the pictures of the report need, under `before` and `after`; a record of an
            earlier build has none.
        positions: how the labels or positions of a row are taken together; None: one distribution
            per row.
        verdict: whether the scaling or noise is worth having; None in a record of an earlier build.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    task: Task
    sampling: Sampling
    alpha: float
    coverage: float
    temperature: float | None
    noise_variance: tuple[float, ...] | None
    variance_scale: tuple[float, ...] | None
    ood: Detector
    ood_reference: tuple[float, ...] | None
    conformal: ConformalScores
    splits: dict[str, int]
    report: Reports
    bins: tuple[ReliabilityBin, ...]
    num_rows: int
    warnings: tuple[str, ...] = ()
    ood_fitted: FittedScore | None = None
    policy: Policy = DEFAULT_POLICY
    curves: dict[str, Curves] = field(default_factory=dict)
    format_version: Literal[1] = 1
    scaling: ScalingName = "temperature"
    class_map: ClassMap | None = None
    set_rule: SetRule = LAC
    intervals: IntervalsName = "normalised"
    positions: Positions | None = None
    verdict: Verdict | None = None

    def __post_init__(self) -> None:
        """Refuse a record whose parts do not fit together."""
        exact_decimal("alpha", self.alpha)
        exact_decimal("coverage", self.coverage)
        columns = self.conformal.columns
        of_numbers = (self.noise_variance, self.variance_scale, self.ood_reference)
        if self.task == "classification":
            fits = self.temperature is not None and of_numbers == (None, None, None)
            fits = fits and (self.set_rule.per_class or len(columns) == 1)
            fits = fits and (self.positions is None or self.set_rule == LAC)
            fits = fits and isinstance(self.class_map, _MAPS[self.scaling])
            fits = fits and (self.class_map is None or self.temperature == 1)
        else:
            fits = self.temperature is None and self.class_map is None and self.positions is None
            fits = fits and all(one is not None and len(one) == len(columns) for one in of_numbers)
        positive = (self.temperature or 1.0, *(self.variance_scale or ()))
        if not fits or min((*positive, *(self.ood_reference or ()))) <= 0:
            raise InputError(
                f"a {self.task} calibration expects its own fitted figures, one per output and "
                "positive, got others: calibrate the version again"
            )
        if min(self.noise_variance or (0.0,)) < 0:
            raise InputError("a noise variance expects at least 0: calibrate the version again")
        if not all(map(_is_ascending, (*columns, self.ood.held_out))):
            raise InputError(
                "a calibration expects held-out scores in ascending order, one or more, "
                "got others: calibrate the version again"
            )

    def covers(self, sampling: Sampling) -> str | None:
        """None where predictions drawn so are covered, else the reason for a warning."""
        differences = [
            f"{one.name} {getattr(self.sampling, one.name)} (asked: {getattr(sampling, one.name)})"
            for one in fields(Sampling)
            if getattr(self.sampling, one.name) != getattr(sampling, one.name)
        ]
        if not differences:
            return None
        return (
            f"the calibration holds for {', '.join(differences)}: ask for its settings, "
            "or calibrate with yours"
        )

    @property
    def is_worth_using(self) -> bool:
        """Whether it is made active: not where its fit is worse than none, beyond chance."""
        return self.verdict is None or self.verdict.is_active

    @property
    def logit_scaling(self) -> Scaling:
        """What a classification does to the logits of every pass."""
        return self.class_map or self.temperature or 1.0

    def prediction_sets(
        self, mean_BC: Floats, uniform_B: Floats, coverage: float | None = None
    ) -> NDArray[np.bool_]:
        """Which classes each row's set holds, shape (B, C), from means at `logit_scaling`.

        Args:
            mean_BC: calibrated mean probabilities.
            uniform_B: a number in [0, 1) per row (`draws`), for a randomised `set_rule`.
            coverage: the record's own where None.

        Means (B, P, C) of positions give sets (B, P, C).
        """
        if self.positions is not None:
            return self.positions.sets(self.conformal, mean_BC, self.level(coverage))
        return self.set_rule.sets(self.conformal, mean_BC, uniform_B, self.level(coverage))

    def normalised_intervals(
        self, mean_BD: Floats, variance_BD: Floats, coverage: float | None = None
    ) -> Ends:
        """Lower and upper ends, from the variance with `aleatoric_variance` in it.

        Infinite where the held-out rows are too few for the coverage.
        """
        return normalised(self.conformal, mean_BD, variance_BD, self.level(coverage))

    def mixture_intervals(
        self, mean_TBD: Floats, variance_TBD: Floats, coverage: float | None = None
    ) -> Ends:
        """The same from all passes, for either kind of intervals.

        Args:
            mean_TBD: means of the passes.
            variance_TBD: their calibrated variances, or (1, 1, D).
            coverage: the record's own where None.
        """
        if self.intervals == "cqr":
            ends = quantile_ends(mean_TBD, variance_TBD, self.coverage)
            return widened(self.conformal, ends, self.level(coverage))
        total_BD = mean_TBD.var(axis=0) + variance_TBD.mean(axis=0)
        return self.normalised_intervals(mean_TBD.mean(axis=0), total_BD, coverage)

    def aleatoric_variance(self, aleatoric_variance_BD: NDArray[np.float64]) -> NDArray[np.float64]:
        """The calibrated one: scale · the network's own + noise variance, per output.

        Raises:
            InputError: for a calibration of a classification.
        """
        if self.variance_scale is None or self.noise_variance is None:
            raise _wrong_task("regression", self.task)
        scale_D, noise_D = np.asarray(self.variance_scale), np.asarray(self.noise_variance)
        calibrated_BD: NDArray[np.float64] = scale_D * aleatoric_variance_BD + noise_D
        return calibrated_BD

    @property
    def needs_features(self) -> bool:
        """Whether the out-of-distribution score reads the features of a row."""
        return (self.ood_fitted or FittedScore()).needs_features(self.ood.score)

    def ood_scores(self, source: Source) -> NDArray[np.float64]:
        """The out-of-distribution score of each row."""
        return (self.ood_fitted or FittedScore()).score(self.ood.score, source)

    def class_scores(
        self,
        columns: scores.ClassificationColumns,
        feature_BF: NDArray[np.floating] | None = None,
    ) -> NDArray[np.float64]:
        """The out-of-distribution score of each row, from columns at `logit_scaling`."""
        if self.task != "classification":
            raise _wrong_task("classification", self.task)
        if self.positions is not None:
            return self.ood_scores(PositionColumns(columns, self.positions.head, feature_BF))
        return self.ood_scores(ColumnSource(columns, feature_BF))

    def number_scores(
        self,
        epistemic_variance_BD: NDArray[np.float64],
        feature_BF: NDArray[np.floating] | None = None,
    ) -> NDArray[np.float64]:
        """The out-of-distribution score of each row of a regression."""
        if self.ood_reference is None:
            raise _wrong_task("regression", self.task)
        reference_D = np.asarray(self.ood_reference)
        return self.ood_scores(NumberSource(epistemic_variance_BD, reference_D, feature_BF))

    def class_decisions(
        self,
        mean_BC: NDArray[np.float64],
        flag_B: NDArray[np.bool_],
        sets_BC: NDArray[np.bool_],
    ) -> list[str]:
        """`accept`, `review` or `reject` for each row of a classification."""
        if self.positions is not None:
            uncertainty_B = self.positions.uncertainty(mean_BC)
            return self.policy.decide(flag_B, uncertainty_B, self.positions.set_sizes(sets_BC))
        size_B = sets_BC.sum(axis=-1)
        return self.policy.decide(flag_B, class_uncertainty(mean_BC), size_B)

    def number_decisions(
        self, variance_BD: NDArray[np.float64], flag_B: NDArray[np.bool_]
    ) -> list[str]:
        """`accept`, `review` or `reject` for each row of a regression, from the total variance."""
        if self.ood_reference is None:
            raise _wrong_task("regression", self.task)
        uncertainty_B = number_uncertainty(variance_BD, np.asarray(self.ood_reference))
        return self.policy.decide(flag_B, uncertainty_B, None)

    def to_json(self) -> dict[str, object]:
        """The record as plain JSON values."""
        values: dict[str, object] = json.loads(json.dumps(asdict(self), allow_nan=False))
        return values

    def summary(self) -> dict[str, object]:
        """The record for a reader: thresholds in place of the held-out scores behind them.

        A threshold is None where the rows are too few for the promise.
        """
        thresholds = [float(level) for level in self.conformal.thresholds(self.coverage)]
        compared = None if self.ood_fitted is None else self.ood_fitted.compared
        return self.to_json() | {
            "verdict": None if self.verdict is None else str(self.verdict),
            "ood": {
                "score": self.ood.score,
                "alpha": self.ood.alpha,
                "threshold": _finite(self.ood.threshold),
                "num_rows": len(self.ood.held_out),
                **({} if compared is None else {"compared": compared}),
            },
            "ood_fitted": None if self.ood_fitted is None else self.ood_fitted.summary(),
            "conformal": {
                "thresholds": [_finite(level) for level in thresholds],
                "num_rows": self.conformal.num_rows,
            },
        }

    @classmethod
    def from_json(cls, values: Mapping[str, object] | str | bytes) -> Calibration:
        """The record that `to_json` wrote, checked field by field.

        Raises:
            InputError: naming the first field that is missing, unknown or wrong.
        """
        try:
            text = values if isinstance(values, str | bytes) else json.dumps(values)
            return _adapter().validate_json(text, strict=True)
        except ValidationError as error:
            path, message = read_problems(error.errors())[0]
            raise InputError(
                f"the calibration record cannot be read: {path or 'the whole'}: {message}; "
                "calibrate the version again"
            ) from error
        except (TypeError, ValueError) as error:
            raise InputError(
                f"the calibration record cannot be read: {error}; calibrate the version again"
            ) from error

    def level(self, coverage: float | None) -> float:
        """The coverage asked for, or the record's own."""
        return self.coverage if coverage is None else coverage


@cache
def _adapter() -> TypeAdapter[Calibration]:
    """Made once: it takes longer than reading a record with it."""
    return TypeAdapter(Calibration)


def _finite(number: float) -> float | None:
    return number if isfinite(number) else None


def _is_ascending(column: tuple[float, ...]) -> bool:
    return len(column) > 0 and all(low <= high for low, high in pairwise(column))


def _wrong_task(expected: str, got: str) -> InputError:
    return InputError(
        f"expected a calibration of a {expected}, got one of a {got}: "
        "use the calibration of this version"
    )
