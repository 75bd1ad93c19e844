"""The record of a calibration as it is kept: format 1, one field beside the other for all heads.

Flow: `Calibration` → `Stored` → JSON in the registry → `Stored`, checked field by field →
`Calibration`. Numbers survive the round trip to the last bit.

Dimensions: D outputs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from dubito.calibration.choices import IntervalsName, ScalingName, Task
from dubito.calibration.flags.detector import Detector
from dubito.calibration.flags.scorer import FittedScore
from dubito.calibration.promises.conformal import ConformalScores, Promise, exact_decimal
from dubito.calibration.promises.policy import DEFAULT_POLICY, Policy
from dubito.calibration.promises.positions import Positions
from dubito.calibration.promises.sets import LAC, SetRule
from dubito.calibration.verdict import Verdict
from dubito.engine.calling.sampling import Sampling
from dubito.engine.heads.scaling import ClassMap
from dubito.errors import InputError
from dubito.problems import read_problems
from dubito.report import Curves, Intervals, ReliabilityBin, Report
from dubito_nn.preprocess.parts import Seen


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
class Stored:
    """What a record holds; of the fields that differ by kind, each head fills its own.

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
        curves: what the pictures of the report need, under `before` and `after`; a record of an
            earlier build has none.
        format_version: 1.
        scaling: what was fitted to the logits; passed over for regression.
        class_map: the fitted `Vector` or `Isotonic`, with `temperature` 1; None otherwise.
        set_rule: how classes are scored; passed over for regression.
        intervals: what intervals are built around; passed over for classification.
        positions: how the labels or positions of a row are taken together; None: one distribution
            per row.
        quantile_levels: of a head of quantiles; left out of a record that has none.
        verdict: whether the scaling or noise is worth having; None in a record of an earlier build.
        made_rows: share that is flagged of each kind of made rows; left out where none were tried.
        seen: ranges of the inputs; left out where the bundle declares none.
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
    quantile_levels: tuple[float, ...] | None = None
    verdict: Verdict | None = None
    made_rows: dict[str, float] | None = None
    seen: dict[str, Seen] | None = None

    def __post_init__(self) -> None:
        """Refuse rates and held-out scores that are none."""
        exact_decimal("alpha", self.alpha)
        exact_decimal("coverage", self.coverage)
        if not all(map(_is_ascending, (*self.conformal.columns, self.ood.held_out))):
            raise InputError(
                "a calibration expects held-out scores in ascending order, one or more, "
                "got others: calibrate the version again"
            )

    @property
    def head(self) -> str:
        """Kind of the head, as `Manifest.head` has it."""
        if self.quantile_levels is not None:
            return "quantiles"
        return self.task if self.positions is None else self.positions.head

    @property
    def promise(self) -> Promise:
        """What sets or intervals are made of."""
        return Promise(self.coverage, self.conformal)

    def to_json(self) -> dict[str, object]:
        """Return the record as plain JSON values."""
        plain = {**asdict(self), "sampling": self.sampling.to_json()}
        values: dict[str, object] = json.loads(json.dumps(plain, allow_nan=False))
        for name, flag in _WRITTEN_WHERE_TRUE.items():
            part = values[name]
            if isinstance(part, dict) and not part[flag]:
                del part[flag]
        return {
            name: value
            for name, value in values.items()
            if value is not None or name not in _WRITTEN_WHERE_USED
        }

    @classmethod
    def from_json(cls, values: Mapping[str, object] | str | bytes) -> Stored:
        """Return the record that `to_json` wrote.

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


_WRITTEN_WHERE_USED = ("quantile_levels", "made_rows", "seen")
_WRITTEN_WHERE_TRUE = {
    "set_rule": "never_empty",
    "verdict": "is_left_out",
    "ood_fitted": "densities",
}
ABSENT = dict.fromkeys(("temperature", "noise_variance", "variance_scale", "ood_reference"))
"""Fields that stand in every record, null for the heads that have none."""


@cache
def _adapter() -> TypeAdapter[Stored]:
    """Make the adapter once: that takes longer than reading a record with it."""
    return TypeAdapter(Stored)


def _is_ascending(column: tuple[float, ...]) -> bool:
    return len(column) > 0 and all(low <= high for low, high in pairwise(column))
