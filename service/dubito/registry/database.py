"""Connections, transactions and migrations of the relational database.

SQLite runs in WAL mode with foreign keys and a busy timeout. Transactions that write take the
write lock when they begin (`BEGIN IMMEDIATE`), so that two of them never meet half-way; those
that read begin plainly. Another database by URL needs neither, and gets neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.orm import Session

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

_BUSY_TIMEOUT_S = 30.0
_WRITES = "dubito_writes"


class Database:
    """One database by its SQLAlchemy URL.

    Args:
        url: SQLAlchemy URL, such as `sqlite:///data/dubito.sqlite3`.
    """

    def __init__(self, url: str) -> None:
        is_sqlite = url.startswith("sqlite")
        self._engine = create_engine(
            url,
            json_serializer=_to_json,
            json_deserializer=orjson.loads,
            pool_size=8,
            max_overflow=56,
            connect_args={"timeout": _BUSY_TIMEOUT_S} if is_sqlite else {},
        )
        if is_sqlite:
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        self._writing = self._engine.execution_options(**{_WRITES: True})

    def migrate(self) -> None:
        """Bring the tables to the newest form; nothing happens where they are."""
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self._writing.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session for one consistent look."""
        with Session(self._engine) as session, session.begin():
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session that holds the write lock from its beginning; commits unless it raises."""
        with Session(self._writing) as session, session.begin():
            yield session

    @property
    def engine(self) -> Engine:
        """The SQLAlchemy engine."""
        return self._engine

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


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
