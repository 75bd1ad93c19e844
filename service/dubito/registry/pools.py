"""Stored pools: their records in the database, their bytes in the object store.

As for bundles the object is put first and the record second, and put again under the write lock
where a deletion came between; an object goes when the last pool that has it goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Exists, exists, select
from sqlalchemy.orm import Session

from dubito.errors import ConflictError, NotFoundError
from dubito.names import ANONYMOUS, check_name
from dubito.registry.database import Database
from dubito.registry.database.records import utc
from dubito.registry.database.tables import AuditRecord, JobRecord, PoolRecord
from dubito.registry.facts import ColumnFact, PoolFact
from dubito.registry.objects import Objects
from dubito.registry.orphans import drop_unnamed, without_orphan

ACTIVE = ("queued", "running")  # states of a job that still needs its pool and its versions


@dataclass(frozen=True)
class NewPool:
    """A file that shall be kept as a pool.

    Args:
        name: of the pool.
        digest: SHA-256 of the file.
        format: its kind.
        num_rows: its rows.
        columns: its arrays.
        source: the address that it was taken from.
        uploader: who brings it.
    """

    name: str
    digest: str
    format: str
    num_rows: int
    columns: Sequence[ColumnFact]
    source: str | None = None
    uploader: str = ANONYMOUS


class PoolStore:
    """The stored pools, by name.

    Args:
        database: their records.
        objects: those of the bundles; pools lie beside them.
    """

    def __init__(self, database: Database, objects: Objects) -> None:
        self._database = database
        self._objects = objects.beside("pools")

    def add(self, new: NewPool, path: Path) -> PoolFact:
        """Keep a verified file as a pool.

        Args:
            new: what is known of it.
            path: the file.

        Raises:
            InputError: the name does not follow the pattern.
            ConflictError: the name is taken.
        """
        self.check_free(new.name)
        self._objects.put(new.digest, path)
        object_and_naming = (self._database, self._objects, new.digest, _naming(new.digest))
        with without_orphan(*object_and_naming), self._database.writing() as session:
            self._objects.put(new.digest, path)
            _refuse_taken(session, new.name)
            stated = {**vars(new), "columns": [column.to_json() for column in new.columns]}
            record = PoolRecord(**stated, size_bytes=path.stat().st_size)
            session.add(record)
            session.add(_note(new.uploader, "pool-add", record))
            session.flush()
            return _fact(record)

    def check_free(self, name: str) -> None:
        """Refuse a name that a pool cannot have.

        Raises:
            InputError: it does not follow the pattern.
            ConflictError: it is taken.
        """
        check_name("pool", name)
        with self._database.reading() as session:
            _refuse_taken(session, name)

    def all(self) -> tuple[PoolFact, ...]:
        """Return all pools by name."""
        with self._database.reading() as session:
            pools = session.scalars(select(PoolRecord).order_by(PoolRecord.name))
            return tuple(_fact(record) for record in pools)

    def get(self, name: str) -> PoolFact:
        """Return one pool.

        Raises:
            NotFoundError: no pool of that name.
        """
        with self._database.reading() as session:
            return _fact(_find(session, name))

    @property
    def objects(self) -> Objects:
        """Where their bytes lie."""
        return self._objects

    def pieces(self, digest: str) -> Iterator[bytes]:
        """The bytes of a pool, which have that digest together.

        Raises:
            DubitoError: the store does not hold them, or holds them damaged.
        """
        return self._objects.pieces(digest)

    def delete(self, name: str, *, actor: str = ANONYMOUS) -> str | None:
        """Delete a pool that no job uses, and its object where no other pool has it.

        Returns:
            The digest of the object if it is gone, else None.

        Raises:
            NotFoundError: no pool of that name.
            ConflictError: a job that is not finished uses it.
        """
        with self._database.writing() as session:
            record = _find(session, name)
            used = select(JobRecord.id).where(JobRecord.pool == name, JobRecord.state.in_(ACTIVE))
            job = session.scalar(used.limit(1))
            if job is not None:
                raise ConflictError(
                    f"pool `{name}`: expected one that no job uses, got one that job {job} needs: "
                    "wait until it is finished, or cancel it"
                )
            digest = record.digest
            session.add(_note(actor, "pool-delete", record))
            session.delete(record)
        is_gone = drop_unnamed(self._database, self._objects, digest, _naming(digest))
        return digest if is_gone else None


def find_pool(session: Session, name: str) -> PoolFact:
    """A pool, within a transaction.

    Raises:
        NotFoundError: no pool of that name.
    """
    return _fact(_find(session, name))


def _naming(digest: str) -> Exists:
    return exists().where(PoolRecord.digest == digest)


def _find(session: Session, name: str) -> PoolRecord:
    record = session.scalar(select(PoolRecord).where(PoolRecord.name == name))
    if record is None:
        raise unknown_pool(name)
    return record


def unknown_pool(name: str) -> NotFoundError:
    """The error of a pool that there is not, or that is not shown."""
    return NotFoundError(f"no pool {name[:64]!r}: GET /v1/pools lists those that exist")


def _refuse_taken(session: Session, name: str) -> None:
    if session.scalar(select(exists().where(PoolRecord.name == name))):
        raise ConflictError(
            f"pool `{name}` exists already, and pools are never changed: choose another name, or "
            "delete it first"
        )


def _note(actor: str, action: str, record: PoolRecord) -> AuditRecord:
    details: dict[str, object] = {"pool": record.name, "digest": record.digest}
    return AuditRecord(actor=actor, action=action, model="", version=None, details=details)


def _fact(record: PoolRecord) -> PoolFact:
    return PoolFact(
        name=record.name,
        digest=record.digest,
        size_bytes=record.size_bytes,
        format=record.format,
        num_rows=record.num_rows,
        columns=tuple(_column(column) for column in record.columns),
        source=record.source,
        uploader=record.uploader,
        created_at=utc(record.created_at),
    )


def _column(stored: dict[str, object]) -> ColumnFact:
    shape, features = stored["shape"], stored.get("features", [])
    assert isinstance(shape, list)
    assert isinstance(features, list)
    name, dtype = str(stored["name"]), str(stored["dtype"])
    return ColumnFact(name, dtype, tuple(map(int, shape)), tuple(map(str, features)))
