"""A calibration: what was fitted, with what it was fitted, and how it is applied.

Flow: `fit` → `Calibration` → JSON in the registry (`stored`) → `Calibration` → sets, intervals,
p-values of predictions drawn as it was.

Dimensions: B rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from dubito.calibration.flags.detector import Detector
from dubito.calibration.flags.made import blind_to
from dubito.calibration.flags.scorer import FittedScore
from dubito.calibration.flags.source import Source
from dubito.calibration.heads import Head, head_of_record
from dubito.calibration.promised import sentences
from dubito.calibration.promises.conformal import ConformalScores, Promise
from dubito.calibration.promises.policy import DEFAULT_POLICY, Policy
from dubito.calibration.stored import ABSENT, Reports, Stored
from dubito.calibration.verdict import Verdict
from dubito.engine.calling.sampling import Sampling, shown_sites
from dubito.report import Curves, ReliabilityBin
from dubito_nn.preprocess.parts import Seen

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """What was fitted on held-out rows of one version, drawn with one sampling.

    Args:
        head: what was fitted that differs by kind, and the promise of sets or intervals.
        sampling: the only settings that it covers.
        alpha: false-alarm rate of the flag.
        ood: score, its held-out values and α.
        splits: rows of each part: one for each fit, and one for the report.
        num_rows: labelled rows in all.
        report: figures before and after.
        bins: reliability bins after; empty for regression.
        warnings: what the rows could not settle.
        ood_fitted: what the score needs beside the row; None where it needs nothing.
        policy: what decides between accepting and reviewing.
        curves: what the pictures of the report need, under `before` and `after`; a record of an
            earlier build has none.
        verdict: whether the scaling or noise is worth having; None in a record of an earlier build.
        made_rows: share that is flagged of each kind of made rows; None where none were tried.
        seen: least and greatest numbers of the rows, of each input whose range the bundle declares;
            None where it declares none.
    """

    head: Head
    sampling: Sampling
    alpha: float
    ood: Detector
    splits: dict[str, int]
    num_rows: int
    report: Reports = field(default_factory=lambda: Reports({}, {}))
    bins: tuple[ReliabilityBin, ...] = ()
    warnings: tuple[str, ...] = ()
    ood_fitted: FittedScore | None = None
    policy: Policy = DEFAULT_POLICY
    curves: dict[str, Curves] = field(default_factory=dict)
    verdict: Verdict | None = None
    made_rows: dict[str, float] | None = None
    seen: dict[str, Seen] | None = None

    @property
    def promise(self) -> Promise:
        """What sets or intervals are made of."""
        assert self.head.promise is not None
        return self.head.promise

    @property
    def coverage(self) -> float:
        """Coverage of sets and intervals where a request names none."""
        return self.promise.coverage

    @property
    def conformal(self) -> ConformalScores:
        """Scores of the rows held out for sets or intervals."""
        return self.promise.held_out

    def covers(self, sampling: Sampling) -> str | None:
        """Return None where predictions drawn so are covered, else the reason for a warning."""
        differences = [
            f"{name} {_setting(mine)} (asked: {_setting(asked)})"
            for name in (setting.name for setting in fields(Sampling))
            if (mine := getattr(self.sampling, name)) != (asked := getattr(sampling, name))
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
    def needs_features(self) -> bool:
        """Whether the out-of-distribution score reads the features of a row."""
        return (self.ood_fitted or FittedScore()).needs_features(self.ood.score)

    def ood_scores(self, source: Source) -> Floats:
        """The out-of-distribution score of each row."""
        return (self.ood_fitted or FittedScore()).score(self.ood.score, source)

    def to_json(self) -> dict[str, object]:
        """Return the record as plain JSON values."""
        shared = {
            item.name: getattr(self, item.name) for item in fields(self) if item.name != "head"
        }
        promised = {"coverage": self.coverage, "conformal": self.conformal}
        of_head = ABSENT | self.head.stored()
        return Stored(**shared, **promised, **of_head).to_json()  # type: ignore[arg-type]

    @classmethod
    def from_json(cls, values: Mapping[str, object] | str | bytes) -> Calibration:
        """Return the record that `to_json` wrote, checked field by field.

        Raises:
            InputError: naming the first field that is missing, unknown or wrong.
        """
        stored = Stored.from_json(values)
        shared = {
            item.name: getattr(stored, item.name) for item in fields(cls) if item.name != "head"
        }
        return cls(head=head_of_record(stored), **shared)

    def summary(self) -> dict[str, object]:
        """The record for a reader: thresholds in place of the held-out scores behind them.

        A threshold is None where the rows are too few for the promise.
        """
        thresholds = [float(level) for level in self.conformal.thresholds(self.coverage)]
        compared = None if self.ood_fitted is None else self.ood_fitted.compared
        made = self.made_rows
        tried = {} if made is None else {"made_rows": made, "blind_to": blind_to(made)}
        record = self.to_json()
        record.pop("seen", None)  # as long as a row
        record.pop("made_rows", None)  # beside the score that flags them
        return record | {
            "verdict": " ".join(sentences(self)) or None,
            "ood": {
                "score": self.ood.score,
                "alpha": self.ood.alpha,
                "threshold": _finite(self.ood.threshold),
                "num_rows": len(self.ood.held_out),
                **({} if compared is None else {"compared": compared}),
                **tried,
            },
            "ood_fitted": None if self.ood_fitted is None else self.ood_fitted.summary(),
            "conformal": {
                "thresholds": [_finite(level) for level in thresholds],
                "num_rows": self.conformal.num_rows,
            },
        }


def _setting(value: object) -> object:
    return shown_sites(value) if isinstance(value, tuple) else value


def _finite(number: float) -> float | None:
    return number if isfinite(number) else None
