"""Copies of the whole registry, made while servers run, and the way back.

    backup     the database as it is at one moment, the objects that it names; a data folder
    restore    the objects, then the database

What is cut short is no registry, since its database gets its name last.

A bundle that was deleted between the two is no longer named: then the database is copied again, and
the objects that it names since. Both end with a look at every record and object of the copy.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy.engine import URL

from dubito import disk
from dubito.errors import ConflictError, DubitoError, InputError, UnavailableError
from dubito.registry.check import CheckReport, check, named_objects
from dubito.registry.database import Database
from dubito.registry.objects import Objects

DATABASE = "dubito.sqlite3"
OBJECTS = "objects"
_TRIES = 20
_DUMP = "use pg_dump first and copy the bucket second, with the tools of your object store"
_PUT_BACK = (
    "restore a dump of pg_dump, the bucket first and pg_restore second; a backup of SQLite is "
    "moved there by `dubito register` of its bundles (docs/operation.md, From SQLite to PostgreSQL)"
)
_RETRY_AFTER_S = 1.0


def back_up(database: Database, objects: Objects, folder: Path) -> CheckReport:
    """Copy the registry into a folder, which is a data folder then; servers may go on.

    Args:
        database: SQLite.
        objects: of its bundles; pools, fits and results of jobs lie beside them.
        folder: that is made; it may be there and empty.

    Raises:
        InputError: the database is PostgreSQL.
        ConflictError: there is something in the folder.
        UnavailableError: so much is deleted meanwhile that no copy came out whole.
    """
    source = _file_of(database, "backup", _DUMP)
    _check_is_free(folder)
    disk.make(folder)
    half, copies = folder / f"{DATABASE}.half", Objects.local(folder / OBJECTS)
    for _ in range(_TRIES):
        _copy_database(source, half)
        if _copy_objects(half, objects, copies, folder):
            half.replace(folder / DATABASE)
            with _opened(folder / DATABASE) as copied:
                return check(copied, copies)
    raise UnavailableError(
        f"expected a moment in which nothing is deleted, got none in {_TRIES} tries: try again",
        retry_after_s=_RETRY_AFTER_S,
    )


def restore(folder: Path, database: Database, objects: Objects, incoming: Path) -> CheckReport:
    """Put a backup in the place of a registry that is not there yet.

    Args:
        folder: a backup.
        database: SQLite, which has no file yet.
        objects: where its bundles go.
        incoming: folder for what is on its way.

    Raises:
        InputError: the folder holds no backup, or the database is PostgreSQL.
        ConflictError: there is a registry already.
    """
    target, snapshot = _file_of(database, "restore", _PUT_BACK), folder / DATABASE
    if not snapshot.is_file():
        raise InputError(
            f"expected the folder of a backup, with `{DATABASE}`, got {folder}: name the one that "
            "`dubito backup create` made"
        )
    if target.exists():
        raise ConflictError(
            f"expected a data folder without a registry, got one with {target}: name another by "
            "DUBITO_DATA_DIR, or move it away"
        )
    if not _copy_objects(snapshot, Objects.local(folder / OBJECTS), objects, incoming):
        raise InputError(
            f"expected every object that the backup names, got {folder} without some: `DUBITO_"
            f"DATA_DIR={folder} dubito registry check` names them"
        )
    half = target.with_suffix(".half")
    _copy_database(snapshot, half)
    half.replace(target)
    return check(database, objects)


def _file_of(database: Database, action: str, tool: str) -> Path:
    """The file of an SQLite database."""
    path = database.engine.url.database
    if not database.is_sqlite or path is None:
        raise InputError(
            f"`{action}` expects SQLite, got PostgreSQL: {tool}, then `dubito registry check` with "
            "the settings of the copies tells whether database and bucket belong together"
        )
    return Path(path)


def _check_is_free(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConflictError(
            f"expected a new or an empty folder, got {folder} with something in it: name another"
        )


def _copy_database(source: Path, target: Path) -> None:
    """Write one consistent copy, in place of what is there."""
    target.unlink(missing_ok=True)
    disk.make_private(target)
    with disk.writing(target.parent):
        with closing(sqlite3.connect(source)) as reading, closing(sqlite3.connect(target)) as copy:
            reading.backup(copy)
        with target.open("rb") as file:
            os.fsync(file.fileno())


def _copy_objects(named_by: Path, source: Objects, target: Objects, folder: Path) -> bool:
    """Copy every object that a database names; false where one has been deleted meanwhile."""
    with _opened(named_by) as database:
        named = named_objects(database)
    fits = (source.beside("fits"), target.beside("fits"))
    kinds = [
        *((*fits, digest) for digest in named.fits),
        *((source, target, digest) for digest in named.bundles),
        *((source.beside("pools"), target.beside("pools"), digest) for digest in named.pools),
        *(
            (source.beside(f"jobs/{job}"), target.beside(f"jobs/{job}"), digest)
            for job, digest in named.results.items()
        ),
    ]
    for here, there, digest in kinds:
        if there.has(digest):
            continue
        try:
            _copy_object(digest, here, there, folder)
        except DubitoError:
            if here.has(digest):
                raise
            return False
    return True


def _copy_object(digest: str, source: Objects, target: Objects, folder: Path) -> None:
    with disk.incoming(folder) as path:
        with path.open("wb") as file:
            for piece in source.pieces(digest):
                file.write(piece)
        target.put(digest, path)


@contextmanager
def _opened(path: Path) -> Iterator[Database]:
    database = Database(URL.create("sqlite", database=str(path)))
    try:
        database.prepare()
        yield database
    finally:
        database.close()
