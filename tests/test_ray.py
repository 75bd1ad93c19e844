"""The command `dubito serve --ray` on a cluster of its own: the same application, by replicas.

It needs Ray (`pip install 'dubito[ray]'`); without it, it skips.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dubito.registry.check import check
from dubito.registry.database import Database
from dubito.registry.objects import Objects
from dubito.registry.objects.cache import BundleCache
from dubito.settings import Settings

from .conftest import Bundles, Server
from .http import ANIMALS, normals, upload
from .processes import environment
from .s3 import S3

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

SETTINGS = {
    "DUBITO_RAY_MIN_REPLICAS": "2",
    "DUBITO_RAY_MAX_REPLICAS": "2",
    "DUBITO_MAX_QUEUE_MS": "600000",
    "DUBITO_TRANSFER_TIMEOUT_MS": "1500",
    "RAY_ADDRESS": "local",
    "RAY_USAGE_STATS_ENABLED": "0",
}
BODY = {"inputs": normals(3).tolist(), "num_samples": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ray") / "data"


@contextmanager
def _serving(folder: Path, settings: Mapping[str, str]) -> Iterator[httpx.Client]:
    """A client of `dubito serve --ray` on a cluster of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dubito", "serve", "--ray", "--port", "0"],
        env=environment(folder, {**SETTINGS, **settings}),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    lines: list[str] = []
    found = None
    while found is None:
        lines.append(process.stderr.readline())
        assert lines[-1], "".join(lines)
        found = re.search(r"Dubito serves on (http://\S+),", lines[-1])
    drain = threading.Thread(target=process.stderr.read)
    drain.start()
    try:
        with httpx.Client(base_url=found[1], timeout=60) as client:
            yield client
    finally:
        process.terminate()
        process.wait(60)
        drain.join()
        process.stderr.close()


@pytest.fixture(scope="module")
def service(folder: Path, bundles: Bundles) -> Iterator[httpx.Client]:
    """A client of two replicas that have the model `animals`."""
    with _serving(folder, {}) as client:
        upload(client, "animals", bundles("first")).raise_for_status()
        yield client


def _answered(client: httpx.Client) -> Counter[str]:
    """Predictions that each replica answered."""
    text = client.get("/metrics").raise_for_status().text
    counts: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        if family.name == "dubito_http_requests":
            for sample in family.samples:
                if sample.labels["route"].endswith("/predict"):
                    counts[sample.labels["replica"]] += int(sample.value)
    return counts


def test_every_replica_answers_with_the_bytes_of_one_server(
    service: httpx.Client, folder: Path, serve: Callable[..., Server]
) -> None:
    replies = set()
    for _ in range(200):
        with httpx.Client(base_url=service.base_url, timeout=60) as client:
            replies.add(client.post(f"{ANIMALS}/predict", json=BODY).raise_for_status().content)
        if len(+_answered(service)) == 2:
            break
    assert len(+_answered(service)) == 2
    alone = serve(Settings(data_dir=folder, num_samples=16, max_queue_ms=600_000))
    replies.add(httpx.post(f"{alone.url}{ANIMALS}/predict", json=BODY, timeout=60).content)
    assert len(replies) == 1


def test_a_reply_has_one_id_which_is_the_callers_where_there_is_one(service: httpx.Client) -> None:
    reply = service.post(f"{ANIMALS}/predict", json=BODY, headers={"X-Request-Id": "mine"})
    assert reply.json()["request_id"] == "mine"
    assert reply.headers.get_list("X-Request-Id") == ["mine"]


def test_errors_headers_and_methods_are_those_of_one_server(service: httpx.Client) -> None:
    refused = service.post(f"{ANIMALS}/predict", json={"inputs": [[1.0]]})
    assert refused.status_code == 422
    assert refused.json()["detail"]
    assert refused.headers["X-Content-Type-Options"] == "nosniff"
    assert service.get("/v1/models/none").status_code == 404
    assert service.get("/health/ready").json()["ready"]
    assert service.get("/v2/health/ready").status_code == 200


def test_a_calibration_on_one_replica_holds_on_all_once_it_is_acknowledged(
    service: httpx.Client,
) -> None:
    rows, labels = normals(120, seed=1).tolist(), [n % 3 for n in range(120)]
    made = service.post(f"{ANIMALS}/calibrate", json={"inputs": rows, "labels": labels})
    assert made.status_code == 200, made.text
    seen = set()
    for _ in range(20):
        with httpx.Client(base_url=service.base_url, timeout=60) as client:
            seen.add(client.post(f"{ANIMALS}/predict", json=BODY).json()["calibration"])
    assert seen == {made.json()["calibration"]}


def _refused(folder: Path, address: str) -> str:
    """What `dubito serve --ray` says, once it ended with an error."""
    made = subprocess.run(
        [sys.executable, "-m", "dubito", "serve", "--ray", "--port", "0"],
        env=environment(folder, {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": address}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert made.returncode == 1, made.stderr
    return made.stderr


def test_a_command_that_names_no_cluster_replaces_no_service(
    service: httpx.Client, tmp_path: Path
) -> None:
    assert "serves Dubito already" in _refused(tmp_path / "data", "auto")
    assert service.post(f"{ANIMALS}/predict", json=BODY).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "nowhere.invalid", "what"])
def test_an_address_at_which_nothing_listens_is_refused(host: str, tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound, so nobody else listens there
        taken.bind(("127.0.0.1", 0))
        address = host if host == "what" else f"{host}:{taken.getsockname()[1]}"
        error = _refused(tmp_path / "data", address)
    assert "expected a Ray cluster at" in error
    assert "none that answers" in error


def test_no_request_fails_while_an_alias_moves(service: httpx.Client, bundles: Bundles) -> None:
    ended, statuses, versions = threading.Event(), Counter[int](), set()

    def ask() -> None:
        with httpx.Client(base_url=service.base_url, timeout=60) as client:
            while not ended.is_set():
                reply = client.post(f"{ANIMALS}/predict", json=BODY)
                statuses[reply.status_code] += 1
                versions.add(reply.json().get("version"))

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    version = upload(service, "animals", bundles("second")).raise_for_status().json()["version"]
    moved = service.put(f"{ANIMALS}/aliases/default", json={"version": version})
    assert moved.status_code == 200, moved.text
    until_s = time.monotonic() + 30
    while version not in versions and time.monotonic() < until_s:
        time.sleep(0.05)
    ended.set()
    for thread in asking:
        thread.join()
    assert set(statuses) == {200}
    assert version in versions


def test_a_body_that_pauses_is_ended_by_the_proxy(service: httpx.Client) -> None:
    url = httpx.URL(str(service.base_url))
    head = (
        f"POST {ANIMALS}/predict HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
        "Content-Length: 1000\r\n\r\n{"
    )
    with socket.create_connection((url.host, url.port or 80), timeout=30) as slow:
        slow.sendall(head.encode())
        assert slow.recv(4096).startswith(b"HTTP/1.1 408 ")


def test_a_head_that_is_too_large_is_refused_and_others_are_answered(
    service: httpx.Client,
) -> None:
    refused = service.get("/health/live", headers={"X-Long": "a" * 200_000})
    assert refused.status_code == 431
    assert "DUBITO_MAX_HEADER_BYTES" in refused.json()["detail"]
    assert service.post(f"{ANIMALS}/predict", json=BODY).status_code == 200


def test_a_pool_searched_by_workers_gives_the_choice_of_one_machine(
    service: httpx.Client, folder: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "rows.npy", normals(20_000, seed=5))
    command = [sys.executable, "-m", "dubito"]
    alone = environment(folder, {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": "local"})
    subprocess.run(
        [*command, "pool", "add", str(tmp_path / "rows.npy"), "--name", "rows"],
        env=alone,
        check=True,
        capture_output=True,
    )
    choices = []
    for strategy in ("bald", "batchbald"):
        asked = ["select", "animals", "--pool", "rows", "--strategy", strategy, "-k", "5", "--json"]
        asked += ["--candidates", "200"]
        for words in (asked, [*asked, "--ray"]):
            made = subprocess.run([*command, *words], env=alone, capture_output=True, text=True)
            assert made.returncode == 0, made.stderr
            choices.append(json.loads(made.stdout))
    assert choices[0] == choices[1]
    assert choices[2] == choices[3]


@pytest.mark.postgres
def test_models_lie_in_a_bucket_and_what_is_known_of_them_in_postgresql(
    postgres_url: str, s3: S3, tmp_path: Path, bundles: Bundles
) -> None:
    bucket = s3.bucket()
    settings = {
        "DUBITO_DATABASE_URL": postgres_url,
        "DUBITO_OBJECT_STORE_URL": f"s3://{bucket}/bundles",
        "DUBITO_OBJECT_STORE_ALLOW_HTTP": "true",
    }
    with _serving(tmp_path / "data", settings) as client:
        upload(client, "animals", bundles("first")).raise_for_status()
        labels = [n % 3 for n in range(120)]
        held_out = {"inputs": normals(120, seed=1).tolist(), "labels": labels}
        client.post(f"{ANIMALS}/calibrate", json=held_out).raise_for_status()
        seen = set()
        for seed in range(30):
            body = {"inputs": normals(1, seed).tolist()}
            reply = client.post(f"{ANIMALS}/predict", json=body).raise_for_status().json()
            seen.add((reply["version"], reply["calibration"]))
            truth = {"request_id": reply["request_id"], "rows": [{"row": 0, "label": 0}]}
            client.post(f"{ANIMALS}/feedback", json=truth).raise_for_status()
        assert len(+_answered(client)) == 2
        rows = client.get(f"{ANIMALS}/monitoring").raise_for_status().json()["outcomes"]["rows"]
    assert (seen, rows) == ({(1, 1)}, 30)
    assert not list((tmp_path / "data" / "objects").rglob("*.dubito"))
    database = Database(postgres_url)
    objects = Objects.open(
        settings["DUBITO_OBJECT_STORE_URL"],
        BundleCache(tmp_path / "cache", 10**9),
        allow_http=True,
    )
    report = check(database, objects)
    database.close()
    assert (report.num_versions, report.num_objects, report.problems) == (1, 1, ())
