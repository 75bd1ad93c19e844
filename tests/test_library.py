"""What the library does beside the routes: deletions that come between, memory given back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from dubito.errors import DamagedError, NotFoundError
from dubito.models.library import Library
from dubito.models.opening import open_database, open_objects
from dubito.registry import Registry, VersionFact
from dubito.settings import Settings

from .conftest import Bundles


@pytest.fixture
def registry(settings: Settings) -> Iterator[Registry]:
    settings.data_dir.mkdir()
    opened = Registry(open_database(settings), open_objects(settings))
    yield opened
    opened.close()


@pytest.fixture
def library(registry: Registry, settings: Settings) -> Iterator[Library]:
    made = Library(registry, settings)
    made.facts.start()
    yield made
    made.facts.close()


def _register(library: Library, bundles: Bundles, name: str) -> VersionFact:
    with library.incoming() as path:
        shutil.copyfile(bundles(name), path)
        return library.register("animals", path)


def test_a_version_that_was_deleted_before_it_was_loaded_is_not_found(
    library: Library, settings: Settings, bundles: Bundles
) -> None:
    _register(library, bundles, "first")
    version = _register(library, bundles, "second")
    other = Registry(open_database(settings), open_objects(settings))
    other.delete_version("animals", "2")
    other.close()
    with pytest.raises(NotFoundError):
        library.engine(version)


def test_an_object_that_is_missing_is_told_as_damage(
    library: Library, settings: Settings, bundles: Bundles
) -> None:
    version = _register(library, bundles, "first")
    shutil.rmtree(settings.objects_dir / "bundles")
    with pytest.raises(DamagedError, match="missing"):
        library.engine(version)


def test_what_is_changed_here_is_seen_at_once(
    library: Library, registry: Registry, bundles: Bundles
) -> None:
    _register(library, bundles, "first")
    _register(library, bundles, "second")
    assert library.version("animals").number == 1
    assert library.page("animals").calibration is None
    library.set_alias("animals", "default", 2)
    assert library.version("animals").number == 2
    library.set_alias("animals", "default", 1)
    registry.delete_version("animals", "2")
    with pytest.raises(NotFoundError):
        library.version("animals", "2")


def test_a_deleted_bundle_stays_loaded_where_another_version_has_it(
    library: Library, registry: Registry, bundles: Bundles
) -> None:
    for name in ("first", "second", "second"):
        version = _register(library, bundles, name)
    library.engine(version)
    registry.delete_version("animals", "2")
    assert library.catalogue.is_loaded(version.digest)
    registry.delete_version("animals", "3")
    assert not library.catalogue.is_loaded(version.digest)
