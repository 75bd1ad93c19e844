"""`dubito backup`: a copy of everything that is kept, and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dubito import disk
from dubito.cli.commands.registry import print_report
from dubito.cli.console import output, progress
from dubito.errors import ConflictError
from dubito.models.opening import open_database, open_objects
from dubito.presence import server_of
from dubito.registry.backup import back_up
from dubito.registry.backup import restore as put_back
from dubito.registry.check import CheckReport
from dubito.settings import Settings

backup = typer.Typer(help="Back up all that is kept, and restore it.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="Folder of the backup.")]


@backup.command()
def create(folder: Folder) -> None:
    """Copy the database and its objects into a new folder, also while servers run.

    The folder is a data folder of its own. The exit code is 1 if something in it is not whole.
    """
    settings = Settings()
    database = open_database(settings)
    try:
        database.prepare()
        with progress("backing up"):
            report = back_up(database, open_objects(settings), folder)
    finally:
        database.close()
    _tell(report, f"backup in {folder}")


@backup.command()
def restore(folder: Folder) -> None:
    """Put a backup into the data folder of the settings, where there is no registry yet."""
    settings = Settings()
    url = server_of(settings.data_dir)
    if url is not None:
        raise ConflictError(
            f"expected no server on {settings.data_dir}, got one at {url}: stop it first"
        )
    database = open_database(settings)
    try:
        disk.make(settings.incoming_dir)
        with progress("restoring"):
            report = put_back(folder, database, open_objects(settings), settings.incoming_dir)
    finally:
        database.close()
    _tell(report, f"restored to {settings.data_dir}")


def _tell(report: CheckReport, done: str) -> None:
    print_report(report)
    if report.problems:
        raise typer.Exit(1)
    output().print(done, soft_wrap=True)
