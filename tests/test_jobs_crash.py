"""kill -9 in the middle of a job: the next server, or another one, ends it with the same bits.

The server that is killed stands still between two parts of the job (`holding`): nothing is raced.
"""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from dubito.cli import main
from dubito.registry.database import Database
from dubito.registry.jobs import JobStore

from .conftest import NUM_FEATURES, Bundles, with_tables
from .holding import holding_jobs
from .http import upload
from .processes import Forked, command, environment, serving
from .test_jobs import MODEL, finished, npy, send

pytestmark = pytest.mark.slow

SETTINGS = {
    "DUBITO_JOB_CHECKPOINT_MS": "1",
    "DUBITO_JOB_CHUNK_MS": "5",
    "DUBITO_JOB_LEASE_MS": "800",
    "DUBITO_POLL_MS": "50",
}
ROWS = np.random.default_rng(0).normal(size=(12_000, NUM_FEATURES)).astype(np.float32)
PREDICT = ("predict", {"pool": "pool", "num_samples": 128, "outputs": ["mean", "label"]})
FIT = ("fit", {"pool": "pool", "method": "laplace", "num_training_rows": 1000})
AGREE = ("fit", {"pool": "pool", "method": "agreement"})
SELECT = ("select", {"pool": "pool", "num_samples": 128, "strategy": "bald", "k": 50})


def _start(client: httpx.Client, asked: tuple[str, dict[str, object]]) -> str:
    reply = client.post(f"{MODEL}/{asked[0]}", json=asked[1])
    assert reply.status_code == 202, reply.text
    job: str = reply.json()["job"]
    return job


def _until_it_is_held(client: httpx.Client, job: str, *, is_whole: bool = False) -> int:
    """Rows that are done: those of the first part, which a fit reads whole."""
    done, total = 0, 1
    while not done:
        page = client.get(f"/v1/jobs/{job}").json()
        done, total = page["done"], page["total"]
        assert page["state"] in ("queued", "running")
    assert done < total or is_whole
    return done


def _but_for_times(content: bytes) -> dict[str, Any]:
    """An agreement without its number, and without the times of its ways."""
    result: dict[str, Any] = json.loads(content)
    for way in result["report"]["ways"]:
        del way["milliseconds"]
    return {key: value for key, value in result.items() if key != "fit"}


@pytest.mark.parametrize(
    "asked", [PREDICT, SELECT, FIT, AGREE], ids=["predict", "select", "fit", "agreement"]
)
def test_a_job_goes_on_after_kill_9_and_gives_the_same_bits(
    tmp_path: Path, bundles: Bundles, database_url: str, asked: tuple[str, dict[str, object]]
) -> None:
    settings = {**SETTINGS, "DUBITO_DATABASE_URL": database_url}
    data = tmp_path / "data"
    with (
        serving(data, settings, holds_jobs=True) as server,
        httpx.Client(base_url=server.url, timeout=120) as client,
    ):
        upload(client, "animals", bundles("first")).raise_for_status()
        send(client, npy(ROWS)).raise_for_status()
        job = _start(client, asked)
        done = _until_it_is_held(client, job, is_whole=asked is FIT)
    with (
        serving(data, settings) as server,
        httpx.Client(base_url=server.url, timeout=120) as client,
    ):
        page = finished(client, job)
        assert page["state"] == "succeeded", page
        again = _start(client, asked)
        assert finished(client, again)["state"] == "succeeded"
        interrupted, whole = (client.get(f"/v1/jobs/{one}/result").content for one in (job, again))
    if asked is FIT:  # which are numbered
        interrupted, whole = (one.replace(b'"fit":2', b'"fit":1') for one in (interrupted, whole))
        assert b'"fit":1' in whole
    if asked is AGREE:
        assert len(_but_for_times(whole)["report"]["ways"]) == 3
        assert _but_for_times(interrupted) == _but_for_times(whole)
        return
    assert interrupted == whole
    print(f"killed after {done} of {len(ROWS)} rows")


def _selected() -> None:
    asked = ("--pool", "pool", "--strategy", "bald", "-k", "50", "--num-samples", "128", "--json")
    sys.argv = ["dubito", "select", "animals", *asked]
    main()


def _held() -> None:
    with holding_jobs():
        _selected()


def test_a_selection_that_was_killed_in_the_shell_goes_on_where_it_stopped(
    tmp_path: Path, bundles: Bundles
) -> None:
    settings = environment(with_tables(tmp_path / "data"), SETTINGS)
    np.save(tmp_path / "rows.npy", ROWS)
    with command(tmp_path / "dubito"):
        for words in (
            ("register", str(bundles("first")), "--model", "animals"),
            ("pool", "add", str(tmp_path / "rows.npy"), "--name", "pool"),
        ):
            subprocess.run([str(tmp_path / "dubito"), *words], env=settings, check=True)
    database = Database(f"sqlite:///{tmp_path / 'data' / 'dubito.sqlite3'}")
    store = JobStore(database)
    held = Forked(_held, settings, 1)
    while not (jobs := store.all()) or not jobs[0].done:
        assert not held.ended(within_s=0.02)
    held.kill()
    held.written.close()
    replies = []
    for _ in range(2):
        again = Forked(_selected, settings, 1)
        with again.written as written:
            replies.append(written.read())
        assert again.ended(within_s=60)
    assert replies[0] == replies[1]
    assert len(json.loads(replies[0])["indices"]) == 50
    newer, older = store.all()
    assert (older.id, older.state, newer.state) == (jobs[0].id, "succeeded", "succeeded")
    database.close()


@pytest.mark.postgres
def test_another_server_takes_a_job_over(
    tmp_path: Path, bundles: Bundles, postgres_url: str
) -> None:
    settings = {
        **SETTINGS,
        "DUBITO_JOB_LEASE_MS": "5000",  # on a busy machine a beat may be late, not dead
        "DUBITO_DATABASE_URL": postgres_url,
        "DUBITO_OBJECT_STORE_URL": f"file://{tmp_path}/objects",
    }
    with (
        serving(tmp_path / "a", settings, holds_jobs=True) as first,
        serving(tmp_path / "b", settings, holds_jobs=True) as second,
        httpx.Client(base_url=first.url, timeout=120) as client,
        httpx.Client(base_url=second.url, timeout=120) as other,
    ):
        upload(client, "animals", bundles("first")).raise_for_status()
        send(client, npy(ROWS)).raise_for_status()
        job = _start(client, PREDICT)
        _until_it_is_held(client, job)
        servers = cycle([first, second])
        has_it = next(server for server in servers if server.tells(job, within_s=0.1))
        left = next(servers)
        assert not left.tells(job, within_s=0)
        has_it.kill()
        asks = {first: client, second: other}[left]
        page = finished(asks, job)
        assert page["state"] == "succeeded", page
        assert asks.get(f"/v1/jobs/{job}/result").status_code == 200
        assert left.tells(job, within_s=60)
