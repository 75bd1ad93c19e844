"""The command `dubito`: what the routes do, from the shell, on the same data directory.

    commands/      one file for every command, or for a few of one kind
    console.py     tables, progress, one-line errors
    bodies.py      files of rows, and whole requests beside options
    options.py     options made of the fields of a request
    running.py     predictions of the server that runs
    answers.py     predictions as a table
    tables.py      files of tables, and of answers beside them
    pictures.py    files, folders and archives of images
    labelled.py    labelled rows of a file, figures in a table

A new command is a function in its own file there and one line in `_MODULES` below. Every command
works with the parts of the application, as the routes do. A command's file is imported when it is
called.
"""

from __future__ import annotations

import ast
import io
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from dubito import __version__
from dubito.cli.console import reporting_errors

_MODULES = {
    "serve": "serve",
    "demo": "demo",
    "train": "train",
    "export": "imports",
    "import": "imports",
    "examine": "examine",
    "inspect": "inspect",
    "bench": "bench",
    "register": "models",
    "models": "models",
    "show": "models",
    "predict": "predict",
    "calibrate": "calibrate",
    "evaluate": "evaluate",
    "fit": "fit",
    "monitor": "monitor",
    "select": "select",
    "alias": "lifecycle",
    "unalias": "lifecycle",
    "retire": "lifecycle",
    "restore": "lifecycle",
    "delete": "lifecycle",
    "load": "device",
    "unload": "device",
    "db": "database",
    "registry": "registry",
    "backup": "backup",
    "keys": "keys",
    "pool": "pool",
    "jobs": "jobs",
}
"""Where each command is, in the order of the help."""

_COMMANDS = Path(__file__).parent / "commands"
_FUNCTIONS = {"import": "import_", "db": "database"}


def make_app(only: str | None = None, *, is_help: bool = False) -> typer.Typer:
    """The command with its subcommands.

    Args:
        only: the one that is called; None: all.
        is_help: whether the commands are listed and none is called, so that none is imported.
    """
    app = typer.Typer(
        name="dubito",
        help="Serve PyTorch networks trained with dropout, with their uncertainty.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        callback=_version,  # a callback, so that one command alone keeps its name
    )
    for name in (only,) if only else _MODULES:
        command = _described(name) if is_help else _imported(name)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def _tell_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"dubito {__version__}")
        raise typer.Exit


def _version(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", is_eager=True, callback=_tell_version),
    ] = False,
) -> None: ...


def main() -> None:
    """Run the command; an error is one line on stderr and exit code 1."""
    prepared()()


def prepared() -> Callable[[], None]:
    """The command that is asked for, imported, as a function that runs it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # of a terminal that lacks letters: ? for those
            with suppress(OSError, ValueError):  # closed, or not what it was when it was opened
                stream.reconfigure(errors="replace")
    called = sys.argv[1] if len(sys.argv) > 1 and sys.argv[1] in _MODULES else None
    app = make_app(called, is_help=called is None)

    def run() -> None:
        with reporting_errors():
            app()

    return run


def _imported(name: str) -> Callable[..., None] | typer.Typer:
    """A command, or several of one kind."""
    module = import_module(f"dubito.cli.commands.{_MODULES[name]}")
    command: Callable[..., None] | typer.Typer = getattr(module, _FUNCTIONS.get(name, name))
    return command


def _described(name: str) -> Callable[[], None]:
    """Return a stand-in for a command in the help, with its docstring or `help` from its file."""
    source = (_COMMANDS / f"{_MODULES[name]}.py").read_text(encoding="utf-8")
    function = _FUNCTIONS.get(name, name)

    def stand_in() -> None: ...

    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            stand_in.__doc__ = ast.get_docstring(node)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == function:
            assert isinstance(node.value, ast.Call)
            texts = {keyword.arg: keyword.value for keyword in node.value.keywords}
            stand_in.__doc__ = ast.literal_eval(texts["help"])
    return stand_in
