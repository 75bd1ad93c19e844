"""The registry that the settings name: database, object store and cache."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import make_url

from dubito import disk
from dubito.errors import InputError
from dubito.registry.database import Database
from dubito.registry.keys import KeyStore
from dubito.registry.objects import Objects
from dubito.registry.objects.cache import BundleCache
from dubito.settings import Settings


def open_database(settings: Settings) -> Database:
    """The database of the settings; the data folder is made where it is missing.

    Raises:
        InputError: a URL that is not understood, or a registry that lies elsewhere.
        DubitoError: the data folder may not be written.
    """
    disk.make(settings.data_dir)
    if settings.database_url is None:
        _refuse_misplaced(settings)
    return Database(settings.registry_url)


def has_keys(settings: Settings) -> bool:
    """Whether the database has a key that is not revoked; nothing is made where there is none.

    Raises:
        UnavailableError: the database does not answer.
    """
    if settings.database_url is None and not (settings.data_dir / "dubito.sqlite3").exists():
        return False
    database = open_database(settings)
    try:
        is_usable = database.schema_state().is_newest
        return is_usable and any(key.revoked_at is None for key in KeyStore(database).all())
    finally:
        database.close()


def _refuse_misplaced(settings: Settings) -> None:
    """Refuse a folder whose registry an earlier build wrote to a neighbour.

    It read the path as a part of a URL, in which %20 is a space and ? ends a file's name.
    """
    path = settings.data_dir / "dubito.sqlite3"
    earlier = Path(make_url(f"sqlite:///{path}").database or "")
    was_used = settings.incoming_dir.exists() and not path.exists()
    if was_used and earlier != path and earlier.is_file():
        raise InputError(
            f"data folder: expected its registry at {path.absolute()}, got none, but an earlier "
            f"build wrote one to {earlier.absolute()}: copy it there, with the files -wal and -shm "
            "beside it"
        )


def open_objects(settings: Settings) -> Objects:
    """The object store of the settings.

    Raises:
        InputError: a URL that is not understood.
    """
    if settings.object_store_url is None:
        return Objects.local(settings.objects_dir)
    return Objects.open(
        settings.object_store_url,
        BundleCache(settings.cache_dir, settings.object_cache_bytes),
        allow_http=settings.object_store_allow_http,
    )
