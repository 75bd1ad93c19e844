"""Predictions that wait for their truth, outcomes, and the watch over them.

Flow: rows of predictions are written in batches → a truth comes → its predictions are found → the
outcomes are added under the watch of their calibration, one transaction for one feedback.

Nothing here raises the number of changes: no server keeps a copy of it. All rows go with their
calibration. Outcomes of one calibration are numbered from 1 without gaps, by whoever holds the row
of its watch; so windows are the same on every server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Insert, Select, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from dubito.errors import ConflictError, NotFoundError
from dubito.registry.database import Database
from dubito.registry.names import version_number
from dubito.registry.rows import find_version
from dubito.registry.tables import (
    CalibrationRow,
    ModelRow,
    OutcomeRow,
    PredictionRow,
    Table,
    VersionRow,
    WatchRow,
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
    """What was answered to one request under one calibration; `content` is packed."""

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
        advance: the next state of the watch, from the present one (None at first), outcomes that
            are new, and the time.
    """

    prediction: PredictionFact
    outcomes: Sequence[OutcomeFact]
    advance: Callable[[State | None, Sequence[OutcomeFact], str], State]


@dataclass(frozen=True)
class Added:
    """How many outcomes of a feedback are new, and the watch before and after."""

    calibration: CalibrationName
    num_new: int
    num_known: int
    before: State | None
    after: State | None


@dataclass(frozen=True)
class WatchFact:
    """The watch of a calibration; outcomes in all; the last of them, the oldest first."""

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
            names = {one.calibration for one in predictions}
            ids = {name: _lock_calibration(session, name) for name in sorted(names, key=str)}
            values = [
                {
                    "calibration_id": ids[one.calibration],
                    "request_id": one.request_id,
                    "num_rows": one.num_rows,
                    "at": datetime.now(UTC),
                    "content": one.content,
                }
                for one in predictions
                if ids[one.calibration] is not None
            ]
            if values:
                session.execute(_insert_new(session, PredictionRow), values)
        return sum(one.num_rows for one in predictions if ids[one.calibration] is None)

    def prune(self, max_rows: int) -> None:
        """Forget the oldest predictions beyond so many rows.

        Raises:
            UnavailableError: the database cannot be reached.
        """
        total = func.sum(PredictionRow.num_rows).over(order_by=PredictionRow.id.desc())
        so_far = select(PredictionRow.id, total.label("total")).subquery()
        oldest = select(func.max(so_far.c.id)).where(so_far.c.total > max_rows)
        with self._database.reading() as session:
            last = session.scalar(oldest)
        if last is not None:
            with self._database.noting() as session:
                session.execute(delete(PredictionRow).where(PredictionRow.id <= last))

    def find(
        self, model: str, reference: str | None, request_id: str
    ) -> tuple[PredictionFact, ...]:
        """What is kept of a request, under any calibration.

        Args:
            model: name of the model.
            reference: number or alias of a version; None: of all versions.
            request_id: of the prediction.

        Raises:
            NotFoundError: no such model or version, or nothing is kept.
        """
        query = (
            select(PredictionRow, CalibrationRow.number, VersionRow.number)
            .join(CalibrationRow, CalibrationRow.id == PredictionRow.calibration_id)
            .join(VersionRow, VersionRow.id == CalibrationRow.version_id)
            .join(ModelRow, ModelRow.id == VersionRow.model_id)
            .where(ModelRow.name == model, PredictionRow.request_id == request_id)
            .order_by(CalibrationRow.id)
        )
        with self._database.reading() as session:
            found = find_version(session, model, reference or "default")
            if reference is not None:
                query = query.where(VersionRow.id == found.id)
            facts = tuple(
                PredictionFact(
                    CalibrationName(model, version, number),
                    row.request_id,
                    row.num_rows,
                    row.content,
                )
                for row, number, version in session.execute(query)
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
            return tuple(_add(session, one, keep) for one in feedbacks)

    def watch(self, name: CalibrationName, num_last: int) -> WatchFact:
        """The watch of a calibration and its last outcomes.

        Raises:
            UnavailableError: the database cannot be reached.
        """
        with self._database.reading() as session:
            found = session.scalar(_calibration_id(name))
            row = None if found is None else session.get(WatchRow, found)
            if row is None:
                return WatchFact(None, 0, ())
            query = (
                select(OutcomeRow)
                .where(
                    OutcomeRow.calibration_id == found,
                    OutcomeRow.place > row.num_outcomes - num_last,
                )
                .order_by(OutcomeRow.place)
            )
            last = tuple(_outcome_fact(one) for one in session.scalars(query))
            return WatchFact(row.state, row.num_outcomes, last)


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
    watch = _lock_watch(session, calibration_id)
    before = watch.state or None
    new = _new_outcomes(session, feedback, calibration_id)
    num_known = len(feedback.outcomes) - len(new)
    if not new:
        return Added(prediction.calibration, 0, num_known, before, before)
    now = datetime.now(UTC)
    session.add_all(
        OutcomeRow(
            calibration_id=calibration_id,
            place=watch.num_outcomes + index,
            request_id=prediction.request_id,
            row=one.row,
            truth=one.truth,
            is_covered=list(one.is_covered),
            is_flagged=one.is_flagged,
            confidence=one.confidence,
            is_right=one.is_right,
            at=now,
        )
        for index, one in enumerate(new, start=1)
    )
    watch.num_outcomes += len(new)
    watch.state = dict(feedback.advance(before, new, now.isoformat()))
    session.execute(
        delete(OutcomeRow).where(
            OutcomeRow.calibration_id == calibration_id,
            OutcomeRow.place <= watch.num_outcomes - keep,
        )
    )
    return Added(prediction.calibration, len(new), num_known, before, watch.state)


def _new_outcomes(
    session: Session, feedback: Feedback, calibration_id: int
) -> tuple[OutcomeFact, ...]:
    query = select(OutcomeRow.row, OutcomeRow.truth).where(
        OutcomeRow.request_id == feedback.prediction.request_id,
        OutcomeRow.calibration_id == calibration_id,
    )
    known = {row: truth for row, truth in session.execute(query)}
    for one in feedback.outcomes:
        if one.row in known and known[one.row] != one.truth:
            raise ConflictError(
                f"row {one.row} of request {feedback.prediction.request_id!r}: expected the truth "
                "that is stored, or a row without one, got another truth: the first one counts, "
                "and nothing of this feedback is stored"
            )
    return tuple(one for one in feedback.outcomes if one.row not in known)


def _calibration_id(name: CalibrationName) -> Select[int]:
    return (
        select(CalibrationRow.id)
        .join(VersionRow, VersionRow.id == CalibrationRow.version_id)
        .join(ModelRow, ModelRow.id == VersionRow.model_id)
        .where(
            ModelRow.name == name.model,
            VersionRow.number == name.version,
            CalibrationRow.number == name.number,
        )
    )


def _lock_calibration(session: Session, name: CalibrationName) -> int | None:
    """The row of a calibration, which cannot be deleted until the end of the transaction."""
    query = _calibration_id(name)
    return session.scalar(query.with_for_update(read=True, key_share=True, of=CalibrationRow))


def _lock_watch(session: Session, calibration_id: int) -> WatchRow:
    values = {"calibration_id": calibration_id, "num_outcomes": 0, "state": {}}
    session.execute(_insert_new(session, WatchRow), values)
    query = select(WatchRow).where(WatchRow.calibration_id == calibration_id)
    return session.scalars(query.with_for_update()).one()


def _insert_new(session: Session, table: type[Table]) -> Insert:
    """An insert that leaves out rows which are there."""
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


def _outcome_fact(row: OutcomeRow) -> OutcomeFact:
    return OutcomeFact(
        row=row.row,
        truth=row.truth,
        is_covered=tuple(row.is_covered),
        is_flagged=row.is_flagged,
        confidence=row.confidence,
        is_right=row.is_right,
    )
