"""The command `dubito`: what the routes do, from the shell, on the same data directory.

    console.py     tables, progress, one-line errors
    serve.py       serve
    demo.py        demo
    inspect.py     inspect
    bench.py       bench
    models.py      models, register
    predict.py     predict
    calibrate.py   calibrate
    train.py       train

A new command is a function in its own file and one line in `_commands` below. Every command works
through the application facade, as the routes do.
"""

from __future__ import annotations

import typer

from dubito.cli.bench import bench
from dubito.cli.calibrate import calibrate
from dubito.cli.console import reporting_errors
from dubito.cli.demo import demo
from dubito.cli.inspect import inspect
from dubito.cli.models import alias, models, register
from dubito.cli.predict import predict
from dubito.cli.serve import serve
from dubito.cli.train import train

_commands = (serve, demo, train, inspect, bench, register, alias, predict, calibrate, models)


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
        app.command()(command)
    return app


def main() -> None:
    """Run the command; an error is one line on stderr and exit code 1."""
    with reporting_errors():
        make_app()()
