"""Connections and transactions of the relational database, SQLite or PostgreSQL.

SQLite runs in WAL mode with foreign keys and a busy timeout; transactions that write take the
write lock when they begin (`BEGIN IMMEDIATE`). On PostgreSQL every transaction that writes first
updates the one record of `changes`, so that writers come one after the other there too, and those
that read see one snapshot. The number in that record tells other servers that something changed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from sqlalchemy import Connection, Engine, create_engine, event, select, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from dubito import disk
from dubito.errors import DubitoError, InputError, StorageFullError, UnavailableError
from dubito.registry.database import schema
from dubito.registry.database.tables import ChangesRecord

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

_BUSY_TIMEOUT_S = 30.0
_CONNECT_TIMEOUT_S = 10
_RETRY_AFTER_S = 1.0
_DAMAGED_RETRY_AFTER_S = 30.0
_LITTLE_BYTES = 2**20  # with less on its disk SQLite may fail to write its files of bookkeeping
_POSTGRES_IS_FULL = "53100"
_SQLITE_SETTINGS = "DUBITO_DATA_DIR or DUBITO_DATABASE_URL"
_WRITES = "dubito_writes"


class Database:
    """One database by its URL.

    Args:
        url: `sqlite:///data/dubito.sqlite3` or `postgresql://user:password@host/name`.

    Raises:
        InputError: the URL is of another kind, or its driver is not installed.
    """

    def __init__(self, url: URL | str) -> None:
        parsed = _parse(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self._folder = Path(parsed.database or "").parent
        self.shown_url = parsed.render_as_string(hide_password=True)
        self._engine = _open(parsed, self.is_sqlite)
        self._reading, self._writing = self._engine, self._engine
        if self.is_sqlite:
            file = Path(parsed.database or "")
            event.listen(self._engine, "do_connect", lambda *_: disk.make_private(file))
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
            self._writing = self._engine.execution_options(**{_WRITES: True})
        else:
            self._reading = self._engine.execution_options(isolation_level="REPEATABLE READ")

    def prepare(self) -> None:
        """Make sure that the tables are those of this build.

        A SQLite database without tables gets them; every other one is changed by `upgrade` alone.

        Raises:
            UnavailableError: the tables are older or newer than this build, or not there.
        """
        with self._reachable():
            with self._engine.connect() as connection:
                state = schema.state(connection)
            if self.is_sqlite and state.is_empty:
                self.upgrade()
            else:
                schema.check(state, self.shown_url)

    def upgrade(self, revision: str = schema.NEWEST) -> None:
        """Bring the tables to a revision; nothing happens where they are there.

        Args:
            revision: a number of `migrations/versions`.

        Raises:
            UnavailableError: the tables are newer than this build.
        """
        with self._reachable(), self._writing.begin() as connection:
            schema.upgrade(connection, revision, self.shown_url)

    def schema_state(self) -> schema.SchemaState:
        """Which revision the tables have, and which this build has."""
        with self._reachable(), self._engine.connect() as connection:
            return schema.state(connection)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session for one consistent look.

        Raises:
            UnavailableError: the database cannot be reached.
        """
        with self._reachable(), Session(self._reading) as session, session.begin():
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session that holds the write lock from its beginning; commits unless it raises.

        Raises:
            UnavailableError: the database cannot be reached.
        """
        with self._reachable(), Session(self._writing) as session, session.begin():
            session.execute(update(ChangesRecord).values(number=ChangesRecord.number + 1))
            yield session

    @contextmanager
    def noting(self) -> Iterator[Session]:
        """A session that writes what nobody keeps as a fact, such as how far a job is.

        The number of `changes` stays, and writers on PostgreSQL queue for the records alone.

        Raises:
            UnavailableError: the database cannot be reached.
        """
        with self._reachable(), Session(self._writing) as session, session.begin():
            yield session

    def changes(self) -> int:
        """A number that grows with every transaction that `writing` began.

        Raises:
            UnavailableError: the database cannot be reached.
        """
        with self._reachable(), self._engine.connect() as connection:
            return connection.scalar(select(ChangesRecord.number)) or 0

    @property
    def engine(self) -> Engine:
        """The SQLAlchemy engine."""
        return self._engine

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, InterfaceError, PoolTimeoutError) as error:
            raise self._refusal(error) from error
        except DatabaseError as error:
            if not _is_damage(error.orig):
                raise
            raise self._damaged(error) from error

    def _damaged(self, error: DatabaseError) -> UnavailableError:
        """The error for a file that SQLite cannot read as one of its own."""
        return UnavailableError(
            "the database does not answer: ask whoever runs the server; its log says why",
            retry_after_s=_DAMAGED_RETRY_AFTER_S,
            operator=f"the database {self.shown_url}: expected a whole file of SQLite, got one "
            f"that is damaged ({error.orig}): stop the server, move it away with its -wal and "
            "-shm, and restore a backup into another folder with `dubito backup restore`",
        )

    def _refusal(self, error: Exception) -> DubitoError:
        """The error that says why a database cannot be read or written, and what mends it."""
        cause = getattr(error, "orig", None)
        if self.is_sqlite and isinstance(cause, sqlite3.Error):
            refusal = _disk_refusal(cause, self._folder)
            if refusal is not None:
                return refusal
        if getattr(cause, "sqlstate", None) == _POSTGRES_IS_FULL:
            return StorageFullError(
                "disk full: expected room in the database, got none: delete what is not needed, "
                "or ask whoever runs the server to make room",
                operator=f"the database {self.shown_url} has no room: make some on its disk",
            )
        named = _SQLITE_SETTINGS if self.is_sqlite else "DUBITO_DATABASE_URL"
        return UnavailableError(
            "the database does not answer: try again later, or ask whoever runs the server",
            retry_after_s=_RETRY_AFTER_S,
            operator=f"the database {self.shown_url} does not answer "
            f"({str(error.__cause__ or error).splitlines()[0][:200]}): "
            f"check that it runs and that {named} names it, then try again",
        )


def _is_damage(error: BaseException | None) -> bool:
    """Whether SQLite says that its file is no database, or a damaged one."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the kind
    return code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


def _disk_refusal(error: sqlite3.Error, folder: Path) -> DubitoError | None:
    """The error of the disk behind what SQLite says; None where the disk is not the cause."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the kind
    is_short = code == sqlite3.SQLITE_IOERR and disk.free_bytes(folder) < _LITTLE_BYTES
    if code == sqlite3.SQLITE_FULL or is_short:
        return disk.full(folder, _SQLITE_SETTINGS)
    is_shut = code == sqlite3.SQLITE_CANTOPEN and not disk.is_open(folder)
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM) or is_shut:
        return disk.closed(folder, str(error), _SQLITE_SETTINGS)
    return None


def _parse(url: URL | str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if parsed is not None and parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    is_known = parsed is not None and parsed.drivername in ("sqlite", "postgresql+psycopg")
    if parsed is None or not is_known or parsed.database in (None, "", ":memory:"):
        kind = "no URL" if parsed is None else f"{parsed.drivername}:// and {parsed.database}"
        raise InputError(
            f"database: expected sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME, "
            f"got {kind}: correct DUBITO_DATABASE_URL"
        )
    return parsed


def _open(url: URL, is_sqlite: bool) -> Engine:
    timeout: dict[str, object] = (
        {"timeout": _BUSY_TIMEOUT_S} if is_sqlite else {"connect_timeout": _CONNECT_TIMEOUT_S}
    )
    try:
        return create_engine(
            url,
            json_serializer=_to_json,
            json_deserializer=orjson.loads,
            pool_size=8,
            max_overflow=56 if is_sqlite else 24,
            pool_pre_ping=not is_sqlite,
            connect_args=timeout,
        )
    except ModuleNotFoundError as error:
        raise InputError(
            f"database: expected the module {error.name} for {url.drivername}, got none: "
            "pip install 'dubito[postgres]'"
        ) from error


def _to_json(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def _prepare_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late for a write lock
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
