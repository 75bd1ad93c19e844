"""Stored pools: their rows in the database, their bytes in the object store.

As for bundles the object is put first and the row second, and put again under the write lock where
a deletion came between; an object goes when the last pool that has it goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Exists, exists, select
from sqlalchemy.orm import Session

from dubito.errors import ConflictError, NotFoundError
from dubito.registry.database import Database
from dubito.registry.facts import ColumnFact, PoolFact
from dubito.registry.names import ANONYMOUS, check_name
from dubito.registry.objects import Objects
from dubito.registry.orphans import drop_unnamed, without_orphan
from dubito.registry.rows import utc
from dubito.registry.tables import AuditRow, JobRow, PoolRow

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
    """Pools by name.

    Args:
        database: their rows.
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
        place = (self._database, self._objects, new.digest, _naming(new.digest))
        with without_orphan(*place), self._database.writing() as session:
            self._objects.put(new.digest, path)
            _refuse_taken(session, new.name)
            stated = {**vars(new), "columns": [one.to_json() for one in new.columns]}
            row = PoolRow(**stated, size_bytes=path.stat().st_size)
            session.add(row)
            session.add(_note(new.uploader, "pool-add", row))
            session.flush()
            return _fact(row)

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
        """All pools by name."""
        with self._database.reading() as session:
            found = session.scalars(select(PoolRow).order_by(PoolRow.name))
            return tuple(_fact(row) for row in found)

    def get(self, name: str) -> PoolFact:
        """One pool.

        Raises:
            NotFoundError: no pool of that name.
        """
        with self._database.reading() as session:
            return _fact(_find(session, name))

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
            row = _find(session, name)
            used = select(JobRow.id).where(JobRow.pool == name, JobRow.state.in_(ACTIVE))
            job = session.scalar(used.limit(1))
            if job is not None:
                raise ConflictError(
                    f"pool `{name}`: expected one that no job uses, got one that job {job} needs: "
                    "wait until it is finished, or cancel it"
                )
            digest = row.digest
            session.add(_note(actor, "pool-delete", row))
            session.delete(row)
        is_gone = drop_unnamed(self._database, self._objects, digest, _naming(digest))
        return digest if is_gone else None


def find_pool(session: Session, name: str) -> PoolFact:
    """A pool, within a transaction.

    Raises:
        NotFoundError: no pool of that name.
    """
    return _fact(_find(session, name))


def _naming(digest: str) -> Exists:
    return exists().where(PoolRow.digest == digest)


def _find(session: Session, name: str) -> PoolRow:
    row = session.scalar(select(PoolRow).where(PoolRow.name == name))
    if row is None:
        raise NotFoundError(f"no pool {name[:64]!r}: GET /v1/pools lists those that exist")
    return row


def _refuse_taken(session: Session, name: str) -> None:
    if session.scalar(select(exists().where(PoolRow.name == name))):
        raise ConflictError(
            f"pool `{name}` exists already, and pools are never changed: choose another name, or "
            "delete it first"
        )


def _note(actor: str, action: str, row: PoolRow) -> AuditRow:
    details: dict[str, object] = {"pool": row.name, "digest": row.digest}
    return AuditRow(actor=actor, action=action, model="", version=None, details=details)


def _fact(row: PoolRow) -> PoolFact:
    return PoolFact(
        name=row.name,
        digest=row.digest,
        size_bytes=row.size_bytes,
        format=row.format,
        num_rows=row.num_rows,
        columns=tuple(_column(one) for one in row.columns),
        source=row.source,
        uploader=row.uploader,
        created_at=utc(row.created_at),
    )


def _column(stored: dict[str, object]) -> ColumnFact:
    shape, features = stored["shape"], stored.get("features", [])
    assert isinstance(shape, list)
    assert isinstance(features, list)
    name, dtype = str(stored["name"]), str(stored["dtype"])
    return ColumnFact(name, dtype, tuple(map(int, shape)), tuple(map(str, features)))
