"""What of a cluster needs no Ray: that it is asked for, the policy, metrics of several replicas."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from dubito.acquisition import Acquisition, ArrayPool, Search
from dubito.api import create_app
from dubito.cluster.autoscaling import wanted
from dubito.cluster.frame import merged
from dubito.cluster.headers import NO_ID
from dubito.cluster.peer import Peer
from dubito.cluster.proxying import middlewares
from dubito.engine import Engine, Sampling
from dubito.settings import Settings

from .conftest import Bundles, with_tables
from .http import ANIMALS, normals, upload
from .shell import run_command

without_ray = pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")


@pytest.fixture(autouse=True)
def _data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUBITO_DATA_DIR", str(tmp_path / "data"))


@without_ray
@pytest.mark.parametrize(
    "words",
    [
        ("serve", "--ray"),
        ("serve", "--ray", "127.0.0.1:6379"),
        ("select", "digits", "--pool", "rows", "--strategy", "entropy", "-k", "1", "--ray"),
    ],
)
def test_without_the_extra_a_command_says_how_to_get_it(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = run_command(capsys, monkeypatch, *words)
    assert code == 1
    assert "pip install 'dubito[ray]'" in err


def test_an_address_without_ray_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = run_command(capsys, monkeypatch, "serve", "127.0.0.1:6379")
    assert code == 1
    assert "write --ray ADDRESS" in err


def test_fewer_replicas_at_most_than_at_least_are_refused() -> None:
    assert Settings(ray_min_replicas=2, ray_max_replicas=2).ray_max_replicas == 2
    with pytest.raises(ValueError, match="expected at least ray_min_replicas, which is 2, got 1"):
        Settings(ray_min_replicas=2, ray_max_replicas=1)


def test_what_serves_on_one_machine_imports_no_ray() -> None:
    code = (
        "import sys; import dubito.api.factory;"
        "import dubito.cli.commands.serve, dubito.cli.commands.select;"
        "print([name for name in sys.modules if name.partition('.')[0] == 'ray'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("busy", "ahead_s", "replicas"),
    [
        ([0.0], [0.0], 1),
        ([0.7], [0.0], 1),
        ([0.71], [0.0], 2),
        ([1.0, 1.0], [2.0, 2.0], 9),
        ([0.2] * 10, [0.0] * 10, 3),
        ([], [], 1),
    ],
)
def test_replicas_follow_what_is_done_and_what_waits(
    busy: list[float], ahead_s: list[float], replicas: int
) -> None:
    assert wanted(busy, ahead_s, utilisation=0.7, drain_s=1.0) == replicas


def test_metrics_of_several_replicas_are_one_page_that_names_each() -> None:
    pages = {
        name: (
            "# HELP dubito_ready Whether the server is ready.\n# TYPE dubito_ready gauge\n"
            f"dubito_ready {ready}\n"
            "# HELP dubito_http_requests_total Requests.\n"
            "# TYPE dubito_http_requests_total counter\n"
            f'dubito_http_requests_total{{route="/v1/models/{{model}}/predict",status="200"}} {n}\n'
        ).encode()
        for name, ready, n in (("a", 1.0, 3.0), ("b", 0.0, 5.0))
    }
    families = {
        family.name: family for family in text_string_to_metric_families(merged(pages).decode())
    }
    ready = {one.labels["replica"]: one.value for one in families["dubito_ready"].samples}
    counted = {
        (one.labels["replica"], one.labels["route"]): one.value
        for one in families["dubito_http_requests"].samples
    }
    assert ready == {"a": 1.0, "b": 0.0}
    route = "/v1/models/{model}/predict"
    assert counted == {("a", route): 3.0, ("b", route): 5.0}


@pytest.fixture
def replicas(settings: Settings) -> Iterator[list[httpx.Client]]:
    """Clients of two replicas in one process, which look for changes of others once an hour.

    They begin before the model is there that they pin.
    """
    quick = {"timing_limit_ms": 0, "warm_up_rows": ()}
    rare = settings.model_copy(
        update={"poll_ms": 3_600_000, "pinned_models": ("animals",), **quick}
    )
    with_tables(rare.data_dir)
    peers: list[Peer] = []

    async def ask(method: str, within_s: float, *words: object) -> Sequence[object]:
        return [await getattr(peer, method)(*words) for peer in peers]

    peers += [Peer(create_app(rare), name, ask) for name in ("a", "b")]
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in peers]
    servers = [uvicorn.Server(uvicorn.Config(peer.frame, log_level="critical")) for peer in peers]

    async def serve() -> None:
        pairs = zip(servers, sockets, strict=True)
        await asyncio.gather(*(server.serve(sockets=[one]) for server, one in pairs))

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    urls = [f"http://127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    with ExitStack() as stack:
        yield [stack.enter_context(httpx.Client(base_url=url, timeout=60)) for url in urls]
    for server in servers:
        server.should_exit = True
    thread.join(30)
    for one in sockets:
        one.close()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server as Serve makes it in a proxy, with what Dubito has it do."""
    monkeypatch.setenv("DUBITO_HEADER_TIMEOUT_MS", "300")
    monkeypatch.setenv("DUBITO_MAX_HEADERS", "50")
    monkeypatch.setenv("DUBITO_TRANSFER_TIMEOUT_MS", "300")
    monkeypatch.setitem(uvicorn.config.HTTP_PROTOCOLS, "auto", "as it was")
    (frame,) = middlewares()

    async def answers(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        await PlainTextResponse("fine")(scope, receive, send)

    app = frame.cls(answers, *frame.args, **frame.kwargs)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join(30)


_GET = b"GET /v1/models HTTP/1.1\r\nHost: here\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (_GET + b"X: " + b"a" * 10**6 + b"\r\n\r\n", 431),
        (_GET + b"X: a\r\n" * 60 + b"\r\n", 431),
        (_GET + b"X-Slow: a", 408),
        (b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\n\r\n{", 408),
        (b"NONSENSE\r\n\r\n", 400),
        (_GET + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (_GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 200),
    ],
)
def test_a_proxy_bounds_its_connections_as_a_server_does(
    sent: bytes, status: int, proxy: int
) -> None:
    with socket.create_connection(("127.0.0.1", proxy), timeout=30) as hostile:
        with suppress(ConnectionError):  # it may end before all was sent
            hostile.sendall(sent)
        reply = hostile.recv(65_536)
    assert reply.startswith(f"HTTP/1.1 {status} ".encode())
    if status != 200:
        head, _, body = reply.partition(b"\r\n\r\n")
        assert b"x-content-type-options: nosniff" in head.lower()
        assert json.loads(body)["detail"]
    assert httpx.get(f"http://127.0.0.1:{proxy}/v1/models").text == "fine"


def test_a_change_is_seen_by_all_replicas_before_it_is_acknowledged(
    replicas: list[httpx.Client], bundles: Bundles
) -> None:
    first, second = replicas
    body = {"inputs": normals(3).tolist()}
    assert second.get(ANIMALS).status_code == 404
    assert second.get("/health/ready").status_code == 503
    upload(first, "animals", bundles("first")).raise_for_status()
    assert second.post(f"{ANIMALS}/predict", json=body).json()["version"] == 1
    upload(second, "animals", bundles("second")).raise_for_status()
    first.put(f"{ANIMALS}/aliases/default", json={"version": 2}).raise_for_status()
    assert second.get(f"{ANIMALS}/versions/2").json()["state"] == "loaded"
    assert second.post(f"{ANIMALS}/predict", json=body).json()["version"] == 2
    first.post(f"{ANIMALS}/versions/1/unload").raise_for_status()
    assert second.get(f"{ANIMALS}/versions/1").json()["state"] == "available"
    second.post(f"{ANIMALS}/versions/1/load").raise_for_status()
    assert first.get(f"{ANIMALS}/versions/1").json()["state"] == "loaded"
    second.post(f"{ANIMALS}/versions/1/retire", json={"reason": "old"}).raise_for_status()
    assert [line["version"] for line in first.get("/health/ready").json()["models"]] == [2]
    rows, labels = normals(120, seed=1).tolist(), [n % 3 for n in range(120)]
    held_out = {"inputs": rows, "labels": labels}
    first.post(f"{ANIMALS}/calibrate", json=held_out).raise_for_status()
    answer = second.post(f"{ANIMALS}/predict", json=body).json()
    assert answer["calibration"] == 1
    truth = {"request_id": answer["request_id"], "rows": [{"row": 0, "label": 0}]}
    assert first.post(f"{ANIMALS}/feedback", json=truth).status_code == 200
    named = {"X-Request-Id": "one"}
    assert second.post(f"{ANIMALS}/predict", json=body, headers=named).json()["request_id"] == "one"
    of_serve = {**named, NO_ID.decode(): "1"}  # the proxy gave it an id, where it had none
    unnamed = second.post(f"{ANIMALS}/predict", json=body, headers=of_serve).json()
    assert unnamed["request_id"] == answer["request_id"]
    lines = first.get("/metrics").text.splitlines()
    assert {"a", "b"} == {
        line.partition('replica="')[2][0] for line in lines if line.startswith("dubito_ready")
    }


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "entropy", "k": 7},
        {"strategy": "bald", "k": 6, "per_class": 2},
        {"strategy": "random", "k": 9, "exclude": (3, 4, 5)},
        {"strategy": "batchbald", "k": 3, "candidates": 20},
    ],
)
def test_a_pool_that_is_searched_in_parts_gives_the_choice_of_one_search(
    bundles: Bundles, options: dict[str, object]
) -> None:
    engine = Engine.load(bundles("first"))
    pool = ArrayPool(engine.read_inputs(normals(200)))
    acquisition = Acquisition(seed=3, **options)  # type: ignore[arg-type]

    def search() -> Search:
        return Search.begin(engine, acquisition, len(pool), sampling=Sampling(8))

    whole, parts = search(), search()
    for first in range(0, 200, 40):
        part = search()
        part.restore({"done": np.array(first)})
        rows = np.arange(first, first + 40)
        kept = part.strategy.ranking.needs_samples
        predicted = engine.predict(pool.take(rows), sampling=part.sampling, keep_samples=kept)
        part.look(rows, predicted)
        whole.look(rows, predicted)
        parts.absorb(part.state())
    assert parts.done == whole.done == 200
    one, other = whole.finish(pool), parts.finish(pool)
    np.testing.assert_array_equal(one.indices, other.indices)
    np.testing.assert_array_equal(one.scores, other.scores)


def test_simulated_replicas_wait_for_their_batches_and_follow_a_burst(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("simpy")
    monkeypatch.syspath_prepend(Path(__file__).parent.parent)
    from benchmarks.simulate_cluster import Cluster, Cost, steady

    cost = Cost(rows=(1, 16, 128), seconds=(0.004, 0.016, 0.044), request_s=0.0, each=16)
    calm = steady(cost, devices=4, load=0.02, seconds=4.0)
    assert calm["p50_ms"] == pytest.approx(16.0, abs=1.0)  # nobody waits but for the own batch
    assert calm["refused_share"] == 0
    cluster = Cluster(cost, seed=0, start_s=1.0)
    cluster.add(1)
    cluster.clock.process(cluster.arrivals({0.0: 0.5 * cost.capacity, 2.0: 5 * cost.capacity}))
    cluster.clock.process(cluster.autoscaler(1, 8, 0.5, 60.0))
    cluster.clock.process(cluster.watch())
    cluster.clock.run(12.0)
    assert cluster.windows[1].replicas == 1
    assert cluster.windows[-1].replicas == 8
    assert cluster.windows[-1].refused == 0
