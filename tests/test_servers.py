"""Two server processes on one PostgreSQL and one S3 bucket."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from dubito.registry.check import check
from dubito.registry.database import Database
from dubito.registry.objects import Objects
from dubito.registry.objects.cache import BundleCache
from dubito.settings import Settings

from .conftest import CLASSES, NUM_FEATURES, Bundles
from .http import upload
from .processes import ServerProcess, serving
from .s3 import S3

pytestmark = [pytest.mark.slow, pytest.mark.postgres]

MODEL = "/v1/models/animals"
GOOD = {"inputs": [[0.1, 0.2, 0.3, 0.4]]}
SEEN_WITHIN_S = 2.0  # of which looking takes half at most; the rest is the machine's affair
PATIENCE_S = 60.0
NUM_UPLOADS = 60


class Pair:
    """Clients of two servers, what these write, and the registry that they share."""

    def __init__(
        self,
        clients: list[httpx.Client],
        servers: list[ServerProcess],
        url: str,
        database: Database,
        objects: Objects,
    ) -> None:
        self.first, self.second = clients
        self._servers = servers
        self.url = url
        self.database = database
        self.objects = objects

    @property
    def written(self) -> str:
        """What the servers have written so far."""
        return "".join(line for server in self._servers for line in server.lines)


@pytest.fixture
def pair(postgres_url: str, s3: S3, tmp_path: Path) -> Iterator[Pair]:
    bucket = s3.bucket()
    settings = {
        "DUBITO_DATABASE_URL": postgres_url,
        "DUBITO_OBJECT_STORE_URL": f"s3://{bucket}/bundles",
        "DUBITO_OBJECT_STORE_ALLOW_HTTP": "true",
    }
    database = Database(postgres_url)
    cache = BundleCache(tmp_path / "cache", 10**9)
    objects = Objects.open(settings["DUBITO_OBJECT_STORE_URL"], cache, allow_http=True)
    with ExitStack() as stack:
        stack.callback(database.close)
        servers = [stack.enter_context(serving(tmp_path / name, settings)) for name in "ab"]
        clients = [
            stack.enter_context(httpx.Client(base_url=server.url, timeout=120))
            for server in servers
        ]
        for client in clients:
            client.get("/health/ready").raise_for_status()
        yield Pair(clients, servers, postgres_url, database, objects)


def _seen_after_s(is_seen: Callable[[], bool]) -> float:
    """Seconds until it is; every look is a request."""
    began_s = time.monotonic()
    while not is_seen():
        assert time.monotonic() < began_s + PATIENCE_S
    return time.monotonic() - began_s


def test_servers_look_for_each_others_changes_often_enough() -> None:
    assert Settings.model_fields["poll_ms"].default <= 1000 * SEEN_WITHIN_S / 2


def test_servers_see_each_others_changes(pair: Pair, bundles: Bundles) -> None:
    first, second = pair.first, pair.second

    def answer() -> dict[str, object]:
        reply: dict[str, object] = second.post(f"{MODEL}/predict", json=GOOD).json()
        return reply

    took_s: dict[str, list[float]] = {"upload": [], "alias": [], "calibration": [], "retire": []}
    upload(first, "animals", bundles("first")).raise_for_status()
    took_s["upload"].append(_seen_after_s(lambda: second.get(MODEL).status_code == 200))
    assert answer()["version"] == 1  # the first prediction of a process is slow: not what is asked
    for number in range(2, 7):
        name = "second" if number % 2 == 0 else "first"
        upload(first, "animals", bundles(name)).raise_for_status()
        versions = f"{MODEL}/versions/{number}"
        took_s["upload"].append(
            _seen_after_s(lambda path=versions: second.get(path).status_code == 200)  # type: ignore[misc]
        )
        first.put(f"{MODEL}/aliases/default", json={"version": number}).raise_for_status()
        took_s["alias"].append(_seen_after_s(lambda n=number: answer().get("version") == n))  # type: ignore[misc]
    rows = np.random.default_rng(0).normal(size=(120, NUM_FEATURES)).tolist()
    labels = np.random.default_rng(1).integers(0, len(CLASSES), 120).tolist()
    for number in range(1, 4):
        body = {"inputs": rows, "labels": labels}
        first.post(f"{MODEL}/calibrate", json=body).raise_for_status()
        took_s["calibration"].append(
            _seen_after_s(lambda n=number: answer().get("calibration") == n)  # type: ignore[misc]
        )
    first.post(f"{MODEL}/versions/2/retire", json={"reason": "worse"}).raise_for_status()
    retired = f"{MODEL}/versions/2/predict"
    took_s["retire"].append(_seen_after_s(lambda: second.post(retired, json=GOOD).is_error))
    print({name: f"at most {max(times):.2f} s of {len(times)}" for name, times in took_s.items()})
    first.post(f"{MODEL}/predict", json=GOOD).raise_for_status()
    first.put(f"{MODEL}/aliases/spare", json={"version": 3}).raise_for_status()
    with _silent(pair.url):
        for server in (first, second):  # also the one that made the change
            reply = server.post(f"{MODEL}/predict", json=GOOD)
            assert (reply.status_code, reply.json().get("version")) == (200, 6), reply.text
            assert "dubito_ready 1.0" in server.get("/metrics").text
            moved = server.put(f"{MODEL}/aliases/default", json={"version": 1})
            assert moved.status_code == 503
    first.put(f"{MODEL}/aliases/default", json={"version": 5}).raise_for_status()
    _seen_after_s(lambda: answer().get("version") == 5)


@contextmanager
def _silent(url: str) -> Iterator[None]:
    """For the time of the block the database has no connections, and takes none."""
    import psycopg

    server, _, name = url.rpartition("/")
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
        connection.execute(ended.encode(), [name])
        yield
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())


def test_uploads_at_once_through_two_servers_get_a_number_each(
    pair: Pair, bundles: Bundles
) -> None:
    paths = bundles("first"), bundles("second")

    def send(place: int) -> int:
        client = (pair.first, pair.second)[place % 2]
        reply = upload(client, "animals", paths[place // 2 % 2])
        assert reply.status_code == 201, f"{reply.text}\n{pair.written}"
        number: int = reply.json()["version"]
        return number

    with ThreadPoolExecutor(32) as pool:
        numbers = list(pool.map(send, range(NUM_UPLOADS)))
    assert sorted(numbers) == list(range(1, NUM_UPLOADS + 1))
    page = pair.second.get(MODEL).json()
    assert [version["version"] for version in page["versions"]] == sorted(numbers)
    assert page["aliases"]["default"] == {"version": 1, "revision": 1}
    report = check(pair.database, pair.objects)
    assert (report.num_versions, report.num_objects) == (NUM_UPLOADS, 2)
    assert (report.problems, report.orphans) == ((), ())
