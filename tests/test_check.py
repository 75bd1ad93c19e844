"""`registry check`: what is whole is clean, what is not is named, orphans go when they are old."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from dubito.registry import ColumnFact, Registry
from dubito.registry.check import check
from dubito.registry.database import Database
from dubito.registry.jobs import JobStore, NewJob, new_id
from dubito.registry.objects import Objects
from dubito.registry.objects.cache import BundleCache
from dubito.registry.pools import NewPool, PoolStore

from .conftest import Bundles
from .s3 import S3

ORPHAN = b"nobody names me"
DIGEST = hashlib.sha256(ORPHAN).hexdigest()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    yield opened
    opened.close()


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects.local(tmp_path / "objects")


@pytest.fixture
def registry(database: Database, objects: Objects, bundles: Bundles) -> Registry:
    """Two versions, one calibrated."""
    made = Registry(database, objects)
    made.register("digits", bundles("first"))
    made.register("digits", bundles("second"))
    made.add_calibration("digits", "1", {})
    return made


@pytest.mark.usefixtures("registry")
def test_a_whole_registry_is_clean(database: Database, objects: Objects) -> None:
    report = check(database, objects)
    assert (report.num_models, report.num_versions, report.num_objects) == (1, 2, 2)
    assert report.problems == ()
    assert report.orphans == ()


def test_a_missing_and_a_damaged_object_are_named(
    registry: Registry, database: Database, objects: Objects, tmp_path: Path
) -> None:
    first, second = (registry.version("digits", number).digest for number in "12")
    (path,) = (tmp_path / "objects").rglob(f"{first}.dubito")
    path.unlink()
    (path,) = (tmp_path / "objects").rglob(f"{second}.dubito")
    path.write_bytes(b"rubbish")
    report = check(database, objects)
    rubbish = hashlib.sha256(b"rubbish").hexdigest()
    assert len(report.problems) == 2
    assert f"object {first}" in report.problems[0]
    assert "got none" in report.problems[0]
    assert f"one of digest {rubbish}" in report.problems[1]


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE models SET next_version = 2", "expected a next number above 2, got 2"),
        ("DELETE FROM aliases", "expected the alias `default`"),
        ("UPDATE versions SET active_calibration = 3", "calibration 3 is active and not there"),
        ("UPDATE calibrations SET number = 2", "without gaps"),
        ("UPDATE versions SET retired_at = created_at", "a version that is retired"),
        (
            "INSERT INTO models (id, name, next_version, created_at)"
            " VALUES (9, 'empty', 1, '2026-01-01')",
            "expected versions, got none",
        ),
    ],
)
def test_rows_that_contradict_each_other_are_named(
    database: Database, objects: Objects, statement: str, told: str
) -> None:
    with database.engine.begin() as connection:
        connection.execute(text(statement))
    assert any(told in problem for problem in check(database, objects).problems)


@pytest.mark.usefixtures("registry")
def test_orphans_are_listed_and_only_old_ones_are_removed(
    database: Database, objects: Objects, tmp_path: Path
) -> None:
    objects.put(DIGEST, ORPHAN)
    half = tmp_path / "objects" / "bundles" / DIGEST[:2] / f"{DIGEST}.dubito#1"
    half.write_bytes(b"half")
    for fix in (False, True):
        report = check(database, objects, fix=fix)
        assert [orphan.name for orphan in report.orphans] == [DIGEST, half.name]
        assert not any(orphan.is_removed for orphan in report.orphans)
    for path in (half, half.with_name(f"{DIGEST}.dubito")):
        os.utime(path, (0, 0))
    report = check(database, objects, fix=True)
    assert [orphan.is_removed for orphan in report.orphans] == [True, True]
    report = check(database, objects)
    assert (report.orphans, report.problems, report.num_objects) == ((), (), 2)


def test_objects_of_a_bucket_are_checked_past_the_cache(
    s3: S3, bundles: Bundles, tmp_path: Path
) -> None:
    bucket = s3.bucket()
    objects = Objects.open(
        f"s3://{bucket}", BundleCache(tmp_path / "cache", 10**9), allow_http=True
    )
    database = Database(f"sqlite:///{tmp_path / 'registry.sqlite3'}")
    registry = Registry(database, objects)
    digest = registry.register("digits", bundles("first")).digest
    objects.put(DIGEST, ORPHAN)
    registry.bundle(digest)
    report = check(database, objects, fix=True, min_age_s=0)
    assert report.problems == ()
    assert [(orphan.name, orphan.is_removed) for orphan in report.orphans] == [(DIGEST, True)]
    s3.delete(f"{bucket}/bundles/{digest[:2]}/{digest}.dubito")
    assert registry.bundle(digest) == bundles("first").read_bytes()
    assert len(check(database, objects).problems) == 1
    registry.close()


@pytest.mark.usefixtures("registry")
def test_pools_and_results_of_jobs_are_looked_at(
    database: Database, objects: Objects, tmp_path: Path
) -> None:
    rows, unnamed = tmp_path / "rows.npy", tmp_path / "unnamed.npy"
    rows.write_bytes(b"rows")
    unnamed.write_bytes(ORPHAN)
    digest = hashlib.sha256(b"rows").hexdigest()
    column = ColumnFact("inputs", "<f4", (4,))
    pool = PoolStore(database, objects).add(NewPool("wild", digest, "npy", 1, (column,)), rows)
    objects.beside("pools").put(DIGEST, unnamed)
    jobs = JobStore(database)
    job = jobs.add(NewJob(new_id(), "predict", "digits", 1, [1], pool, {}), most=1)
    assert jobs.take(*jobs.active()[0], "me") is not None
    assert jobs.succeed(job.id, "me", {"digest": digest}, ())
    report = check(database, objects)
    assert (report.num_pools, report.num_results, report.num_objects) == (1, 1, 4)
    assert [one.name for one in report.orphans] == [DIGEST]
    assert report.problems == (f"object {digest}: expected the result of {job.id}, got none",)
    objects.beside(f"jobs/{job.id}").put(digest, rows)
    assert check(database, objects).problems == ()
    objects.beside("pools").delete(digest)
    [problem] = check(database, objects, fix=True, min_age_s=0).problems
    assert problem == f"object {digest}: expected pool `wild` of 4 bytes, got none"
    assert check(database, objects).orphans == ()
