"""Loaded engines: each once, within bounds, failures told, nothing kept of them."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Barrier, Event

import pytest

from dubito.engine import Engine
from dubito.errors import BundleRefusedError, UnavailableError
from dubito.models.catalogue import Catalogue
from dubito.models.memory import weight_bytes
from dubito.registry import VersionFact

from .conftest import Bundles

PLENTY = 2**30


def _version(digest: str, size_bytes: int = 1000) -> VersionFact:
    return VersionFact(
        model="animals",
        number=1,
        digest=digest,
        size_bytes=size_bytes,
        manifest={},
        defaults={},
        active_calibration=None,
        calibrations=(),
        aliases=(),
        created_at=datetime.now(UTC),
        uploader="anonymous",
        retired_at=None,
        retired_reason=None,
    )


def _catalogue(bundles: Bundles, max_loaded: int = 2, max_bytes: int = PLENTY) -> Catalogue:
    return Catalogue(lambda v: Engine.load(bundles(v.digest)), max_loaded, max_bytes)


def _loaded(catalogue: Catalogue, *digests: str) -> list[bool]:
    return [catalogue.is_loaded(digest) for digest in digests]


def test_threads_that_want_one_engine_at_once_share_one_load(bundles: Bundles) -> None:
    loads: list[str] = []
    barrier = Barrier(8)

    def load(version: VersionFact) -> Engine:
        loads.append(version.digest)
        return Engine.load(bundles(version.digest))

    catalogue = Catalogue(load, 2, PLENTY)

    def get(_: int) -> Engine:
        barrier.wait(30)
        return catalogue.get(_version("first"))

    with ThreadPoolExecutor(8) as pool:
        engines = set(map(id, pool.map(get, range(8))))
    assert len(engines) == 1
    assert loads == ["first"]


def test_a_load_that_fails_is_told_and_tried_again(bundles: Bundles) -> None:
    sources = [b"broken", bundles("first").read_bytes()]
    catalogue = Catalogue(lambda _: Engine.load(sources.pop(0)), 2, PLENTY)
    assert catalogue.state("first") == ("available", None)
    with pytest.raises(BundleRefusedError) as raised:
        catalogue.get(_version("first"))
    assert catalogue.state("first") == ("failed", raised.value.detail)
    assert catalogue.get(_version("first")).manifest.task == "classification"
    assert catalogue.state("first") == ("loaded", None)


def test_a_load_that_fails_half_way_keeps_nothing_alive(bundles: Bundles) -> None:
    half: list[weakref.ref[Engine]] = []

    def load(version: VersionFact) -> Engine:
        engine = Engine.load(bundles(version.digest))
        half.append(weakref.ref(engine))
        raise MemoryError("no room for the warm-up")

    catalogue = Catalogue(load, 2, PLENTY)
    with pytest.raises(UnavailableError, match="MemoryError") as raised:
        catalogue.get(_version("first"))
    assert raised.value.retry_after_s is not None
    gc.collect()
    assert half[0]() is None
    assert catalogue.loaded() == ()


def test_the_engine_that_was_not_used_for_longest_leaves(bundles: Bundles) -> None:
    catalogue = _catalogue(bundles)
    for name in ("first", "second", "first", "regression"):
        catalogue.get(_version(name))
    assert _loaded(catalogue, "first", "second", "regression") == [True, False, True]
    assert [version.digest for version in catalogue.loaded()] == ["first", "regression"]
    catalogue.drop("first")
    assert not catalogue.is_loaded("first")


def test_what_is_loaded_stays_within_the_budget_of_bytes(bundles: Bundles) -> None:
    size = weight_bytes(Engine.load(bundles("first")))
    catalogue = _catalogue(bundles, max_loaded=9, max_bytes=2 * size)
    for name in ("first", "second"):
        catalogue.get(_version(name, size))
    assert _loaded(catalogue, "first", "second") == [True, True]
    catalogue.get(_version("injected", size))
    assert _loaded(catalogue, "first", "second", "injected") == [False, True, True]
    with pytest.raises(UnavailableError, match="DUBITO_MAX_LOADED_BYTES"):
        catalogue.get(_version("regression", 2 * size + 1))


def test_an_engine_that_proves_larger_than_its_file_makes_others_leave(bundles: Bundles) -> None:
    size = weight_bytes(Engine.load(bundles("first")))
    catalogue = _catalogue(bundles, max_loaded=9, max_bytes=2 * size - 1)
    for name in ("first", "second"):
        catalogue.get(_version(name, size_bytes=1))
    assert _loaded(catalogue, "first", "second") == [False, True]


def test_what_is_pinned_never_leaves(bundles: Bundles) -> None:
    catalogue = _catalogue(bundles)
    catalogue.pin(["first"])
    for name in ("first", "second", "regression"):
        catalogue.get(_version(name))
    assert _loaded(catalogue, "first", "second", "regression") == [True, False, True]
    catalogue.pin(["first", "regression"])
    with pytest.raises(UnavailableError, match="pin less"):
        catalogue.get(_version("second"))
    assert catalogue.state("second") == ("available", None)


def test_who_finds_no_room_waits_for_what_is_loading_and_then_takes_its_place(
    bundles: Bundles,
) -> None:
    begun, may_end = Event(), Event()

    def load(version: VersionFact) -> Engine:
        if version.digest == "first":
            begun.set()
            assert may_end.wait(30)
        return Engine.load(bundles(version.digest))

    catalogue = Catalogue(load, 1, PLENTY)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(catalogue.get, _version("first"))
        assert begun.wait(30)
        assert catalogue.state("first") == ("loading", None)
        second = pool.submit(catalogue.get, _version("second"))
        may_end.set()
        assert first.result(30) is not second.result(30)
    assert _loaded(catalogue, "first", "second") == [False, True]
