"""What every command shares: consoles, a progress bar, one-line errors, the application."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from dubito.api.bodies import parse_json
from dubito.errors import DubitoError, InputError
from dubito.serving.application import Application
from dubito.serving.worker import Job
from dubito.settings import Settings

T = TypeVar("T")

_BEAT_S = 0.1


def output() -> Console:
    """Where answers go."""
    return Console(file=sys.stdout, highlight=False)


def messages() -> Console:
    """Where progress and errors go."""
    return Console(file=sys.stderr, highlight=False)


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Turn what a person can mend into one line on stderr and exit code 1."""
    try:
        yield
    except DubitoError as error:
        _fail(error.detail)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = "_".join(["DUBITO", *(str(part).upper() for part in first["loc"])])
        _fail(f"setting {name}: {first['msg']}")
    except OSError as error:
        _fail(f"{error.strerror or error}: {error.filename or ''}".rstrip(": "))
    except KeyboardInterrupt:
        _fail("interrupted")


def _fail(line: str) -> None:
    messages().print(f"[bold red]error:[/] {escape(' '.join(line.split()))}", soft_wrap=True)
    raise SystemExit(1)


@contextmanager
def application() -> Iterator[Application]:
    """The application on the data directory of the environment."""
    with Application(Settings()).running() as running:
        yield running


@contextmanager
def progress(title: str) -> Iterator[None]:
    """A bar that moves while something of unknown length is done."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = messages()
    is_shown = console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not is_shown) as bar:
        bar.add_task(title, total=None)
        yield


def local_actor() -> str:
    """Who runs the command, for the audit of the registry."""
    try:
        return f"local:{getpass.getuser()}"[:64]
    except (KeyError, OSError):  # a user without an entry, as in some containers
        return "local"


def finish(job: Job[T], title: str) -> T:
    """Wait for a job with a bar; Ctrl-C ends the job at its next pause."""
    try:
        with progress(title):
            while not wait([job.future], timeout=_BEAT_S).done:
                pass
        return job.future.result()
    finally:
        job.abandon()


def read_rows(path: Path) -> NDArray[np.generic] | dict[str, NDArray[np.generic]] | object:
    """Rows from a `.npy`, `.npz` or `.json` file.

    Raises:
        InputError: another suffix, or not what the suffix says.
    """
    match path.suffix:
        case ".npy" | ".npz":
            return read_arrays(path)
        case ".json":
            return _read_json(path)
        case suffix:
            raise InputError(
                f"{path}: expected a .npy, .npz or .json file, got {suffix or 'no suffix'}: "
                "save the rows with numpy.save or as JSON"
            )


def read_arrays(path: Path) -> NDArray[np.generic] | dict[str, NDArray[np.generic]]:
    """An array, or the named arrays, of a file written by numpy.

    Raises:
        InputError: the file is damaged or holds Python objects.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except (ValueError, EOFError) as error:
        raise InputError(
            f"{path}: expected arrays of numbers or text, got something else ({error}): "
            "write the file with numpy.save or numpy.savez"
        ) from error


def _read_json(path: Path) -> object:
    content = path.read_bytes()
    try:
        return parse_json(content) if content.lstrip().startswith(b"{") else json.loads(content)
    except InputError as error:
        raise InputError(f"{path}: {error.detail}") from error
    except ValueError as error:
        raise InputError(f"{path}: expected JSON, got something else: {error}") from error
