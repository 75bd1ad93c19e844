"""Loaded engines: each once, failures forgotten, the least lately used leaves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from dubito.engine import Engine
from dubito.errors import BundleRefusedError
from dubito.serving.catalogue import Catalogue

from .conftest import Bundles


def test_threads_that_want_one_engine_at_once_share_one_load(bundles: Bundles) -> None:
    loads: list[str] = []
    barrier = Barrier(8)

    def load(digest: str) -> Engine:
        loads.append(digest)
        return Engine.load(bundles(digest))

    catalogue = Catalogue(load, max_loaded=2)

    def get(_: int) -> Engine:
        barrier.wait(30)
        return catalogue.get("first")

    with ThreadPoolExecutor(8) as pool:
        engines = set(map(id, pool.map(get, range(8))))
    assert len(engines) == 1
    assert loads == ["first"]


def test_a_load_that_fails_is_told_and_tried_again(bundles: Bundles) -> None:
    sources = [b"broken", bundles("first").read_bytes()]
    catalogue = Catalogue(lambda _: Engine.load(sources.pop(0)), max_loaded=2)
    with pytest.raises(BundleRefusedError):
        catalogue.get("first")
    assert not catalogue.is_loaded("first")
    assert catalogue.get("first").manifest.task == "classification"
    assert catalogue.is_loaded("first")


def test_the_engine_that_was_not_used_for_longest_leaves(bundles: Bundles) -> None:
    catalogue = Catalogue(lambda digest: Engine.load(bundles(digest)), max_loaded=2)
    for name in ("first", "second", "first", "regression"):
        catalogue.get(name)
    assert [catalogue.is_loaded(name) for name in ("first", "second", "regression")] == [
        True,
        False,
        True,
    ]
    catalogue.drop("first")
    assert not catalogue.is_loaded("first")
