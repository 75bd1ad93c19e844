"""What every command shares: consoles, a progress bar, one-line errors, the application."""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from dubito.arrays import Arrays, DamagedArrayError, load
from dubito.cli.pictures import is_pictures, read_pictures
from dubito.cli.tables import SUFFIXES, lines_of, read_table
from dubito.errors import DubitoError, InputError
from dubito.problems import read_problems

if TYPE_CHECKING:  # what imports torch is imported when it is needed: help shall come at once
    from dubito.application import Application
    from dubito.keys import Caller
    from dubito.pools import Shelf
    from dubito.registry import Registry
    from dubito.registry.jobs import JobStore
    from dubito.registry.keys import KeyStore
    from dubito.serving.worker import Job
    from dubito.settings import Settings

T = TypeVar("T")

_BEAT_S = 0.1
_SMALL_CALL = 4096  # rows x samples, which a timing itself runs several times
_COMMANDS = (
    (re.compile(r"GET /v1/models/\S+ lists its"), "`dubito models` lists its"),
    (re.compile("GET /v1/models lists"), "`dubito models` lists"),
    (re.compile("GET /v1/jobs lists"), "`dubito jobs` lists"),
    (re.compile("GET /v1/pools lists"), "`dubito pool list` lists"),
)
"""What stands in the shell for a route that an error names."""

STANDARD_INPUT = Path("-")
_WIDEST = 100_000  # characters of a line that nobody sees on a screen


def output() -> Console:
    """Return the console that answers go to."""
    return _console(sys.stdout)


def messages() -> Console:
    """Return the console that progress and errors go to."""
    return _console(sys.stderr)


def _console(file: TextIO) -> Console:
    """A console of plain text; in a pipe or a file lines are as long as they are, uncut."""
    width = None if file.isatty() else _WIDEST
    return Console(file=file, highlight=False, markup=False, width=width)


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Turn what a person can mend into one line on stderr and exit code 1."""
    try:
        yield
    except DubitoError as error:
        _fail(str(error))
    except ValidationError as error:
        path, message = read_problems(error.errors())[0]
        _fail(f"setting DUBITO_{path.replace('.', '_').upper()}: {message}")
    except OSError as error:
        _fail(f"{error.strerror or error}: {error.filename or ''}".rstrip(": "))
    except KeyboardInterrupt:
        _fail("interrupted")


def _fail(line: str) -> None:
    for route, command in _COMMANDS:
        line = route.sub(command, line)
    tell("error", " ".join(line.split()), "bold red")
    raise SystemExit(1)


def tell(head: str, line: str, style: str = "bold") -> None:
    """A line on stderr, with a word in front of it that says what it is."""
    messages().print(Text.assemble((f"{head}:", style), " ", line), soft_wrap=True)


def warn_of_unknown(settings: Settings) -> None:
    """Tell of each variable of the environment that is a misspelt setting, if any."""
    from dubito.settings.unknown import unknown_settings

    for line in unknown_settings(os.environ, type(settings).model_fields):
        tell("warning", line)


@contextmanager
def application(call: int | None = None) -> Iterator[Application]:
    """The application on the data directory of the environment.

    Args:
        call: rows x samples of the one call that is made of a network, for which nothing is warmed
            up, nor timed or compiled where the call is too small to gain by it; None: other work.
    """
    from dubito.application import Application
    from dubito.engine.summing.compiled import left_out
    from dubito.settings import Settings

    settings = Settings()
    warn_of_unknown(settings)
    is_small = call is not None and call <= _SMALL_CALL
    if call is not None:
        unmeasured = {"timing_limit_ms": 0} if is_small else {}
        settings = settings.model_copy(update={"warm_up_rows": (), **unmeasured})
    with left_out() if is_small else nullcontext(), Application(settings).running() as running:
        yield running


@dataclass(frozen=True)
class Kept:
    """What is kept in the data directory, for commands that run no network and import no torch.

    Args:
        registry: of models and versions.
        pools: of rows.
        jobs: that are known.
        keys: that were made.
    """

    registry: Registry
    pools: Shelf
    jobs: JobStore
    keys: KeyStore


@contextmanager
def kept() -> Iterator[Kept]:
    """The registry, the pools, the jobs and the keys of the data directory of the environment."""
    from dubito.models.opening import open_database, open_objects
    from dubito.pools import Shelf
    from dubito.registry import Registry
    from dubito.registry.jobs import JobStore
    from dubito.registry.keys import KeyStore
    from dubito.registry.pools import PoolStore
    from dubito.settings import Settings

    settings = Settings()
    warn_of_unknown(settings)
    database, objects = open_database(settings), open_objects(settings)
    registry = Registry(database, objects)
    try:
        pools = Shelf(PoolStore(database, objects), settings)
        yield Kept(registry, pools, JobStore(database), KeyStore(database))
    finally:
        registry.close()


@contextmanager
def progress(title: str) -> Iterator[None]:
    """A bar that moves while something of unknown length is done."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
    )
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


def local_caller() -> Caller:
    """Who runs the command, and may do everything."""
    from dubito.keys import Caller, KeyScope

    return Caller(local_actor(), KeyScope.ADMIN)


def finish(job: Job[T], title: str) -> T:
    """Wait for a job with a bar; Ctrl-C ends the job at its next pause."""
    try:
        with progress(title):
            while not wait([job.future], timeout=_BEAT_S).done:
                pass
        return job.future.result()
    finally:
        job.abandon()


def read_rows(path: Path) -> NDArray[np.generic] | Arrays | object:
    """Rows from a `.npy`, `.npz` or `.json` file, a table, images, or lines of text from `-`.

    Raises:
        InputError: another suffix, or not what the suffix says.
    """
    if path == STANDARD_INPUT:
        return lines_of(sys.stdin.buffer.read())
    match path.suffix:
        case ".npy" | ".npz":
            return read_arrays(path)
        case ".json":
            return _read_json(path)
        case suffix if suffix in SUFFIXES:
            return read_table(path)
        case _ if is_pictures(path):
            return read_pictures([path])
        case suffix:
            raise InputError(
                f"{path}: expected a .npy, .npz or .json file, got {suffix or 'no suffix'}: "
                f"save the rows with numpy.save or as JSON, or as a table ({', '.join(SUFFIXES)}); "
                "images are .png, .jpg, .webp or .tif, in a folder, .zip or .tar if there are many"
            )


def read_arrays(path: Path) -> NDArray[np.generic] | Arrays:
    """An array, or the named arrays, of a file written by numpy.

    Raises:
        InputError: the file is damaged or holds Python objects.
    """
    with path.open("rb") as file:
        if not file.read(6).startswith((b"\x93NUMPY", b"PK")):
            raise InputError(
                f"{path}: expected a .npy or .npz file, got something else: write the arrays with "
                "numpy.save or numpy.savez"
            )
        file.seek(0)
        try:
            return load(file)
        except DamagedArrayError as error:
            where = f"{path}" if error.name is None else f"{path}: `{error.name}`"
            is_object = "Python objects" in str(error)
            got = (
                "Python objects, such as pandas' text" if is_object else f"something else ({error})"
            )
            remedy = "convert it by .astype(str)" if is_object else "write it with numpy.savez"
            raise InputError(f"{where}: expected numbers or text, got {got}: {remedy}") from error


def _read_json(path: Path) -> object:
    from dubito.api.border.bodies import parse_json
    from dubito_nn.strict_json import unique

    content = path.read_bytes()
    try:
        is_object = content.lstrip().startswith(b"{")
        return parse_json(content) if is_object else json.loads(content, object_pairs_hook=unique)
    except InputError as error:
        raise InputError(f"{path}: {error.detail}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected JSON, got something else: {error}") from error
