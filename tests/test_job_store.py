"""Jobs in the database: who has one, who may write, and what is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dubito.errors import ConflictError, NotFoundError, QueueFullError
from dubito.registry import ColumnFact, JobFact, PartFact, PoolFact, Registry
from dubito.registry.database import Database
from dubito.registry.jobs import JobStore, NewJob, new_id
from dubito.registry.objects import Objects
from dubito.registry.pools import NewPool, PoolStore

from .conftest import Bundles


@pytest.fixture
def store(database_url: str, tmp_path: Path, bundles: Bundles) -> Iterator[JobStore]:
    """On a database with one model and one pool."""
    database = Database(database_url)
    objects = Objects.local(tmp_path / "objects")
    Registry(database, objects).register("animals", bundles("first"))
    (tmp_path / "file").write_bytes(b"rows")
    column = ColumnFact("inputs", "<f4", (4,))
    pool = NewPool("pool", "d" * 64, "npy", 100, (column,))
    PoolStore(database, objects).add(pool, tmp_path / "file")
    yield JobStore(database)
    database.close()


def _pool(name: str = "pool") -> PoolFact:
    return PoolFact(name, "d" * 64, 4, "npy", 100, (), None, "me", datetime.now(UTC))


def _add(store: JobStore, pool: str = "pool", version: int = 1, most: int = 10) -> JobFact:
    job = NewJob(new_id(), "predict", "animals", version, [version], _pool(pool), {"a": 1})
    return store.add(job, most=most)


def _take(store: JobStore, owner: str) -> JobFact | None:
    (found,) = store.active()
    return store.take(*found, owner)


def test_one_of_two_gets_a_job(store: JobStore) -> None:
    job = _add(store)
    seen = store.active()
    assert seen == ((job.id, "queued", 0),)
    taken = store.take(*seen[0], "first")
    assert taken is not None
    assert (taken.state, taken.owner, taken.attempts) == ("running", "first", 1)
    assert taken.started_at is not None
    assert store.take(*seen[0], "second") is None


def test_who_has_lost_a_job_writes_nothing_of_it(store: JobStore) -> None:
    job = _add(store).id
    assert _take(store, "first") is not None
    assert store.restart(job, "first", {"block_rows": 7})
    assert store.add_part(job, "first", PartFact(0, 40, "a" * 64), rate=2.5, warnings=("w",))
    assert _take(store, "second") is not None  # the first one was silent for too long
    for written in (
        store.beat(job, "first"),
        store.add_part(job, "first", PartFact(40, 80, "b" * 64), rate=None),
        store.restart(job, "first", {}),
        store.succeed(job, "first", {}, ()),
        store.fail(job, "first", "why"),
        store.release(job, "first"),
    ):
        assert not written
    fact = store.get(job)
    assert (fact.done, fact.plan, fact.warnings) == (40, {"block_rows": 7}, ("w",))
    assert store.parts(job) == (PartFact(0, 40, "a" * 64),)
    assert store.succeed(job, "second", {"digest": "c"}, ("w",))
    assert store.get(job).state == "succeeded"
    assert store.parts(job) == ()


def test_a_beat_tells_that_a_server_lives(store: JobStore) -> None:
    job = _add(store).id
    assert _take(store, "first") is not None
    seen = store.active()
    assert store.beat(job, "first")
    assert store.take(*seen[0], "second") is None


def test_a_released_job_waits_again_and_was_no_try(store: JobStore) -> None:
    job = _add(store).id
    for _ in range(3):
        assert _take(store, "first") is not None
        assert store.release(job, "first")
    assert (store.get(job).attempts, store.get(job).state) == (0, "queued")
    assert _take(store, "first") is not None
    assert store.release(job, "first", counts=True)
    assert store.get(job).attempts == 1


def test_a_finished_job_is_not_cancelled_and_is_forgotten_later(store: JobStore) -> None:
    job = _add(store).id
    assert _take(store, "first") is not None
    assert store.add_part(job, "first", PartFact(0, 40, "a" * 64), rate=None)
    assert store.cancel(job).state == "cancelled"
    assert not store.beat(job, "first")
    with pytest.raises(ConflictError, match="is cancelled"):
        store.cancel(job)
    now = datetime.now(UTC)
    assert store.expired(now - timedelta(hours=1)) == ()
    assert store.expired(now + timedelta(hours=1)) == (job,)
    store.remove([job])
    with pytest.raises(NotFoundError):
        store.get(job)


def test_a_job_needs_what_is_there_and_a_place(store: JobStore) -> None:
    with pytest.raises(NotFoundError, match="no pool"):
        _add(store, pool="none")
    with pytest.raises(NotFoundError, match="no version"):
        _add(store, version=2)
    _add(store, most=1)
    with pytest.raises(QueueFullError, match="at most 1 jobs"):
        _add(store, most=1)
