"""Jobs: what was asked, how far it is, and which server has it.

A job belongs to the server whose name its record carries. That server raises the record's `beat`
while it works; every change that it makes is guarded by its name, so that one that was thought dead
writes nothing. Another server takes the job over once it has seen the same beat for the length of
a lease, by its own clock: clocks of servers are never compared.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import CursorResult, Update, delete, func, select, update
from sqlalchemy.orm import Session

from dubito.errors import ConflictError, NotFoundError, QueueFullError
from dubito.names import ANONYMOUS
from dubito.registry.database import Database, records
from dubito.registry.database.tables import AuditRecord, JobPartRecord, JobRecord, VersionRecord
from dubito.registry.facts import JobFact, PartFact, PoolFact
from dubito.registry.pools import ACTIVE, find_pool

_ID_BYTES = 8
_REASON = 1000
_RETRY_AFTER_S = 30.0


@dataclass(frozen=True)
class NewJob:
    """A job that is asked for.

    Args:
        id: from `new_id`.
        kind: `predict`, `select` or `fit`.
        model: name of the model.
        version: number that was meant when it was asked for.
        versions: all that it needs: that one, or the members of an ensemble too.
        pool: the rows.
        order: all that was asked, settled.
        actor: who asks.
    """

    id: str
    kind: str
    model: str
    version: int
    versions: Sequence[int]
    pool: PoolFact
    order: Mapping[str, object]
    actor: str = ANONYMOUS


class JobStore:
    """Jobs in the database.

    Args:
        database: their records.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, new: NewJob, *, most: int) -> JobFact:
        """Accept a job, and return it.

        Args:
            new: what is asked.
            most: jobs that may wait or run at once.

        Raises:
            NotFoundError: its pool or one of its versions is gone.
            QueueFullError: too many wait.
        """
        with self._database.writing() as session:
            waiting = session.scalar(
                select(func.count()).select_from(JobRecord).where(JobRecord.state.in_(ACTIVE))
            )
            if (waiting or 0) >= most:
                raise QueueFullError(
                    f"at most {most} jobs may wait or run, and so many do: try again later, or "
                    "raise DUBITO_MAX_JOBS",
                    retry_after_s=_RETRY_AFTER_S,
                )
            if new.pool.name:  # else its rows came with it
                find_pool(session, new.pool.name)
            for number in new.versions:
                records.find_version(session, new.model, str(number))
            record = JobRecord(
                id=new.id,
                kind=new.kind,
                state="queued",
                model=new.model,
                version=new.version,
                versions=list(new.versions),
                pool=new.pool.name,
                pool_digest=new.pool.digest,
                order=dict(new.order),
                total=new.pool.num_rows,
                actor=new.actor,
            )
            session.add(record)
            session.flush()
            return _fact(record)

    def get(self, job: str) -> JobFact:
        """Return one job.

        Raises:
            NotFoundError: no job of that id.
        """
        with self._database.reading() as session:
            return _fact(_find(session, job))

    def all(
        self,
        *,
        actor: str | None = None,
        models: Collection[str] | None = None,
        limit: int = 1000,
    ) -> tuple[JobFact, ...]:
        """The last jobs, the newest first.

        Args:
            actor: who asked for them; None: anybody.
            models: that they are of; None: any.
            limit: most jobs.
        """
        query = select(JobRecord).order_by(JobRecord.created_at.desc(), JobRecord.id).limit(limit)
        if actor is not None:
            query = query.where(JobRecord.actor == actor)
        if models is not None:
            query = query.where(JobRecord.model.in_(models))
        with self._database.reading() as session:
            return tuple(_fact(record) for record in session.scalars(query))

    def cancel(self, job: str, *, actor: str = ANONYMOUS) -> JobFact:
        """End a job that is not finished; the server that has it notices.

        Raises:
            NotFoundError: no job of that id.
            ConflictError: it is finished.
        """
        with self._database.noting() as session:
            record = _find(session, job)
            open_ = (JobRecord.id == job, JobRecord.state.in_(ACTIVE))
            values = {"state": "cancelled", "finished_at": _now(), "owner": None}
            if not _changed(session, update(JobRecord).where(*open_).values(values)):
                session.refresh(record)
                raise ConflictError(
                    f"job {job}: expected one that waits or runs, got one that is {record.state}: "
                    "there is nothing to cancel"
                )
            session.refresh(record)
            named = {"model": record.model, "version": record.version, "details": {"job": job}}
            session.add(AuditRecord(actor=actor, action="job-cancel", **named))
            return _fact(record)

    def same_as(self, new: NewJob) -> JobFact | None:
        """The oldest job that is not finished and asks the same for the same caller."""
        query = (
            select(JobRecord)
            .where(JobRecord.state.in_(ACTIVE), JobRecord.actor == new.actor)
            .where(JobRecord.kind == new.kind, JobRecord.model == new.model)
            .where(JobRecord.pool == new.pool.name, JobRecord.pool_digest == new.pool.digest)
            .order_by(JobRecord.created_at, JobRecord.id)
        )
        asked = list(new.versions), json.loads(json.dumps(dict(new.order)))
        with self._database.reading() as session:
            for record in session.scalars(query):
                if (list(record.versions), record.order) == asked:
                    return _fact(record)
        return None

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state that any is in."""
        query = select(JobRecord.state, func.count()).group_by(JobRecord.state)
        with self._database.reading() as session:
            return {state: count for state, count in session.execute(query)}

    def active(self) -> tuple[tuple[str, str, int], ...]:
        """Id, state and beat of all jobs that wait or run, the oldest first."""
        query = select(JobRecord.id, JobRecord.state, JobRecord.beat).where(
            JobRecord.state.in_(ACTIVE)
        )
        with self._database.reading() as session:
            states = session.execute(query.order_by(JobRecord.created_at, JobRecord.id))
            return tuple((job, state, beat) for job, state, beat in states)

    def take(self, job: str, state: str, beat: int, owner: str) -> JobFact | None:
        """Make a job one's own, if it still stands as it was seen; None where it does not.

        Args:
            job: its id.
            state: as it was seen.
            beat: as it was seen.
            owner: who takes it.
        """
        still = (JobRecord.id == job, JobRecord.state == state, JobRecord.beat == beat)
        values = {
            "state": "running",
            "owner": owner,
            "beat": JobRecord.beat + 1,
            "attempts": JobRecord.attempts + 1,
            "rate": None,
            "started_at": func.coalesce(JobRecord.started_at, _now()),
        }
        with self._database.noting() as session:
            if not _changed(session, update(JobRecord).where(*still).values(values)):
                return None
            return _fact(_find(session, job))

    def parts(self, job: str) -> tuple[PartFact, ...]:
        """Return the parts of a job that are done, in order."""
        query = (
            select(JobPartRecord).where(JobPartRecord.job_id == job).order_by(JobPartRecord.start)
        )
        with self._database.reading() as session:
            return tuple(
                PartFact(record.start, record.stop, record.digest)
                for record in session.scalars(query)
            )

    def expired(self, before: datetime) -> tuple[str, ...]:
        """Jobs that were finished before a moment."""
        with self._database.reading() as session:
            query = select(JobRecord.id).where(
                JobRecord.state.not_in(ACTIVE), JobRecord.finished_at < before
            )
            return tuple(session.scalars(query))

    def remove(self, jobs: Iterable[str]) -> None:
        """Forget finished jobs."""
        with self._database.noting() as session:
            session.execute(delete(JobPartRecord).where(JobPartRecord.job_id.in_(list(jobs))))
            session.execute(delete(JobRecord).where(JobRecord.id.in_(list(jobs))))

    def beat(self, job: str, owner: str) -> bool:
        """Write down that one still works on one's own job.

        Returns:
            Whether it is still the owner's and runs.
        """
        with self._database.noting() as session:
            return _note(session, job, owner, {})

    def add_part(
        self,
        job: str,
        owner: str,
        part: PartFact,
        *,
        rate: float | None,
        warnings: Sequence[str] = (),
    ) -> bool:
        """Write down that rows are done; returns as `beat`."""
        values = {"done": part.stop, "rate": rate, "warnings": list(warnings), "attempts": 0}
        with self._database.noting() as session:
            if not _note(session, job, owner, values):
                return False
            session.add(
                JobPartRecord(job_id=job, start=part.start, stop=part.stop, digest=part.digest)
            )
            return True

    def restart(self, job: str, owner: str, plan: Mapping[str, object]) -> bool:
        """Begin from the first row with another plan; returns as `beat`."""
        with self._database.noting() as session:
            if not _note(
                session, job, owner, {"done": 0, "plan": dict(plan), "rate": None, "warnings": []}
            ):
                return False
            session.execute(delete(JobPartRecord).where(JobPartRecord.job_id == job))
            return True

    def succeed(
        self, job: str, owner: str, result: Mapping[str, object], warnings: Sequence[str]
    ) -> bool:
        """End one's own job with its result; returns as `beat`."""
        with self._database.noting() as session:
            values = {
                "state": "succeeded",
                "done": JobRecord.total,
                "result": dict(result),
                "warnings": list(warnings),
                "finished_at": _now(),
            }
            if not _note(session, job, owner, values):
                return False
            session.execute(delete(JobPartRecord).where(JobPartRecord.job_id == job))
            return True

    def fail(self, job: str, owner: str, reason: str) -> bool:
        """End one's own job with the reason; returns as `beat`."""
        values = {"state": "failed", "reason": reason[:_REASON], "finished_at": _now()}
        with self._database.noting() as session:
            return _note(session, job, owner, values)

    def release(self, job: str, owner: str, *, counts: bool = False) -> bool:
        """Let another server go on with one's own job; returns as `beat`.

        Args:
            job: its id.
            owner: who had it.
            counts: whether it counts as a try.
        """
        tries = JobRecord.attempts - (0 if counts else 1)
        values = {"state": "queued", "owner": None, "attempts": tries, "rate": None}
        with self._database.noting() as session:
            return _note(session, job, owner, values)


def new_id() -> str:
    """An id that no job has."""
    return f"job-{secrets.token_hex(_ID_BYTES)}"


def refuse_needed(session: Session, version: VersionRecord) -> None:
    """Refuse to delete a version that a job needs which is not finished.

    Raises:
        ConflictError: there is one.
    """
    query = select(JobRecord.id, JobRecord.versions).where(
        JobRecord.model == version.model.name, JobRecord.state.in_(ACTIVE)
    )
    for job, numbers in session.execute(query):
        if version.number in numbers:
            raise ConflictError(
                f"version {version.number} of `{version.model.name}`: expected one that no job "
                f"needs, got one that job {job} runs with: wait until it is finished, or cancel it"
            )


def _note(session: Session, job: str, owner: str, values: Mapping[str, object]) -> bool:
    mine = (JobRecord.id == job, JobRecord.owner == owner, JobRecord.state == "running")
    change = update(JobRecord).where(*mine).values({"beat": JobRecord.beat + 1, **values})
    return _changed(session, change)


def _changed(session: Session, change: Update) -> bool:
    done = session.execute(change.execution_options(synchronize_session=False))
    assert isinstance(done, CursorResult)
    return int(done.rowcount) == 1


def _find(session: Session, job: str) -> JobRecord:
    record = session.get(JobRecord, job[:32], populate_existing=True)
    if record is None:
        raise unknown_job(job)
    return record


def unknown_job(job: str) -> NotFoundError:
    """The error of a job that there is not, or that is not shown."""
    return NotFoundError(f"no job {job[:32]!r}: GET /v1/jobs lists those that are kept")


def _now() -> datetime:
    return datetime.now(UTC)


def _moment(stored: datetime | None) -> datetime | None:
    return None if stored is None else records.utc(stored)


def _fact(record: JobRecord) -> JobFact:
    return JobFact(
        id=record.id,
        kind=record.kind,
        state=record.state,
        model=record.model,
        version=record.version,
        versions=tuple(record.versions),
        pool=record.pool,
        pool_digest=record.pool_digest,
        order=record.order,
        plan=record.plan,
        total=record.total,
        done=record.done,
        rate=record.rate,
        owner=record.owner,
        beat=record.beat,
        attempts=record.attempts,
        result=record.result,
        reason=record.reason,
        warnings=tuple(record.warnings),
        actor=record.actor,
        created_at=records.utc(record.created_at),
        started_at=_moment(record.started_at),
        finished_at=_moment(record.finished_at),
    )
