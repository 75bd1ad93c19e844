"""`dubito registry`: whether it is whole, and who changed what."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from dubito.cli.console import kept, output, progress
from dubito.models.opening import open_database, open_objects
from dubito.registry.check import CheckReport
from dubito.registry.check import check as check_registry
from dubito.settings import Settings

registry = typer.Typer(
    help="Check the registry against its objects, and see who changed what.", no_args_is_help=True
)


@registry.command()
def check(
    fix: Annotated[bool, typer.Option("--fix", help="Remove orphans that are old enough.")] = False,
    older_than: Annotated[
        int,
        typer.Option(
            help="Minimum age of orphans in minutes. Younger ones may be uploads in progress.",
            min=0,
        ),
    ] = 60,
) -> None:
    """Check that every row's object exists and has its digest, and list objects no row refers to.

    The exit code is 1 if an object is missing or damaged.
    """
    settings = Settings()
    database = open_database(settings)
    try:
        database.prepare()
        with progress("checking"):
            report = check_registry(
                database, open_objects(settings), fix=fix, min_age_s=older_than * 60
            )
    finally:
        database.close()
    print_report(report)
    if report.problems:
        raise typer.Exit(1)


@registry.command()
def audit(
    model: Annotated[
        str | None, typer.Argument(help="Name of the model. Default: all models.")
    ] = None,
) -> None:
    """Show the last 1000 changes, newest first."""
    table = Table("when", "who", "what", "model", "version", "details")
    with kept() as known:
        for change in known.registry.audit(model):
            details = ", ".join(f"{name} {value}" for name, value in change.details.items())
            table.add_row(
                f"{change.at:%Y-%m-%d %H:%M:%S}",
                change.actor,
                change.action,
                change.model,
                "" if change.version is None else str(change.version),
                details,
            )
    output().print(table)


def print_report(report: CheckReport) -> None:
    """What a check found, a line each."""

    def line(text: str) -> None:
        output().print(text, soft_wrap=True)

    for problem in report.problems:
        line(f"problem: {problem}")
    for orphan in report.orphans:
        done = "removed" if orphan.is_removed else "not named by any version, pool or fit"
        size = f"{orphan.size_bytes} bytes, {orphan.age_s / 60:.0f} minutes old"
        line(f"orphan: {orphan.name} ({size}): {done}")
    line(
        f"{report.num_models} models, {report.num_versions} versions, {report.num_pools} pools,"
        f" {report.num_results} results of jobs, {report.num_objects} objects:"
        f" {len(report.problems) or 'no'} problems, {len(report.orphans) or 'no'} orphans"
    )
