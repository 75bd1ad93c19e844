"""The database: its tables, its revisions, its way from old ones, on SQLite and PostgreSQL."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from dubito.errors import InputError, UnavailableError
from dubito.registry.database import Database
from dubito.registry.database.tables import Table

from .shell import run_command


@pytest.fixture
def database(empty_database_url: str) -> Iterator[Database]:
    opened = Database(empty_database_url)
    yield opened
    opened.close()


def test_the_migrations_make_the_tables_that_the_code_declares(database: Database) -> None:
    database.upgrade()
    database.upgrade()
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []
        if database.is_sqlite:
            assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
            assert connection.scalar(text("PRAGMA foreign_keys")) == 1


def test_a_fresh_sqlite_database_gets_its_tables_and_postgresql_says_what_to_run(
    database: Database,
) -> None:
    if not database.is_sqlite:
        with pytest.raises(UnavailableError, match=r"no tables.*`dubito db upgrade`"):
            database.prepare()
        database.upgrade()
    database.prepare()
    assert database.schema_state().is_newest


def test_older_tables_are_refused_with_the_remedy_and_keep_their_rows_in_an_upgrade(
    database: Database,
) -> None:
    database.upgrade("0001")
    with database.engine.begin() as connection:
        for statement in (
            "INSERT INTO models VALUES (1, 'digits', 2, '2026-01-01 00:00:00')",
            "INSERT INTO versions VALUES (1, 1, 1, 'abc', 3, '{}', '{}', 1, '2026-01-01 00:00:00')",
            "INSERT INTO aliases VALUES (1, 1, 1, 'default', 1)",
            "INSERT INTO calibrations VALUES (1, 1, 1, '{}', '2026-01-01 00:00:00')",
        ):
            connection.execute(text(statement))
    with pytest.raises(UnavailableError, match=r"older 0001.*`dubito db upgrade`"):
        database.prepare()
    database.upgrade()
    database.prepare()
    with database.reading() as session:
        for table in ("models", "versions", "aliases", "calibrations"):
            assert session.scalar(text(f"SELECT count(*) FROM {table}")) == 1
        assert session.scalar(text("SELECT uploader FROM versions")) == "anonymous"


def test_newer_tables_are_refused(database: Database) -> None:
    database.upgrade()
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for action in (database.prepare, database.upgrade):
        with pytest.raises(UnavailableError, match="9999, which this build does not know"):
            action()


def test_every_write_is_counted_and_one_that_fails_is_not(database: Database) -> None:
    database.upgrade()
    before = database.changes()
    with database.writing():
        pass
    assert database.changes() == before + 1
    with pytest.raises(InputError), database.writing():
        raise InputError("no")
    assert database.changes() == before + 1


@pytest.mark.parametrize("url", ["mysql://a/b", "nothing", "sqlite://", "sqlite:///:memory:"])
def test_another_kind_of_database_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="DUBITO_DATABASE_URL"):
        Database(url)


@pytest.mark.postgres
def test_a_database_that_does_not_answer_is_named_without_its_password(postgres: object) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    database = Database(f"postgresql://ann:secret@127.0.0.1:{port}/nobody")
    with pytest.raises(UnavailableError, match=r"ann:\*\*\*@.*does not answer") as raised:
        database.prepare()
    assert "secret" not in str(raised.value)
    assert "127.0.0.1" not in raised.value.detail
    database.close()


def test_a_folder_that_cannot_be_written_is_an_answer_too(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'nobody' / 'here.sqlite3'}")
    with pytest.raises(UnavailableError, match="nobody: expected a folder that may") as raised:
        database.prepare()
    assert str(tmp_path) not in raised.value.detail
    database.close()


@pytest.mark.parametrize("kind", ["no database", "pages overwritten"])
def test_a_damaged_file_is_told_in_one_line_with_the_way_back(
    kind: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DUBITO_DATA_DIR", str(tmp_path))
    path = tmp_path / "dubito.sqlite3"
    database = Database(f"sqlite:///{path}")
    database.prepare()
    database.close()
    content = path.read_bytes()
    kept = 0 if kind == "no database" else 100  # the header
    path.write_bytes(content[:kept] + b"\xff" * (len(content) - kept))
    for words in (["models"], ["registry", "check"], ["serve", "--port", "0"]):
        code, _, err = run_command(capsys, monkeypatch, *words)
        assert (code, err.count("\n")) == (1, 1), err
        assert f"{path}: expected a whole file" in err
        assert "`dubito backup restore`" in err
    reopened = Database(f"sqlite:///{path}")
    with pytest.raises(UnavailableError) as raised, reopened.reading() as session:
        session.execute(text("SELECT * FROM models"))
    assert str(tmp_path) not in raised.value.detail
    reopened.close()
