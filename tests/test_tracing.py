"""Traces: a request, its wait and its computation are spans of one trace, the caller's."""

from __future__ import annotations

import queue
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from dubito.api.factory import create_app
from dubito.errors import InputError
from dubito.settings import Settings
from dubito.telemetry.tracing import Tracing

from .conftest import Bundles, Server
from .http import ANIMALS, normals, upload

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
FROM_CALLER = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


class Kept(SpanExporter):
    """Spans in memory, in the order in which they end, which may be after the reply."""

    def __init__(self) -> None:
        self._ended: queue.Queue[ReadableSpan] = queue.Queue()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        for span in spans:
            self._ended.put(span)
        return SpanExportResult.SUCCESS

    def take(self, count: int) -> list[ReadableSpan]:
        """The next ones, waited for."""
        return [self._ended.get(timeout=60) for _ in range(count)]


@pytest.fixture
def spans(
    serve: Callable[[Settings], Server], settings: Settings, bundles: Bundles
) -> Iterator[tuple[httpx.Client, Kept]]:
    """A server whose spans are kept in memory."""
    server = serve(settings)
    kept = Kept()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    with httpx.Client(base_url=server.url, timeout=60) as client:
        upload(client, "animals", bundles("first")).raise_for_status()
        server.app.state.access.application.telemetry.tracing = Tracing(provider)
        yield client, kept
    provider.shutdown()


def _by_name(spans: Kept) -> dict[str, ReadableSpan]:
    """The spans of one request that was computed."""
    return {span.name: span for span in spans.take(3)}


def _lies_within(inner: ReadableSpan, outer: ReadableSpan) -> bool:
    assert inner.parent is not None
    assert outer.context is not None
    assert inner.start_time is not None
    assert outer.end_time is not None
    assert inner.end_time is not None
    assert outer.start_time is not None
    return (
        inner.parent.span_id == outer.context.span_id
        and outer.start_time <= inner.start_time <= inner.end_time <= outer.end_time
    )


@pytest.mark.parametrize("num_rows", [1, 40])
def test_a_prediction_has_its_wait_and_its_computation_in_the_trace_of_its_caller(
    spans: tuple[httpx.Client, Kept], num_rows: int
) -> None:
    client, kept = spans
    body = {"inputs": normals(num_rows).tolist()}
    reply = client.post(f"{ANIMALS}/predict", json=body, headers=FROM_CALLER)
    assert reply.status_code == 200
    found = _by_name(kept)
    request = found[f"POST {'/v1/models/{model}/predict'}"]
    assert request.context is not None
    assert f"{request.context.trace_id:032x}" == TRACE
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == PARENT
    wait, work = found["queue"], found["compute"]
    assert wait.end_time == work.start_time
    assert work.attributes is not None
    assert work.attributes["dubito.rows"] == num_rows
    assert request.attributes is not None
    assert request.attributes["dubito.request_id"] == reply.json()["request_id"]
    assert request.attributes["dubito.version"] == 1
    assert request.attributes["http.response.status_code"] == 200
    assert all(_lies_within(span, request) for span in (wait, work))


def test_requests_beside_each_other_have_traces_of_their_own(
    spans: tuple[httpx.Client, Kept],
) -> None:
    client, kept = spans

    def ask(number: int) -> int:
        headers = {"traceparent": f"00-{number:032x}-{PARENT}-01"}
        body = {"inputs": normals(2, seed=number).tolist()}
        return client.post(f"{ANIMALS}/predict", json=body, headers=headers).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(1, 25))) == {200}
    traces: dict[int, list[str]] = {}
    for span in kept.take(24 * 3):
        assert span.context is not None
        traces.setdefault(span.context.trace_id, []).append(span.name.split()[0])
    assert traces.keys() == set(range(1, 25))
    assert all(sorted(names) == ["POST", "compute", "queue"] for names in traces.values())


def test_a_calibration_and_a_refusal_are_traced_too(
    spans: tuple[httpx.Client, Kept],
) -> None:
    client, kept = spans
    rows = normals(120, seed=1)
    labels = [int(label) for label in rows[:, 0] > 0]
    body = {"inputs": rows.tolist(), "labels": labels}
    assert client.post(f"{ANIMALS}/calibrate", json=body).status_code == 200
    compute = _by_name(kept)["compute"]
    assert compute.attributes == {"dubito.action": "calibrate"}
    assert client.get("/v1/models/nobody").status_code == 404
    (refused,) = kept.take(1)
    assert refused.attributes is not None
    assert refused.attributes["http.response.status_code"] == 404
    assert refused.status.is_unset


@contextmanager
def _collector() -> Iterator[tuple[str, queue.Queue[str]]]:
    """A server that takes spans by OTLP, and its address; names of spans as they come."""
    names: queue.Queue[str] = queue.Queue()

    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        names.put(span.name)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *parts: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Take)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", names
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_server_sends_its_spans_to_the_collector_that_is_named(
    serve: Callable[[Settings], Server],
    settings: Settings,
    bundles: Bundles,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with _collector() as (address, names):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        server = serve(settings.model_copy(update={"tracing": True}))
        with httpx.Client(base_url=server.url, timeout=60) as client:
            upload(client, "animals", bundles("first")).raise_for_status()
            client.post(f"{ANIMALS}/predict", json={"inputs": normals(2).tolist()})
            wanted = {"POST /v1/models/{model}/predict", "queue", "compute"}
            while wanted:
                wanted.discard(names.get(timeout=60))
        server.stop()  # which sends what is left, while there is somebody to take it


def test_without_opentelemetry_the_setting_says_what_is_missing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(InputError, match=r"pip install 'dubito\[otel\]'"):
        create_app(settings.model_copy(update={"tracing": True}))
