"""`dubito db`: the revision of the registry's tables, and the way to the newest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from dubito.cli.console import output
from dubito.models.opening import open_database
from dubito.registry.database import Database
from dubito.settings import Settings

database = typer.Typer(
    help="Inspect the tables of the registry, and upgrade them to the revision of this build.",
    no_args_is_help=True,
)


@database.command()
def upgrade() -> None:
    """Upgrade the tables of the registry to the revision that this build needs."""
    with _opened() as opened:
        before = opened.schema_state().current
        opened.upgrade()
        after = opened.schema_state().current
        shown = opened.shown_url
    done = f"is at {after}" if before == after else f"from {before or 'no tables'} to {after}"
    output().print(f"{shown}: {done}", soft_wrap=True)


@database.command()
def current() -> None:
    """Show the revision of the tables, and the revision that this build needs."""
    with _opened() as opened:
        state = opened.schema_state()
        shown = opened.shown_url
    note = "" if state.is_newest else ": run `dubito db upgrade`" * state.is_known
    output().print(
        f"{shown}: {state.current or 'no tables'}, this build needs {state.newest}{note}",
        soft_wrap=True,
    )


def prepare_database(settings: Settings) -> None:
    """Make sure that the tables are those of this build.

    Raises:
        UnavailableError: they are older or newer, or the database does not answer.
    """
    with _opened(settings) as opened:
        opened.prepare()


@contextmanager
def _opened(settings: Settings | None = None) -> Iterator[Database]:
    opened = open_database(Settings() if settings is None else settings)
    try:
        yield opened
    finally:
        opened.close()
