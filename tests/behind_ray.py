"""Servers of tests behind Ray, where `DUBITO_TEST_RAY` says by how many replicas.

    DUBITO_TEST_RAY=2 python -m pytest -n 0 tests/test_api_predict.py      # needs 'dubito[ray]'

One cluster of two nodes serves all tests of a run, deployed as `dubito serve --ray` does it. Since
the start of a replica takes seconds, each holds the applications of all servers that tests have
going, and tells them apart by the address that a request is for: every server has a loopback
address of its own. What differs behind Ray, or looks into the server's process, is skipped.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache, cached_property, partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.datastructures import Headers, State
from starlette.types import Receive, Scope, Send
from uvicorn.lifespan.on import LifespanOn

from dubito.api import create_app
from dubito.errors import UnavailableError
from dubito.registry.noting import Change as VersionChange
from dubito.settings import Settings

REPLICAS = int(os.environ.get("DUBITO_TEST_RAY", "0"))
"""How many replicas serve in the place of one server; 0: tests have a server of their own."""

Change = Callable[[FastAPI], None]

_WITHIN_S = 300.0
_addresses = count(2)


if REPLICAS:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray import serve

    from dubito.cluster.peer import Peer
    from dubito.cluster.replica import ask_all, prepare

    @serve.ingress()
    class Host:
        """A replica of many servers."""

        def __init__(self, settings: Settings) -> None:
            prepare()
            self._peers: dict[str, Peer] = {}
            self._lives: dict[str, LifespanOn] = {}

        def __serve_build_asgi_app__(self) -> Any:
            return _Front(self._peers)

        async def take(self, address: str, settings: Settings, change: Change | None) -> str:
            """Serve at an address; the name of this replica."""
            app = create_app(settings)
            if change is not None:
                change(app)
            name = serve.get_replica_context().replica_tag
            peer = Peer(app, name, partial(_ask, address))
            life = LifespanOn(uvicorn.Config(peer.frame, lifespan="on"))
            await life.startup()
            if life.should_exit:
                raise RuntimeError("the application did not start")
            self._peers[address], self._lives[address] = peer, life
            return name

        async def leave(self, address: str) -> None:
            """Do not serve there any more."""
            if address in self._lives:
                await self._lives.pop(address).shutdown()
                del self._peers[address]

        async def looked(self, address: str) -> None:
            await self._peers[address].looked()

        async def settled(self, address: str) -> None:
            await self._peers[address].settled()

        async def followed(self, address: str, change: VersionChange) -> None:
            await self._peers[address].followed(change)

        async def counted(self, address: str) -> tuple[str, bytes]:
            return await self._peers[address].counted()

    class _Front:
        """From a request to the application of the server that it is for."""

        def __init__(self, peers: dict[str, Peer]) -> None:
            self._peers = peers

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                for word in ("startup", "shutdown"):
                    await receive()
                    await send({"type": f"lifespan.{word}.complete"})
                return
            address = Headers(scope=scope)["host"].partition(":")[0]
            await self._peers[address].frame(scope, receive, send)

    async def _ask(address: str, method: str, within_s: float, *words: object) -> Any:
        return await ask_all(method, within_s, address, *words)


class RayServer:
    """As `conftest.Server`, by replicas.

    Args:
        settings: of the server.
        change: what a test adds to the application.
    """

    def __init__(self, settings: Settings, change: Change | None = None) -> None:
        self.settings = settings
        self._change = change
        self._address = f"127.0.0.{next(_addresses)}"
        self.url = f"http://{self._address}:{_port()}"

    @cached_property
    def app(self) -> FastAPI:
        """An application like those of the replicas, which only describes itself."""
        app = create_app(self.settings)
        if self._change is not None:
            self._change(app)
        app.state = _Elsewhere(app.state._state)
        return app

    @property
    def http(self) -> None:
        pytest.skip("is about the server of one process")

    def start(self) -> None:
        from .conftest import with_tables

        if self.settings.database_url is None and not self.settings.data_dir.exists():
            with_tables(self.settings.data_dir)
        often = {"poll_ms": 50} if "poll_ms" not in self.settings.model_fields_set else {}
        _call("take", self._address, self.settings.model_copy(update=often), self._change)

    def stop(self) -> None:
        _call("leave", self._address)


class _Elsewhere(State):
    """The state of an application that runs in replicas."""

    @property
    def access(self) -> None:
        pytest.skip(_PROCESS)


def _call(method: str, *words: object) -> None:
    """Call all replicas, once all are known."""
    handle = _handle()
    until_s = time.monotonic() + _WITHIN_S
    while True:
        found = handle.broadcast(method, *words).results(timeout_s=_WITHIN_S)
        if len(found) == REPLICAS:
            return
        assert not found or method == "leave", "some replicas were not reached"
        assert time.monotonic() < until_s
        time.sleep(0.1)


@cache
def _handle() -> Any:
    return serve.get_deployment_handle("dubito", "dubito")


@cache
def _port() -> int:
    """Deploy the replicas, for the time of the run; where they answer."""
    import ray
    from ray.cluster_utils import Cluster

    from dubito.cluster.deploying import deployed

    os.environ |= {
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    node = {"num_cpus": REPLICAS, "object_store_memory": 200 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    cluster.add_node(**node)
    ray.init(address=cluster.address, namespace="dubito", log_to_driver=False)
    settings = Settings(
        data_dir=Path(_running.enter_context(tempfile.TemporaryDirectory())),
        host="0.0.0.0",
        port=0,
        ray_entrances="head",
        ray_min_replicas=REPLICAS,
        ray_max_replicas=REPLICAS,
        keep_alive_timeout_ms=600_000,
    )
    _running.callback(cluster.shutdown)
    _running.callback(ray.shutdown)
    _running.callback(serve.shutdown)
    try:
        service = _running.enter_context(deployed(settings, cluster.address, Host))
    except UnavailableError as error:
        pytest.exit(f"nothing serves behind Ray: {error}")
    return int(service.url.rpartition(":")[2])


_running = ExitStack()


def end() -> None:
    """Take the cluster down, where there is one."""
    _running.close()


_PROCESS = "looks into the server's process"
_LOADED = "which versions are loaded is told by the replica that is asked"
_COUNTS = "each series, and each count of requests, is of one replica"
_LIMITS = "each replica has the limits of a key"
_DRIFT = "the drift test, and what is written, are of each replica"

IN_THE_PROCESS = {
    "test_keys::test_under_load_a_key_is_told_what_it_never_opens_and_not_to_come_again",
    "test_keys::test_no_key_reaches_a_log_or_an_error",
    "test_api_monitoring::test_inputs_that_changed_ring_and_are_logged_once_until_a_new_calibration",
    "test_api_monitoring::test_truths_outside_the_sets_ring_once",
    "test_pools::test_pools_and_jobs_in_a_bucket",
    "test_tracing::test_a_server_sends_its_spans_to_the_collector_that_is_named",
    "test_jobs::test_requests_are_answered_while_a_job_runs",
    "test_jobs::test_a_stream_of_events_ends_with_the_server_and_not_with_its_job",
}
"""Tests that read the server's log, hold its threads, or set its environment."""

OF_ONE = {
    "test_api_lifecycle::test_a_version_is_loaded_and_unloaded_by_request": _LOADED,
    "test_api_lifecycle::test_an_alias_move_loads_the_version_before_it_is_seen": _LOADED,
    "test_api_lifecycle::test_a_version_that_cannot_be_loaded_says_why"
    "_and_leaves_the_old_one_serving": _LOADED,
    "test_api_lifecycle::test_the_server_is_ready_when_what_is_pinned_is_loaded": _LOADED,
    "test_api_evaluation::test_a_report_has_the_figures_of_what_is_served": _LOADED,
    "test_headers_only::test_every_path_answers_head_with_the_headers_of_get": _LOADED,
    "test_api_registry::test_an_upload_makes_the_model_and_its_alias": _LOADED,
    "test_api_registry::test_health_says_live_ready_and_whether_samples_vary": _LOADED,
    "test_keys::test_a_key_over_its_limit_is_told_when_to_come_again": _LIMITS,
    "test_open_inference::test_statistics_count_what_was_answered_and_what_was_not": _COUNTS,
    "test_telemetry": _COUNTS,
    "test_api_monitoring::test_outcomes_are_counted_as_the_reply_said": _DRIFT,
    "test_api_monitoring::test_the_drift_test_counts_each_request_once": _DRIFT,
    "test_api_monitoring::test_without_room_predictions_are_dropped_and_counted"
    "_and_still_answered": _DRIFT,
    "test_api_monitoring::test_the_command_shows_how_things_stand": _DRIFT,
}
"""Tests, and files, of what differs with several replicas, as `docs/ray.md` says, and why."""


def leave_out(items: list[pytest.Item]) -> None:
    """Skip what differs, where tests run behind Ray."""
    left_out = dict.fromkeys(IN_THE_PROCESS, _PROCESS) | (OF_ONE if REPLICAS > 1 else {})
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("ignore"))  # of Ray
        name = f"{item.path.stem}::{item.name.partition('[')[0]}"
        reason = left_out.get(name, left_out.get(item.path.stem))
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
