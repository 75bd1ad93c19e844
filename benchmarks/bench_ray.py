"""A Ray cluster of two nodes on this machine: what it costs, and what happens when parts die.

    python benchmarks/bench_ray.py [--seconds 10] [--json FILE]      # needs 'dubito[ray]'

Two nodes of two cores each on paper (`ray.cluster_utils`), one head, SQLite, the proxy of the head.
The perceptron and the requests are those of bench_overload.py, one row each, T = 50, one thread.

* Overhead: one client, one request after the other, of one server and of one replica.
* Throughput: 16 clients that wait, of one server, of one replica and of two.
* Failures: 4 clients ask all the time; after 5 s the process of a replica is killed, after it is
  whole again the node that is not the head, with all its processes, in a cluster whose head looks
  every second. Every reply is compared with what one server said; whole again means that two
  replicas run and five answers in a row came.
* Rolling change: the same clients, while the service is deployed once more with another setting.
* Slow clients: headers that come a byte a second, a head of many bytes, a body that pauses.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import torch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "service"), str(ROOT / "models")]
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:3])

import ray  # noqa: E402
from benchmarks.open_loop import Load, requests_of  # noqa: E402
from benchmarks.served import Served, _bundle, perceptron_server  # noqa: E402
from ray import serve  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from dubito.bench.machine import describe_machine  # noqa: E402
from dubito.cluster.deploying import NAME, deployed  # noqa: E402
from dubito.registry.database import Database  # noqa: E402
from dubito.settings import Settings  # noqa: E402

SAMPLES, ASKING, WAITING = 50, 4, 16
NODE = {"num_cpus": 2, "object_store_memory": 200 * 2**20}
GCS = {"health_check_period_ms": 1000}  # as RAY_health_check_period_ms of `ray start --head`
WHOLE_WITHIN_S = 60.0
PREDICT = "/v1/models/mlp/predict"
JSON = {"Content-Type": "application/json"}


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        result = _measured(Path(name), options)
    result["machine"] = asdict(describe_machine(torch.device("cpu"))) | {"load": os.getloadavg()}
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each rate; 0: none")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _measured(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    result: dict[str, object] = {}
    (folder / "alone").mkdir()
    with perceptron_server(folder / "alone", ROOT) as server:
        result["one_server"] = _rates(server.url, options.seconds)
        expected = [
            httpx.post(server.url + PREDICT, content=body, headers=JSON).json()
            for body in _bodies()
        ]
    with _cluster() as cluster:
        settings = settings_in(folder, max_queue_ms=600_000)
        with deployed(settings, cluster.address) as service:
            _upload(service.url, folder)
            result["one_replica"] = _rates(service.url, options.seconds)
        port = int(service.url.rpartition(":")[2])
        two = settings.model_copy(update={"ray_min_replicas": 2, "port": port})
        with deployed(two, cluster.address):
            _until(lambda: len(_replicas()) == 2)
            result["two_replicas"] = _rates(service.url, options.seconds)
            print(result, flush=True)
            with _asking(service.url, expected) as asked:
                result["replica_killed"] = _failed(asked, lambda: os.kill(_replicas()[0], 9))
            again = two.model_copy(update={"max_queue_ms": 500_000})
            before = set(_replicas())
            with _asking(service.url, expected) as asked, deployed(again, cluster.address):
                _until(lambda: not before & set(_replicas()) and len(_replicas()) == 2)
                result["changed"] = asked.told()
            print(result, flush=True)
            _until(lambda: len(_replicas()) == 2)
            cluster.add_node(num_cpus=2)  # room for what the lost node had
            with _asking(service.url, expected) as asked:
                node = _with_a_replica(cluster)
                kill = lambda: cluster.remove_node(node, allow_graceful=False)  # noqa: E731
                noticed = _noticing()
                result["node_killed"] = _failed(asked, kill) | {"noticed_s": noticed()}
            print(result, flush=True)
            result["slow"] = _slow(service.url)
        serve.shutdown()
    return result


def settings_in(folder: Path, max_queue_ms: int) -> Settings:
    """Those of up to two replicas on a data folder with its tables."""
    settings = Settings(
        data_dir=folder / "data",
        max_queue_ms=max_queue_ms,
        ray_entrances="head",
        ray_max_replicas=2,
        port=0,
    )
    settings.data_dir.mkdir()
    database = Database(settings.registry_url)
    database.prepare()
    database.close()
    return settings


@contextmanager
def _cluster() -> Iterator[Cluster]:
    head = NODE | {"include_dashboard": False, "_system_config": GCS}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(**NODE)
    ray.init(address=cluster.address, namespace="dubito", log_to_driver=False)
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def _upload(url: str, folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bundle = _bundle(folder / "mlp.dubito")
    octets = {"Content-Type": "application/octet-stream"}
    path = f"{url}/v1/models/mlp/versions"
    httpx.post(path, content=bundle, headers=octets, timeout=600).raise_for_status()


def _bodies() -> list[bytes]:
    return [request.partition(b"\r\n\r\n")[2] for request in requests_of(SAMPLES)[:16]]


def _rates(url: str, seconds: float) -> dict[str, float]:
    if not seconds:
        return {}

    async def measured() -> dict[str, float]:
        load = Load(Served(url, os.getpid()), requests_of(SAMPLES))
        await load.closed(WAITING, 3.0)
        alone = await load.closed(1, seconds)
        return {"one_client_ms": 1000 / alone, "per_s": await load.closed(WAITING, seconds)}

    return asyncio.run(measured())


def _replicas() -> list[int]:
    """Process ids of the replicas that run, as they name themselves."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes().startswith(f"ray::ServeReplica:{NAME}:".encode()):
                found.append(int(path.parent.name))
    return found


def _with_a_replica(cluster: Cluster) -> Any:
    """A node beside the head that has a replica: its raylet is the replica's parent."""
    status = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2] for pid in _replicas()]
    parents = {int(text.split()[1]) for text in status}
    for node in cluster.worker_nodes:
        if parents & {one.process.pid for one in node.all_processes["raylet"]}:
            return node
    raise RuntimeError("no node beside the head has a replica: run it again")


def _noticing() -> Callable[[], float]:
    """What tells, in the end, the seconds from now until the cluster has a node less."""
    count, seconds = _alive(), []

    def watch() -> None:
        seconds.append(_until(lambda: _alive() < count))

    thread = threading.Thread(target=watch)
    thread.start()

    def told() -> float:
        thread.join()
        return seconds[0]

    return told


def _alive() -> int:
    return sum(node["Alive"] for node in ray.nodes())


def _until(condition: Callable[[], bool]) -> float:
    """Seconds until a condition holds; nan where it does not."""
    began_s = time.monotonic()
    while time.monotonic() < began_s + WHOLE_WITHIN_S:
        if condition():
            return time.monotonic() - began_s
        time.sleep(0.2)
    return float("nan")


@dataclass
class Asking:
    """What clients got."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: int = 0
    in_a_row: int = 0
    longest_s: float = 0.0

    def told(self) -> dict[str, object]:
        return {
            "statuses": dict(self.statuses),
            "wrong": self.wrong,
            "longest_s": self.longest_s,
        }


@contextmanager
def _asking(url: str, expected: list[dict[str, object]]) -> Iterator[Asking]:
    """Clients that ask for the time of the block; 0: the connection broke."""
    asked, ended, bodies = Asking(), threading.Event(), _bodies()

    def ask(number: int) -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            while not ended.is_set():
                number = (number + 1) % len(bodies)
                began_s = time.monotonic()
                try:
                    reply = client.post(PREDICT, content=bodies[number], headers=JSON)
                    status = reply.status_code
                except httpx.HTTPError:
                    status = 0
                asked.statuses[status] += 1
                asked.longest_s = max(asked.longest_s, time.monotonic() - began_s)
                asked.in_a_row = asked.in_a_row + 1 if status == 200 else 0
                if status == 200 and not _agrees(reply.json(), expected[number]):
                    asked.wrong += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(ASKING)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(5.0)
        yield asked
    finally:
        time.sleep(3.0)
        ended.set()
        for thread in threads:
            thread.join()


def _agrees(reply: dict[str, object], expected: dict[str, object]) -> bool:
    """Whether a reply says what one server said; joined rows agree to rounding."""
    return all(
        abs(a - b) < 1e-6
        for a, b in zip(reply["outputs"]["mean"][0], expected["outputs"]["mean"][0], strict=True)  # type: ignore[index]
    )


def _failed(asked: Asking, fail: Callable[[], object]) -> dict[str, object]:
    before = set(_replicas())
    fail()
    asked.in_a_row = 0

    def is_whole() -> bool:
        now = set(_replicas())
        return len(now) == 2 and now != before and asked.in_a_row >= 5

    return {"whole_again_s": _until(is_whole)} | asked.told()


def _slow(url: str) -> dict[str, object]:
    """How long slow and large heads, and slow bodies, are borne."""
    host, port = httpx.URL(url).host, httpx.URL(url).port
    start = b"GET /health/live HTTP/1.1\r\nHost: here\r\n"

    def borne(first: bytes, drip: bytes, seconds: float) -> dict[str, object]:
        with socket.create_connection((host, port), timeout=0.2) as client:
            client.sendall(first)
            began_s = time.monotonic()
            while time.monotonic() < began_s + seconds:
                try:
                    got = client.recv(64)
                    return {"answered": got[:12].decode(), "after_s": time.monotonic() - began_s}
                except TimeoutError:
                    time.sleep(0.8)
                    if drip:
                        client.sendall(drip)
            return {"answered": None, "after_s": seconds}

    head = f"POST {PREDICT} HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
    post = f"{head}Content-Length: 9999\r\n\r\n".encode()
    large = start + b"".join(b"X-%d: %b\r\n" % (n, b"y" * 1000) for n in range(500)) + b"\r\n"
    asked = {
        "head, a byte a second for 45 s": (start, b"X", 45.0),
        "no head for 45 s": (b"", b"", 45.0),
        "head of 500 kB": (large, b"", 10.0),
        "body that pauses": (post + b"{", b"", 60.0),
        "body, a byte a second for 45 s": (post + b"{", b" ", 45.0),
    }
    with ThreadPoolExecutor(len(asked)) as clients:
        borne_by = {name: clients.submit(borne, *words) for name, words in asked.items()}
        return {name: client.result() for name, client in borne_by.items()}


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
