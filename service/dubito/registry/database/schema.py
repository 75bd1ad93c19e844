"""The revision of the tables: which one there is, which one this build needs, and the way there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from dubito.errors import UnavailableError

NEWEST = "head"
_UPGRADE_LOCK = 0x64756269746F  # "dubito" as a number: PostgreSQL's advisory locks have no names


@dataclass(frozen=True)
class SchemaState:
    """The revision of a database, beside that of this build.

    Args:
        current: revision of the tables; None where none was written down.
        newest: revision of this build.
        is_empty: whether there are no tables at all.
        is_known: whether this build knows the current revision.
    """

    current: str | None
    newest: str
    is_empty: bool
    is_known: bool

    @property
    def is_newest(self) -> bool:
        """Whether this build can work with the tables."""
        return self.current == self.newest


def state(connection: Connection) -> SchemaState:
    """Look at the tables of a database."""
    newest, known = _revisions()
    current = MigrationContext.configure(connection).get_current_revision()
    return SchemaState(
        current=current,
        newest=newest,
        is_empty=not inspect(connection).get_table_names(),
        is_known=current is None or current in known,
    )


def check(present: SchemaState, shown_url: str) -> None:
    """Refuse tables that this build cannot work with.

    Raises:
        UnavailableError: they are older, newer, or not there.
    """
    if present.is_newest:
        return
    if not present.is_known:
        raise UnavailableError(
            f"database {shown_url}: expected revision {present.newest} of its tables, got "
            f"{present.current}, which this build does not know: install the Dubito that made it"
        )
    got = "no tables" if present.current is None else f"the older {present.current}"
    raise UnavailableError(
        f"database {shown_url}: expected revision {present.newest} of its tables, got {got}: "
        "back it up and run `dubito db upgrade`"
    )


def upgrade(connection: Connection, revision: str, shown_url: str) -> None:
    """Bring the tables to a revision, one process at a time.

    Raises:
        UnavailableError: the tables are newer than this build.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
    present = state(connection)
    if not present.is_known:
        check(present, shown_url)
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


@cache
def _revisions() -> tuple[str, frozenset[str]]:
    """The newest revision of this build, and all of them."""
    scripts = ScriptDirectory.from_config(_config())
    known = frozenset(script.revision for script in scripts.walk_revisions())
    return scripts.get_current_head() or "", known


def _config() -> Config:
    config = Config()
    scripts = str(Path(__file__).parent / "migrations")
    config.set_main_option("script_location", scripts.replace("%", "%%"))  # % is its syntax
    return config
