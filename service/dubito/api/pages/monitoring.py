"""Outcomes that were stored, and how things stand with a version under its calibration."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Self

from pydantic import Field

from dubito.api.pages.base import JsonPage
from dubito.monitoring.drifts import DriftFact
from dubito.monitoring.monitor import MonitoringPage
from dubito.registry.monitoring import Added


class StoredEntry(JsonPage):
    """Outcomes that were stored under one calibration."""

    version: int = Field(description="Number of the version that predicted.")
    calibration: int = Field(description="Number of the calibration that was applied.")
    new: int = Field(description="Number of outcomes that were not known before.")
    known: int = Field(description="Number of outcomes that were known already.")


class FeedbackPage(JsonPage):
    """What a feedback has stored, per calibration that answered the request."""

    request_id: str = Field(description="Identifier of this request.")
    model: str = Field(description="Name of the model.")
    stored: list[StoredEntry] = Field(description="One entry per calibration.")

    @classmethod
    def of_added(cls, request_id: str, model: str, added: tuple[Added, ...]) -> Self:
        """The page of what was added."""
        stored = [
            StoredEntry(
                version=outcomes.calibration.version,
                calibration=outcomes.calibration.number,
                new=outcomes.num_new,
                known=outcomes.num_known,
            )
            for outcomes in added
        ]
        return cls(request_id=request_id, model=model, stored=stored)


class DriftEntry(JsonPage):
    """The drift test of this server, which bets against the scores of the flag."""

    score: str = Field(description="Score of the flag that it follows.")
    since: datetime = Field(description="When it began.")
    rows: int = Field(description="Number of rows that it has taken in.")
    rows_repeated: int = Field(description="Number of rows that it left out as repeated.")
    rows_not_finite: int = Field(description="Number of rows whose score is not finite.")
    martingale: float = Field(description="Its capital now.")
    largest: float = Field(description="Its largest capital so far.")
    level: float = Field(description="The capital at which its alarm rings.")
    alarm_since: datetime | None = Field(description="When its alarm rang; null: it has not.")
    alarm_after_rows: int | None = Field(description="After how many rows its alarm rang.")

    @classmethod
    def of_drift(cls, fact: DriftFact) -> Self:
        """The entry of a drift test."""
        state = fact.state
        return cls.of(
            fact,
            rows=state.num_scores,
            rows_repeated=fact.num_repeated,
            rows_not_finite=state.num_skipped,
            martingale=state.martingale,
            largest=state.largest,
            level=state.level,
            alarm_after_rows=state.alarm_after,
        )


class RateEntry(JsonPage):
    """A share of outcomes, with its exact interval at a confidence of 0.95."""

    observed: float = Field(description="The share that was seen.")
    lower: float = Field(description="Lower end of the interval.")
    upper: float = Field(description="Upper end of the interval.")


class OutcomesEntry(JsonPage):
    """What the last outcomes say of the promises of the calibration."""

    rows: int = Field(description="Number of outcomes that are stored.")
    window: int = Field(description="Number of the last outcomes that the figures are of.")
    promised_coverage: float = Field(description="Coverage of sets or intervals as calibrated.")
    coverage: list[RateEntry] = Field(description="Coverage that was seen, per output.")
    promised_flag_rate: float = Field(description="False-alarm rate of the flag as calibrated.")
    flag_rate: RateEntry | None = Field(description="Share of rows that were flagged.")
    accuracy: float | None = Field(description="Share of right classes; null for a regression.")
    ece: float | None = Field(
        description="Expected calibration error, 15 bins; null for a regression."
    )
    windows_judged: int = Field(description="Number of windows that were judged so far.")

    @classmethod
    def of_state(cls, page: MonitoringPage) -> Self | None:
        """The entry of a version; None without an active calibration."""
        if page.calibration is None:
            return None
        promised, figures, watch = page.calibration.document, page.figures, page.watch
        return cls.model_validate(
            {
                "rows": page.num_outcomes,
                "window": 0 if figures is None else figures.num_outcomes,
                "promised_coverage": promised["coverage"],
                "coverage": [] if figures is None else [asdict(rate) for rate in figures.coverage],
                "promised_flag_rate": promised["alpha"],
                "flag_rate": None if figures is None else asdict(figures.flag_rate),
                "accuracy": None if figures is None else figures.accuracy,
                "ece": None if figures is None else figures.ece,
                "windows_judged": 0 if watch is None else watch.flags.index - 1,
            }
        )


class PredictionsEntry(JsonPage):
    """Predictions that this server has taken for monitoring."""

    waiting: int = Field(description="Number of predictions that wait to be written.")
    written: int = Field(description="Number of predictions that were written.")
    dropped: int = Field(description="Number of predictions that were left out for lack of room.")


class MonitoringDetailsPage(JsonPage):
    """How things stand with a version under its active calibration."""

    model: str = Field(description="Name of the model.")
    version: int = Field(description="Number of the version.")
    calibration: int | None = Field(description="Number of the active calibration.")
    alarms: dict[str, str] = Field(
        description="Alarms that are up (`coverage`, `flag_rate`, `drift`), and since when."
    )
    drift: DriftEntry | None = Field(description="The drift test; null before it has seen a row.")
    outcomes: OutcomesEntry | None = Field(description="Null without an active calibration.")
    predictions: PredictionsEntry = Field(description="Predictions on their way to the database.")

    @classmethod
    def of_state(cls, page: MonitoringPage) -> Self:
        """The page of a version."""
        counts = page.counts
        return cls(
            model=page.version.model,
            version=page.version.number,
            calibration=None if page.calibration is None else page.calibration.number,
            alarms=page.alarms,
            drift=None if page.drift is None else DriftEntry.of_drift(page.drift),
            outcomes=OutcomesEntry.of_state(page),
            predictions=PredictionsEntry(
                waiting=counts.num_waiting, written=counts.num_written, dropped=counts.num_dropped
            ),
        )
