"""The command `dubito`: what the routes do, from the shell, on the same data directory.

    console.py     tables, progress, one-line errors
    bodies.py      files of rows, and whole requests beside options
    serve.py       serve
    demo.py        demo
    bring.py       export, import
    inspect.py     inspect
    bench.py       bench
    models.py      register, models, show
    lifecycle.py   alias, unalias, retire, restore, delete
    device.py      load, unload
    database.py    db upgrade, db current
    registry.py    registry check, registry audit
    pool.py        pool add, pool list, pool show, pool delete
    jobs.py        jobs, jobs show, jobs cancel, jobs result
    predict.py     predict
    calibrate.py   calibrate
    evaluate.py    evaluate
    labelled.py    labelled rows of a file, figures in a table
    monitor.py     monitor
    select.py      select
    train.py       train

A new command is a function in its own file and one line in `_commands` below. Every command works
through the application facade, as the routes do.
"""

from __future__ import annotations

import io
import sys

import typer

from dubito.cli.bench import bench
from dubito.cli.bring import export, import_
from dubito.cli.calibrate import calibrate
from dubito.cli.console import reporting_errors
from dubito.cli.database import database
from dubito.cli.demo import demo
from dubito.cli.device import load, unload
from dubito.cli.evaluate import evaluate
from dubito.cli.inspect import inspect
from dubito.cli.jobs import jobs
from dubito.cli.lifecycle import alias, delete, restore, retire, unalias
from dubito.cli.models import models, register, show
from dubito.cli.monitor import monitor
from dubito.cli.pool import pool
from dubito.cli.predict import predict
from dubito.cli.registry import registry
from dubito.cli.select import select
from dubito.cli.serve import serve
from dubito.cli.train import train

_commands = (
    *(serve, demo, train, export, import_, inspect, bench),
    *(register, models, show, predict, calibrate, evaluate, monitor, select),
    *(alias, unalias, retire, restore, delete, load, unload),
)
_groups = {"db": database, "registry": registry, "pool": pool, "jobs": jobs}


def make_app() -> typer.Typer:
    """The command with all its subcommands."""
    app = typer.Typer(
        name="dubito",
        help="Serve PyTorch networks trained with dropout, with their uncertainty.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for command in _commands:
        app.command(command.__name__.rstrip("_"))(command)
    for name, group in _groups.items():
        app.add_typer(group, name=name)
    return app


def main() -> None:
    """Run the command; an error is one line on stderr and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # of a terminal that lacks letters: ? for those
            stream.reconfigure(errors="replace")
    with reporting_errors():
        make_app()()
