"""Fits: what further methods learned of a version, numbered like its calibrations.

The numbers of a fit are an object, beside those of the bundles; what is said of it is its record.
A fit is made by a job: one that is done again after a crash finds what it made before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Exists, exists, func, select

from dubito.errors import NotFoundError
from dubito.names import ANONYMOUS
from dubito.registry.database import Database, records
from dubito.registry.database.tables import FitRecord, VersionRecord
from dubito.registry.noting import Noting, note
from dubito.registry.objects import Objects
from dubito.registry.orphans import drop_unnamed, without_orphan


@dataclass(frozen=True)
class FitFact:
    """One immutable fit of a version.

    `method` is what it is for, `document` its report and warnings, `digest` names its numbers.
    """

    model: str
    version: int
    number: int
    method: str
    digest: str
    document: Mapping[str, object]
    created_at: datetime


@dataclass(frozen=True)
class NewFit:
    """A fit that shall be kept.

    Args:
        method: what it is for.
        digest: SHA-256 of its numbers.
        content: these.
        document: its report and warnings, as plain values.
        job: that made it.
        actor: who asked for it.
    """

    method: str
    digest: str
    content: bytes
    document: Mapping[str, object]
    job: str
    actor: str = ANONYMOUS


class FitStore:
    """The fits of all versions.

    Args:
        noting: tells of changes.
        database: their records.
        objects: those of the bundles; fits lie beside them.
    """

    def __init__(self, noting: Noting, database: Database, objects: Objects) -> None:
        self._noting = noting
        self._database = database
        self._objects = objects.beside("fits")

    def add(self, model: str, reference: str, new: NewFit) -> FitFact:
        """Keep a fit under the version's next number, and make it active for its method.

        Of a job that has made one already, that one.

        Raises:
            NotFoundError: no such model or version.
        """
        self._objects.put(new.digest, new.content)
        object_and_naming = (self._database, self._objects, new.digest, naming(new.digest))
        with without_orphan(*object_and_naming), self._noting.writing() as session:
            self._objects.put(new.digest, new.content)
            version = records.find_version(session, model, reference)
            made = session.scalar(select(FitRecord).where(FitRecord.job == new.job))
            if made is not None:
                return _fact(made)
            last = select(func.max(FitRecord.number)).where(FitRecord.version_id == version.id)
            record = FitRecord(
                version=version,
                number=(session.scalar(last) or 0) + 1,
                method=new.method,
                digest=new.digest,
                job=new.job,
                document=dict(new.document),
            )
            session.add(record)
            version.active_fits = {**(version.active_fits or {}), new.method: record.number}
            note(session, new.actor, "fit", version, fit=record.number, method=new.method)
            session.flush()
            return _fact(record)

    def all(self, model: str, reference: str) -> tuple[FitFact, ...]:
        """All fits of a version by number.

        Raises:
            NotFoundError: no such model or version.
        """
        with self._database.reading() as session:
            version = records.find_version(session, model, reference)
            return tuple(map(_fact, version.fits))

    def get(self, model: str, reference: str, number: int) -> FitFact:
        """One fit of a version.

        Raises:
            NotFoundError: no such model, version or fit.
        """
        with self._database.reading() as session:
            return _fact(_find(records.find_version(session, model, reference), number))

    def content(self, digest: str) -> bytes:
        """The numbers of a fit by their SHA-256."""
        return b"".join(self._objects.pieces(digest))

    def set_active(
        self,
        model: str,
        reference: str,
        active: Mapping[str, int | None],
        *,
        actor: str = ANONYMOUS,
    ) -> None:
        """Make fits of a version the active ones of their methods; None: no fit of that method.

        Raises:
            NotFoundError: no such model, version or fit, or it is of another method.
        """
        with self._noting.writing() as session:
            version = records.find_version(session, model, reference)
            now = dict(version.active_fits or {})
            for method, number in active.items():
                now.pop(method, None)
                if number is not None:
                    now[method] = _find(version, number, method).number
            version.active_fits = now
            note(session, actor, "activate-fit", version, fits=dict(active))

    def drop(self, digests: tuple[str, ...]) -> None:
        """Delete the numbers of fits whose records are gone, where no other fit has the same."""
        for digest in digests:
            drop_unnamed(self._database, self._objects, digest, naming(digest))


def naming(digest: str) -> Exists:
    """Whether a record names the numbers of a fit."""
    return exists().where(FitRecord.digest == digest)


def _find(version: VersionRecord, number: int, method: str | None = None) -> FitRecord:
    for record in version.fits:
        if record.number == number and method in (None, record.method):
            return record
    known = ", ".join(f"{record.number} ({record.method})" for record in version.fits) or "none"
    wanted = f"fit {number}" + (f" of method `{method[:32]}`" if method else "")
    raise NotFoundError(
        f"version {version.number} of `{version.model.name}` has no {wanted}: it has {known}"
    )


def _fact(record: FitRecord) -> FitFact:
    return FitFact(
        model=record.version.model.name,
        version=record.version.number,
        number=record.number,
        method=record.method,
        digest=record.digest,
        document=record.document,
        created_at=records.utc(record.created_at),
    )
