"""Predictions that wait for their truth, outcomes, and the monitoring that follows them.

Flow: rows of predictions are written in batches → a truth comes → its predictions are found → the
outcomes are added to the monitoring of their calibration, one transaction for one feedback.

Nothing here raises the number of changes: no server keeps a copy of it. All records go with their
calibration. Outcomes of one calibration are numbered from 1 without gaps, by whoever holds the
record of its monitoring; so windows are the same on every server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Insert, Select, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from dubito.errors import ConflictError, NotFoundError
from dubito.names import version_number
from dubito.registry.database import Database
from dubito.registry.database.records import find_version
from dubito.registry.database.tables import (
    CalibrationRecord,
    ModelRecord,
    MonitoringRecord,
    OutcomeRecord,
    PredictionRecord,
    Table,
    VersionRecord,
)

State = Mapping[str, object]


@dataclass(frozen=True)
class CalibrationName:
    """A calibration by model, version and number."""

    model: str
    version: int
    number: int


@dataclass(frozen=True)
class PredictionFact:
    """The answer to one request under one calibration; `content` is packed."""

    calibration: CalibrationName
    request_id: str
    num_rows: int
    content: bytes


@dataclass(frozen=True)
class OutcomeFact:
    """The truth of one row, and what it says of the prediction.

    `truth` holds the index of the class, or one number per output. (A list: SQLite makes a number
    of a JSON column that holds one alone.)
    """

    row: int
    truth: list[float]
    is_covered: tuple[bool, ...]
    is_flagged: bool
    confidence: float | None
    is_right: bool | None


@dataclass(frozen=True)
class Feedback:
    """Outcomes of one prediction.

    Args:
        prediction: that they belong to.
        outcomes: one per row, no row twice.
        advance: the next state of the monitoring, from the present one (None at first), outcomes
            that are new, and the time.
    """

    prediction: PredictionFact
    outcomes: Sequence[OutcomeFact]
    advance: Callable[[State | None, Sequence[OutcomeFact], str], State]


@dataclass(frozen=True)
class Added:
    """How many outcomes of a feedback are new, and the state of the monitoring before and after."""

    calibration: CalibrationName
    num_new: int
    num_known: int
    before: State | None
    after: State | None


@dataclass(frozen=True)
class MonitoringFact:
    """How the monitoring of a calibration stands; `last` are outcomes, the oldest first."""

    state: State | None
    num_outcomes: int
    last: tuple[OutcomeFact, ...]


class Journal:
    """Predictions and outcomes over a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def write(self, predictions: Sequence[PredictionFact]) -> int:
        """Keep predictions; how many rows belong to a calibration that is gone.

        A request that is kept already under the same calibration stays as it is.

        Raises:
            UnavailableError: the database cannot be reached; nothing is kept.
        """
        with self._database.noting() as session:
            names = {prediction.calibration for prediction in predictions}
            ids = {name: _lock_calibration(session, name) for name in sorted(names, key=str)}
            values = [
                {
                    "calibration_id": ids[prediction.calibration],
                    "request_id": prediction.request_id,
                    "num_rows": prediction.num_rows,
                    "at": datetime.now(UTC),
                    "content": prediction.content,
                }
                for prediction in predictions
                if ids[prediction.calibration] is not None
            ]
            if values:
                session.execute(_insert_new(session, PredictionRecord), values)
        return sum(
            prediction.num_rows for prediction in predictions if ids[prediction.calibration] is None
        )

    def prune(self, max_rows: int) -> None:
        """Forget the oldest predictions beyond so many rows.

        Raises:
            UnavailableError: the database cannot be reached.
        """
        total = func.sum(PredictionRecord.num_rows).over(order_by=PredictionRecord.id.desc())
        so_far = select(PredictionRecord.id, total.label("total")).subquery()
        oldest = select(func.max(so_far.c.id)).where(so_far.c.total > max_rows)
        with self._database.reading() as session:
            last = session.scalar(oldest)
        if last is not None:
            with self._database.noting() as session:
                session.execute(delete(PredictionRecord).where(PredictionRecord.id <= last))

    def find(
        self, model: str, reference: str | None, request_id: str
    ) -> tuple[PredictionFact, ...]:
        """Return the predictions of a request that are kept, under any calibration.

        Args:
            model: name of the model.
            reference: number or alias of a version; None: of all versions.
            request_id: of the prediction.

        Raises:
            NotFoundError: no such model or version, or nothing is kept.
        """
        query = (
            select(PredictionRecord, CalibrationRecord.number, VersionRecord.number)
            .join(CalibrationRecord, CalibrationRecord.id == PredictionRecord.calibration_id)
            .join(VersionRecord, VersionRecord.id == CalibrationRecord.version_id)
            .join(ModelRecord, ModelRecord.id == VersionRecord.model_id)
            .where(ModelRecord.name == model, PredictionRecord.request_id == request_id)
            .order_by(CalibrationRecord.id)
        )
        with self._database.reading() as session:
            version_record = find_version(session, model, reference or "default")
            if reference is not None:
                query = query.where(VersionRecord.id == version_record.id)
            facts = tuple(
                PredictionFact(
                    CalibrationName(model, version, number),
                    record.request_id,
                    record.num_rows,
                    record.content,
                )
                for record, number, version in session.execute(query)
            )
        if not facts:
            raise NotFoundError(
                f"model `{model}`: expected the id of a prediction that is kept, got "
                f"{request_id[:128]!r}: send the `request_id` of a reply that named a calibration, "
                "a moment after it, and before DUBITO_KEPT_PREDICTIONS newer rows have come"
            )
        return facts

    def add(self, feedbacks: Sequence[Feedback], *, keep: int) -> tuple[Added, ...]:
        """Store outcomes, all or none; those that are known and equal change nothing.

        Args:
            feedbacks: of one request.
            keep: outcomes of a calibration that are kept.

        Raises:
            ConflictError: another truth is stored for a row.
            NotFoundError: a calibration is gone.
            UnavailableError: the database cannot be reached; nothing is stored.
        """
        with self._database.noting() as session:
            return tuple(_add(session, feedback, keep) for feedback in feedbacks)

    def monitoring(self, name: CalibrationName, num_last: int) -> MonitoringFact:
        """How the monitoring of a calibration stands, with its last outcomes.

        Raises:
            UnavailableError: the database cannot be reached.
        """
        with self._database.reading() as session:
            calibration_id = session.scalar(_calibration_id(name))
            record = (
                None if calibration_id is None else session.get(MonitoringRecord, calibration_id)
            )
            if record is None:
                return MonitoringFact(None, 0, ())
            query = (
                select(OutcomeRecord)
                .where(
                    OutcomeRecord.calibration_id == calibration_id,
                    OutcomeRecord.place > record.num_outcomes - num_last,
                )
                .order_by(OutcomeRecord.place)
            )
            last = tuple(_outcome_fact(outcome) for outcome in session.scalars(query))
            return MonitoringFact(record.state, record.num_outcomes, last)


def check_reference(reference: str) -> str | None:
    """A version that a path names; None for the alias `default`, which means every version."""
    return None if version_number(reference) is None and reference == "default" else reference


def _add(session: Session, feedback: Feedback, keep: int) -> Added:
    prediction = feedback.prediction
    calibration_id = _lock_calibration(session, prediction.calibration)
    if calibration_id is None:
        raise NotFoundError(
            f"calibration {prediction.calibration.number} of version "
            f"{prediction.calibration.version} of `{prediction.calibration.model}` was deleted "
            "meanwhile, and its predictions with it"
        )
    record = _lock_monitoring(session, calibration_id)
    before = record.state or None
    new = _new_outcomes(session, feedback, calibration_id)
    num_known = len(feedback.outcomes) - len(new)
    if not new:
        return Added(prediction.calibration, 0, num_known, before, before)
    now = datetime.now(UTC)
    session.add_all(
        OutcomeRecord(
            calibration_id=calibration_id,
            place=record.num_outcomes + index,
            request_id=prediction.request_id,
            row=outcome.row,
            truth=outcome.truth,
            is_covered=list(outcome.is_covered),
            is_flagged=outcome.is_flagged,
            confidence=outcome.confidence,
            is_right=outcome.is_right,
            at=now,
        )
        for index, outcome in enumerate(new, start=1)
    )
    record.num_outcomes += len(new)
    record.state = dict(feedback.advance(before, new, now.isoformat()))
    session.execute(
        delete(OutcomeRecord).where(
            OutcomeRecord.calibration_id == calibration_id,
            OutcomeRecord.place <= record.num_outcomes - keep,
        )
    )
    return Added(prediction.calibration, len(new), num_known, before, record.state)


def _new_outcomes(
    session: Session, feedback: Feedback, calibration_id: int
) -> tuple[OutcomeFact, ...]:
    query = select(OutcomeRecord.row, OutcomeRecord.truth).where(
        OutcomeRecord.request_id == feedback.prediction.request_id,
        OutcomeRecord.calibration_id == calibration_id,
    )
    known = {row: truth for row, truth in session.execute(query)}
    for outcome in feedback.outcomes:
        if outcome.row in known and known[outcome.row] != outcome.truth:
            raise ConflictError(
                f"row {outcome.row} of request {feedback.prediction.request_id!r}: expected the "
                "truth that is stored, or a row without one, got another truth: the first one "
                "counts, and nothing of this feedback is stored"
            )
    return tuple(outcome for outcome in feedback.outcomes if outcome.row not in known)


def _calibration_id(name: CalibrationName) -> Select[int]:
    return (
        select(CalibrationRecord.id)
        .join(VersionRecord, VersionRecord.id == CalibrationRecord.version_id)
        .join(ModelRecord, ModelRecord.id == VersionRecord.model_id)
        .where(
            ModelRecord.name == name.model,
            VersionRecord.number == name.version,
            CalibrationRecord.number == name.number,
        )
    )


def _lock_calibration(session: Session, name: CalibrationName) -> int | None:
    """The record of a calibration, which cannot be deleted until the end of the transaction."""
    query = _calibration_id(name)
    return session.scalar(query.with_for_update(read=True, key_share=True, of=CalibrationRecord))


def _lock_monitoring(session: Session, calibration_id: int) -> MonitoringRecord:
    values = {"calibration_id": calibration_id, "num_outcomes": 0, "state": {}}
    session.execute(_insert_new(session, MonitoringRecord), values)
    query = select(MonitoringRecord).where(MonitoringRecord.calibration_id == calibration_id)
    return session.scalars(query.with_for_update()).one()


def _insert_new(session: Session, table: type[Table]) -> Insert:
    """An insert that leaves out records that are there."""
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


def _outcome_fact(record: OutcomeRecord) -> OutcomeFact:
    return OutcomeFact(
        row=record.row,
        truth=record.truth,
        is_covered=tuple(record.is_covered),
        is_flagged=record.is_flagged,
        confidence=record.confidence,
        is_right=record.is_right,
    )
