"""Jobs over HTTP: from a stored pool to a result, on a real server."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from dubito.registry.database import Database
from dubito.registry.jobs import JobStore
from dubito.registry.pools import ACTIVE
from dubito.settings import Settings

from .conftest import CLASSES, NUM_FEATURES, Bundles, Server
from .holding import holding_jobs, holding_the_device
from .http import npy, upload

MODEL = "/v1/models/animals"
NUM_ROWS = 700


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A checkpoint after every block of few rows."""
    return Settings(
        data_dir=tmp_path / "data",
        num_samples=16,
        job_checkpoint_ms=1,
        job_chunk_ms=5,
        poll_ms=50,
    )


@pytest.fixture
def rows() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(NUM_ROWS, NUM_FEATURES)).astype(np.float32)


def send(
    client: httpx.Client, content: bytes, kind: str = "application/x-npy", name: str = "pool"
) -> httpx.Response:
    return client.post(
        "/v1/pools", params={"name": name}, content=content, headers={"Content-Type": kind}
    )


def events(client: httpx.Client, job: str) -> Iterator[tuple[str, dict[str, object]]]:
    """The events of a job until its end."""
    with client.stream("GET", f"/v1/jobs/{job}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        name = ""
        for line in stream.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))


def finished(client: httpx.Client, job: str) -> dict[str, object]:
    """The page of a job at its end."""
    name, page = list(events(client, job))[-1]
    assert name == "end"
    return page


def start(client: httpx.Client, **body: object) -> str:
    reply = client.post(f"{MODEL}/predict", json={"pool": "pool", **body})
    assert reply.status_code == 202, reply.text
    job: str = reply.json()["job"]
    assert reply.headers["location"] == f"/v1/jobs/{job}"
    return job


def arrays(client: httpx.Client, job: str) -> dict[str, NDArray[np.generic]]:
    reply = client.get(f"/v1/jobs/{job}/result")
    reply.raise_for_status()
    assert reply.headers["content-type"] == "application/x-npz"
    with np.load(io.BytesIO(reply.content), allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def test_a_pool_is_predicted_as_its_rows_are(
    ready: httpx.Client, rows: NDArray[np.float32]
) -> None:
    assert send(ready, npy(rows)).status_code == 201
    job = start(ready, num_samples=32, seed=5)
    told = list(events(ready, job))
    assert [name for name, _ in told[:-1]] == ["progress"] * (len(told) - 1)
    assert told[-1][1]["state"] == "succeeded"
    assert told[-1][1]["done"] == NUM_ROWS
    found = arrays(ready, job)
    inline = ready.post(
        f"{MODEL}/predict", json={"inputs": rows.tolist(), "num_samples": 32, "seed": 5}
    ).json()
    assert found["classes"].tolist() == list(CLASSES)
    assert {name for name in found if name not in ("reply", "classes")} == {
        name for name, column in inline["outputs"].items() if column is not None
    }
    assert found["label"].tolist() == inline["outputs"]["label"]
    for name in ("mean", "variance", "standard_error", "mutual_information"):
        np.testing.assert_allclose(found[name], inline["outputs"][name], rtol=1e-5, atol=1e-9)
    reply = json.loads(found["reply"].tobytes())
    del inline["outputs"], inline["request_id"]
    assert reply == inline


def choose(client: httpx.Client, **body: object) -> dict[str, object]:
    """What a selection from the stored pool answers."""
    reply = client.post(f"{MODEL}/select", json={"pool": "pool", **body})
    assert reply.status_code == 202, reply.text
    page = finished(client, reply.json()["job"])
    assert page["state"] == "succeeded", page
    found = client.get(f"/v1/jobs/{page['job']}/result")
    held = {"If-None-Match": f"W/{found.headers['ETag']}"}
    assert client.get(f"/v1/jobs/{page['job']}/result", headers=held).status_code == 304
    assert found.headers["content-type"] == "application/json"
    result: dict[str, object] = found.json()
    return result


@pytest.mark.parametrize(
    "asked",
    [
        {"strategy": "bald", "k": 9, "exclude": [3, 5]},
        {"strategy": "batchbald", "k": 4, "candidates": 60},
        {"strategy": "epig", "k": 5, "targets": [[0.1, 0.2, 0.3, 0.4], [1.0, 0.0, 0.0, 0.0]]},
        {"strategy": "random", "k": 3},
    ],
)
def test_rows_chosen_from_a_pool_are_those_chosen_from_its_rows(
    ready: httpx.Client, rows: NDArray[np.float32], asked: dict[str, object]
) -> None:
    send(ready, npy(rows))
    body = {"num_samples": 32, "seed": 5, **asked}
    inline = ready.post(f"{MODEL}/select", json={"inputs": rows.tolist(), **body}).json()
    found = choose(ready, **body)
    del inline["request_id"]
    np.testing.assert_allclose(found.pop("scores"), inline.pop("scores"), rtol=1e-5, atol=1e-9)
    assert found == inline


def test_a_job_keeps_the_version_that_its_alias_named_and_that_version_stays(
    ready: httpx.Client, rows: NDArray[np.float32], bundles: Bundles
) -> None:
    send(ready, npy(np.tile(rows, (10, 1))))
    with holding_jobs():
        job = start(ready, num_samples=128)
        upload(ready, "animals", bundles("second")).raise_for_status()
        ready.put(f"{MODEL}/aliases/default", json={"version": 2}).raise_for_status()
        refused = ready.delete(f"{MODEL}/versions/1")
        assert refused.status_code == 409
        assert job in refused.json()["detail"]
        assert ready.delete("/v1/pools/pool").status_code == 409
    assert finished(ready, job)["version"] == 1
    assert json.loads(arrays(ready, job)["reply"].tobytes())["version"] == 1
    assert ready.delete(f"{MODEL}/versions/1").status_code == 204
    assert ready.delete("/v1/pools/pool").status_code == 204
    assert ready.get("/v1/pools/pool").status_code == 404


def test_a_job_is_cancelled_once_and_leaves_nothing(
    ready: httpx.Client, rows: NDArray[np.float32], settings: Settings
) -> None:
    send(ready, npy(np.tile(rows, (10, 1))))
    with holding_jobs():
        job = start(ready, num_samples=128)
        for name, page in events(ready, job):
            if name == "progress" and page["done"]:
                break
        page = ready.delete(f"/v1/jobs/{job}").json()
    assert page["state"] == "cancelled"
    assert page["done"] < page["total"]
    assert finished(ready, job)["state"] == "cancelled"
    again = ready.delete(f"/v1/jobs/{job}")
    assert again.status_code == 409
    assert "is cancelled" in again.json()["detail"]
    assert ready.get(f"/v1/jobs/{job}/result").status_code == 409
    assert [one["state"] for one in ready.get("/v1/jobs").json()["jobs"]] == ["cancelled"]
    next_job = start(ready, num_samples=2, outputs=["mean"])  # behind it: the lane is free again
    assert finished(ready, next_job)["state"] == "succeeded"
    assert not list((settings.objects_dir / "jobs" / job).glob("*/*"))


def test_a_job_of_a_machine_that_computes_otherwise_begins_anew(
    ready: httpx.Client, rows: NDArray[np.float32], settings: Settings
) -> None:
    send(ready, npy(np.tile(rows, (10, 1))))
    database = Database(settings.registry_url)
    store = JobStore(database)
    with holding_jobs():
        job = start(ready, num_samples=128)
        while not (parts := store.parts(job)):
            assert store.get(job).state in ACTIVE
        while store.take(*store.active()[0], "another") is None:  # its server told of it just now
            pass
        plan = store.get(job).plan
        assert plan is not None
        assert store.restart(job, "another", {**plan, "arithmetic": {"torch": "of another kind"}})
        assert store.add_part(job, "another", parts[0], rate=None)
        assert store.release(job, "another")
    assert finished(ready, job)["state"] == "succeeded"
    database.close()
    again = start(ready, num_samples=128)
    assert finished(ready, again)["state"] == "succeeded"
    found, whole = (ready.get(f"/v1/jobs/{one}/result").content for one in (job, again))
    assert found == whole


def test_requests_are_answered_while_a_job_runs(
    ready: httpx.Client, rows: NDArray[np.float32]
) -> None:
    send(ready, npy(rows))
    with holding_the_device() as stands:
        job = start(ready)
        assert stands.wait(60)
        for _ in range(5):
            reply = ready.post(f"{MODEL}/predict", json={"inputs": rows[:2].tolist()})
            assert reply.status_code == 200
            assert ready.get(f"/v1/jobs/{job}").json()["state"] == "running"
    assert finished(ready, job)["state"] == "succeeded"


def test_what_no_job_can_do_is_refused_when_it_is_asked(
    ready: httpx.Client, rows: NDArray[np.float32]
) -> None:
    send(ready, npy(rows[:, :3]), name="narrow")
    send(ready, npy(rows), name="pool")
    good = {"pool": "pool"}
    for body, status, words in (
        ({"pool": "narrow"}, 422, r"pool `narrow`: input .* expects rows of shape \(4,\)"),
        ({"pool": "none"}, 404, "no pool 'none'"),
        ({"pool": "pool", "inputs": rows[:1].tolist()}, 422, "got both"),
        ({}, 422, "inputs"),
        (good | {"outputs": ["samples"]}, 422, "leave it out"),
        (good | {"num_samples": 10**6}, 422, "at most"),
        (good | {"format": "csv"}, 422, "format"),
        (good | {"strategy": "bald"}, 422, "unknown field"),
    ):
        reply = ready.post(f"{MODEL}/predict", json=body)
        assert reply.status_code == status, reply.text
        assert re.search(words, reply.json()["detail"]), reply.text
    body = {**good, "strategy": "bald", "k": NUM_ROWS + 1}
    assert ready.post(f"{MODEL}/select", json=body).status_code == 422
    for path in ("/v1/jobs/job-none", "/v1/jobs/job-none/events", "/v1/jobs/job-none/result"):
        assert ready.get(path).status_code == 404
    assert ready.get("/v1/jobs").json() == {"jobs": []}


def test_a_result_is_written_as_parquet_too(ready: httpx.Client, rows: NDArray[np.float32]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    send(ready, npy(rows))
    found = arrays(ready, _ended(ready, start(ready)))
    reply = ready.get(f"/v1/jobs/{_ended(ready, start(ready, format='parquet'))}/result")
    table = parquet.read_table(io.BytesIO(reply.content))
    assert table.column_names == [name for name in found if name not in ("reply", "classes")]
    assert json.loads(table.schema.metadata[b"classes"]) == list(CLASSES)
    np.testing.assert_allclose(np.array(table["mean"].to_pylist()), found["mean"], rtol=1e-5)
    assert table["label"].to_pylist() == found["label"].tolist()
    assert json.loads(table.schema.metadata[b"dubito"])["model"] == "animals"


def _ended(client: httpx.Client, job: str) -> str:
    assert finished(client, job)["state"] == "succeeded"
    return job


def test_a_stream_of_events_ends_with_the_server_and_not_with_its_job(
    serve: Callable[[Settings], Server],
    settings: Settings,
    bundles: Bundles,
    rows: NDArray[np.float32],
) -> None:
    server = serve(settings)
    with (
        holding_jobs() as is_open,
        ThreadPoolExecutor(1) as pool,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        upload(client, "animals", bundles("first")).raise_for_status()
        send(client, npy(np.tile(rows, (10, 1)))).raise_for_status()
        told = events(client, start(client, num_samples=128))
        next(told)
        stopping = pool.submit(server.stop)
        stopping.add_done_callback(lambda _: is_open.set())  # where the server waits for the job
        assert "end" not in [name for name, _ in told]
        is_open.set()
        stopping.result()
