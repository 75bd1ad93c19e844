"""`dubito jobs`: long work, and the bar that follows it."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

from dubito.cli.console import application, kept, local_caller, messages, output
from dubito.errors import DubitoError
from dubito.registry import JobFact

if TYPE_CHECKING:
    from dubito.application import Application
    from dubito.jobs.scan import Searchers

jobs = typer.Typer(help="Long work on stored pools.", invoke_without_command=True)

Id = Annotated[str, typer.Argument(help="Id of the job.")]
_LOOK_S = 0.1


@jobs.callback()
def list_(context: typer.Context) -> None:
    """Show the last 1000 jobs, newest first."""
    if context.invoked_subcommand is not None:
        return
    whole = Column("job", no_wrap=True)  # other commands take it
    table = Table(whole, "kind", "model", "version", "pool", "state", "done", "rows/s")
    with kept() as known:
        for fact in known.jobs.all():
            share = f"{100 * fact.done / max(1, fact.total):.0f} %"
            rate = "" if fact.rate is None else f"{fact.rate:.0f}"
            table.add_row(
                *(fact.id, fact.kind, fact.model, str(fact.version)),
                *(fact.pool, fact.state, share, rate),
            )
    output().print(table)


@jobs.command()
def show(job: Id) -> None:
    """Show one job."""
    with kept() as known:
        fact = known.jobs.get(job)
    output().print(
        f"{fact.id}: {fact.kind} of pool {fact.pool} with version {fact.version} of {fact.model} "
        f"is {fact.state}, {fact.done} of {fact.total} rows",
        soft_wrap=True,
    )
    for line in (*([] if fact.reason is None else [f"reason: {fact.reason}"]), *fact.warnings):
        output().print(line, soft_wrap=True)


@jobs.command()
def cancel(job: Id) -> None:
    """Cancel a job that is queued or running."""
    with application() as running:
        running.jobs.cancel(job, local_caller())
    output().print(f"{job} is cancelled")


@jobs.command()
def result(
    job: Id,
    out: Annotated[
        Path | None, typer.Option(help="File to write. Default: standard output.")
    ] = None,
) -> None:
    """Write the result of a job that succeeded."""
    with application() as running:
        write_result(running, job, out)


def write_result(running: Application, job: str, out: Path | None) -> None:
    """Write the result of a job to a file, or to standard output."""
    _, pieces = running.jobs.result(job)
    if out is None:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        return
    with running.pools.incoming() as path:
        with path.open("wb") as file:
            for piece in pieces:
                file.write(piece)
        shutil.copyfile(path, out)
    messages().print(f"written to {out}")


def follow(running: Application, fact: JobFact, searchers: Searchers | None = None) -> JobFact:
    """Run a job here, or watch the server that took it, with a bar until its end.

    Ctrl-C cancels the job.

    Args:
        running: the application.
        fact: the job.
        searchers: who searches in the place of this process's device.

    Raises:
        DubitoError: it failed or was cancelled.
    """
    running.runner.start(only=fact.id, searchers=searchers)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    console = messages()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(f"{fact.kind} {fact.pool}", total=fact.total, rate="")
        try:
            while not fact.is_finished:
                time.sleep(_LOOK_S)
                fact = running.jobs.get(fact.id)
                rate = "" if fact.rate is None else f"{fact.rate:.0f} rows/s"
                bar.update(task, completed=fact.done, rate=rate)
        except KeyboardInterrupt:
            running.jobs.cancel(fact.id, local_caller())
            raise
    if fact.state != "succeeded":
        raise DubitoError(f"job {fact.id} {fact.state}: {fact.reason or 'somebody cancelled it'}")
    for warning in fact.warnings:
        messages().print(f"warning: {warning}")
    return fact
