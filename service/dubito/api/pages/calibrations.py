"""Calibrations, evaluations, and their reports.

A record is written from its own document, and says more than the page that is answered to its
fitting. The pages of this file say what is in either.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypeAlias

from pydantic import Field

from dubito.answered import CalibrateReply
from dubito.api.pages.base import Document, DrawnPage, JsonPage, SamplingEntry
from dubito.api.pages.curves import BinEntry, CurvesEntry
from dubito.calibration.record import Calibration
from dubito.registry import CalibrationFact

Report: TypeAlias = dict[str, float | None]
Intervals: TypeAlias = dict[str, tuple[float, float] | None]

_ANSWERED = ("verdict", "num_rows", "splits", "report", "warnings", "ood", "policy")
_REPORT = (
    "Figures by name: `accuracy`, `nll`, `brier`, `ece` and others of a classification; `rmse`, "
    "`nll`, `crps`, of quantiles `pinball`, and others of a regression; null where a figure needs "
    "what is not there."
)
_INTERVALS = "95 % intervals of the figures, from resampled rows; null where there is none."
_SPLITS = "Number of rows that each fit, and the report, was given."


class ReportsEntry(JsonPage):
    """The report on rows that no fit has seen, without and with the calibration."""

    before: Report = Field(description=_REPORT)
    after: Report = Field(description=_REPORT)
    intervals: dict[Literal["before", "after"], Intervals] = Field(
        description=f"Before and after: {_INTERVALS[:1].lower()}{_INTERVALS[1:]}"
    )


class FlagEntry(JsonPage):
    """The score of the flag."""

    score: str = Field(description="Name of the score.")
    alpha: float = Field(description="False-alarm rate of the flag.")
    threshold: float | None = Field(description="A row above it is flagged; null: none ever is.")
    num_rows: int = Field(description="Number of held-out rows that it was set by.")
    compared: dict[str, float] = Field(
        default={}, description="AUROC of the scores that `auto` compared; else left out."
    )
    made_rows: dict[str, float] = Field(
        default={},
        description="Share that is flagged of rows made up for it: `far`, `noise`, `shuffled`.",
    )
    blind_to: list[str] = Field(
        default=[], description="The kinds of which less than half is flagged."
    )


class FlagParts(JsonPage):
    """What the score of the flag needs beside a row."""

    bank: dict[str, int] | None = Field(description="Sizes of the features that are compared with.")
    parts: list[str] = Field(description="Scores that were combined.")


class ThresholdsEntry(JsonPage):
    """What sets and intervals are drawn by."""

    thresholds: list[float | None] = Field(
        description="At the coverage, per output or class; null: too few rows for the promise."
    )
    num_rows: int = Field(description="Number of held-out rows.")


class PolicyEntry(JsonPage):
    """What decides between accepting and reviewing a row."""

    kind: Literal["sets", "risk", "acceptance"] = Field(
        description="Whether it reads the sets, or holds a target of risk or of acceptance."
    )
    target: float | None = Field(description="The risk or the share that was asked.")
    confidence: float | None = Field(description="Confidence of the promise on the risk.")
    threshold: float | None = Field(description="Accepted where the uncertainty is at most this.")
    bound: float | None = Field(description="Upper bound of the risk of accepted rows.")
    acceptance: float | None = Field(description="Share that was accepted of its held-out rows.")
    num_rows: int = Field(description="Number of held-out rows that set the threshold.")


class FittedPage(JsonPage):
    """What was fitted, and how good it is."""

    model: str = Field(description="Name of the model.")
    version: int = Field(description="Number of the version.")
    calibration: int = Field(description="Number of the calibration.")
    verdict: str | None = Field(
        description="Whether the scaling or noise is worth having, and what came of what sets, "
        "intervals and the flag promise."
    )
    num_rows: int = Field(description="Number of labelled rows.")
    splits: dict[str, int] = Field(description=_SPLITS)
    report: ReportsEntry = Field(description="Figures without and with the calibration.")
    warnings: list[str] = Field(description="What the rows could not settle.")
    ood: FlagEntry = Field(description="The score of the flag.")
    policy: PolicyEntry = Field(description="What decides between accepting and reviewing.")


class CalibratePage(FittedPage):
    """A calibration that was just fitted."""

    active: bool = Field(description="Whether it was made the active one.")


class RecordPage(FittedPage):
    """A calibration: all that was fitted, and with what."""

    created_at: datetime = Field(description="When it was fitted.")
    format_version: int = Field(description="Format of the record.")
    task: Literal["classification", "regression"] = Field(description="What the network predicts.")
    sampling: SamplingEntry = Field(description="The only way of drawing that it covers.")
    alpha: float = Field(description="False-alarm rate of the flag.")
    coverage: float = Field(description="Coverage of sets and intervals where none is asked.")
    scaling: Literal["temperature", "vector", "isotonic", "none"] = Field(
        description="What was fitted to the logits of a classification."
    )
    temperature: float | None = Field(description="Divides the logits of every pass.")
    class_map: Document | None = Field(description="Numbers of `vector` and `isotonic`.")
    noise_variance: list[float] | None = Field(
        description="Regression: fitted noise per output, in target units squared."
    )
    variance_scale: list[float] | None = Field(
        description="Regression: factor on the network's own noise, per output."
    )
    ood_reference: list[float] | None = Field(
        description="Regression: variance that the score of the flag counts in, per output."
    )
    ood_fitted: FlagParts | None = Field(description="What the score needs beside a row.")
    conformal: ThresholdsEntry = Field(description="Thresholds of sets or intervals.")
    set_rule: Document = Field(description="How the classes of a set are ordered.")
    intervals: Literal["normalised", "cqr"] = Field(
        description="What intervals of a regression are built around."
    )
    positions: Document | None = Field(
        description="How the labels or positions of a row are taken together."
    )
    quantile_levels: list[float] = Field(
        default=[], description="Levels of a network of quantiles; else left out."
    )
    bins: list[BinEntry] = Field(description="Reliability with the calibration.")


class CalibrationPage(RecordPage):
    """A calibration: all that was fitted, with what, and the curves of its report."""

    curves: dict[Literal["before", "after"], CurvesEntry] = Field(
        description="Curves of the report, without and with the calibration."
    )


class NoCalibrationPage(JsonPage):
    """That a version has no active calibration."""

    model: str = Field(description="Name of the model.")
    version: int = Field(description="Number of the version.")
    calibration: None = Field(description="There is none.")


class EvaluatePage(DrawnPage, SamplingEntry):
    """How good a version is on labelled rows."""

    calibration: int | None = Field(description="Number of the calibration that was applied.")
    coverage: float | None = Field(description="Coverage of the sets and intervals.")
    num_rows: int = Field(description="Number of labelled rows.")
    splits: dict[str, int] = Field(description=_SPLITS)
    report: Report = Field(description=_REPORT)
    intervals: Intervals = Field(description=_INTERVALS)
    curves: CurvesEntry = Field(description="Curves of the report.")
    warnings: list[str] = Field(description="What the caller should know.")


def calibration_page(fact: CalibrationFact) -> dict[str, object]:
    """A calibration as `CalibrationPage` says: its number, then what was fitted."""
    return {
        "model": fact.model,
        "version": fact.version,
        "calibration": fact.number,
        "created_at": fact.created_at,
        **Calibration.from_json(fact.document).summary(),
    }


def calibrated_page(reply: CalibrateReply) -> dict[str, object]:
    """What `calibrate` answers, as `CalibratePage` says."""
    summary = reply.record.summary()
    return {
        "model": reply.model,
        "version": reply.version,
        "calibration": reply.calibration,
        "active": reply.record.is_worth_using,
        **{name: summary[name] for name in _ANSWERED},
        "warnings": [*reply.warnings, *reply.record.warnings],
    }
