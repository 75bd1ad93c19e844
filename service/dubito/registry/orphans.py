"""Objects that no record names: dropped under the lock under which an upload puts them again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Exists, select

from dubito.errors import ConflictError, DubitoError, StorageFullError
from dubito.registry.database import Database
from dubito.registry.objects import Objects


def drop_unnamed(database: Database, objects: Objects, digest: str, naming: Exists) -> bool:
    """Delete an object if no record names it.

    Args:
        database: the records.
        objects: where the object lies.
        digest: of the object.
        naming: whether a record names it.

    Returns:
        Whether it is gone.
    """
    with database.writing() as session:
        if session.scalar(select(naming)):
            return False
        objects.delete(digest)
        return True


@contextmanager
def without_orphan(
    database: Database, objects: Objects, digest: str, naming: Exists
) -> Iterator[None]:
    """Drop an object whose record is written inside, and cannot be: the disk may be full of it.

    Args:
        database: as of `drop_unnamed`, like the others.
        objects: where the object lies.
        digest: of the object.
        naming: whether a record names it.
    """
    try:
        yield
    except (StorageFullError, ConflictError):
        with suppress(DubitoError):
            drop_unnamed(database, objects, digest, naming)
        raise
