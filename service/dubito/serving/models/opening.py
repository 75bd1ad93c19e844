"""The registry that the settings name: database, object store and cache."""

from __future__ import annotations

from dubito.registry import Registry
from dubito.registry.cache import Cache
from dubito.registry.database import Database
from dubito.registry.objects import Objects
from dubito.settings import Settings


def open_registry(settings: Settings) -> Registry:
    """The registry of the settings.

    Raises:
        InputError: a URL that is not understood.
        UnavailableError: the database does not answer, or its tables are of another build.
    """
    return Registry(Database(settings.registry_url), open_objects(settings))


def open_objects(settings: Settings) -> Objects:
    """The object store of the settings.

    Raises:
        InputError: a URL that is not understood.
    """
    if settings.object_store_url is None:
        return Objects.local(settings.objects_dir)
    return Objects.open(
        settings.object_store_url,
        Cache(settings.cache_dir, settings.object_cache_bytes),
        allow_http=settings.object_store_allow_http,
    )
