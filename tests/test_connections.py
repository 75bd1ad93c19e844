"""Connections of hostile and of slow clients: others are served, and nothing of theirs is left."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from dubito.api.connections.connection import Connection
from dubito.api.connections.crowd import Crowd
from dubito.api.connections.limits import ConnectionLimits
from dubito.settings import Settings

from .conftest import Bundles, Server
from .http import ANIMALS, normals, predicted, upload
from .processes import ServerProcess, serving

PATIENCE_S = 30.0
LIVE = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
BODY = (
    f"POST {ANIMALS}/predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n".encode()
    + b"Content-Length: %d\r\n\r\n"
)
SHORT = {
    "header_timeout_ms": 300,
    "transfer_timeout_ms": 300,
    "max_body_bytes": 2**26,
    "max_pending_bytes": 2**26,
}


class Raw:
    """A connection that sends what it is told."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self.socket = socket.create_connection((host, int(port)), PATIENCE_S)

    def send(self, data: bytes) -> Raw:
        self.socket.sendall(data)
        return self

    def rest(self) -> bytes:
        """All that comes until the other side ends."""
        parts = []
        while part := self.socket.recv(2**16):
            parts.append(part)
        return b"".join(parts)

    def reply(self) -> bytes:
        """One reply of `/health/live`."""
        parts = b""
        while not parts.endswith(b"}"):
            parts += self.socket.recv(2**16)
        return parts

    def close(self) -> None:
        self.socket.close()


@contextmanager
def raw(url: str, count: int, data: bytes = b"") -> Iterator[list[Raw]]:
    with ExitStack() as stack:
        made = [Raw(url) for _ in range(count)]
        for one in made:
            stack.callback(one.close)
            one.send(data)
        yield made


def refused(reply: bytes) -> tuple[int, dict[str, Any]]:
    """Status and error body of a reply."""
    head, _, body = reply.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    page = json.loads(body)
    assert page["status"] == int(head.split()[1])
    assert page["detail"] == page["error"]
    assert page["request_id"].encode() in head
    return page["status"], page


def wait_until_alone(server: Server) -> None:
    """Wait until no connection, task, place or byte of a body is left."""
    application = server.app.state.access.application
    end_s = time.monotonic() + PATIENCE_S
    while True:
        left = {
            "connections": len(server.http.crowd),
            "tasks": len(server.http.server_state.tasks),
            "places": application.worker.queued_work,
            "bytes": application.admission.held_bytes,
        }
        if not any(left.values()):
            return
        assert time.monotonic() < end_s, left


@pytest.fixture
def hurried(
    serve: Callable[[Settings], Server], settings: Settings, bundles: Bundles
) -> Iterator[Server]:
    """A server of short patience that has `animals`."""
    server = serve(settings.model_copy(update=SHORT))
    with httpx.Client(base_url=server.url, timeout=60) as client:
        upload(client, "animals", bundles("first")).raise_for_status()
    return server


def test_silent_slow_and_unfinished_connections_are_ended_while_others_are_served(
    hurried: Server,
) -> None:
    url = hurried.url
    with (
        httpx.Client(base_url=url, timeout=60) as client,
        raw(url, 50) as silent,
        raw(url, 50, LIVE[:20]) as half_heads,
        raw(url, 50, BODY % 100 + b"{") as half_bodies,
        raw(url, 50, BODY % 2**26 + b"{") as claims,
    ):
        predicted(client, normals(2))
        assert {one.rest() for one in silent} == {b""}
        for many, told in ((half_heads, "headers"), (half_bodies, "body"), (claims, "body")):
            for status, page in (refused(one.rest()) for one in many):
                assert status == 408
                assert page["detail"].startswith(f"{told}: expected ")
        predicted(client, normals(2))
    wait_until_alone(hurried)


def test_connections_that_wait_are_taken_many_a_turn_of_the_loop(hurried: Server) -> None:
    crowd, loop = hurried.http.crowd, hurried.http._watch.get_loop()
    wait_until_alone(hurried)
    is_held, may_go_on, are_taken = threading.Event(), threading.Event(), threading.Event()
    turns = 0

    def hold() -> None:
        is_held.set()
        assert may_go_on.wait(PATIENCE_S)
        count()

    def count() -> None:
        nonlocal turns
        turns += 1
        if len(crowd) < 64:
            loop.call_soon(count)
        else:
            are_taken.set()

    loop.call_soon_threadsafe(hold)
    assert is_held.wait(PATIENCE_S)
    with raw(hurried.url, 64):
        may_go_on.set()
        assert are_taken.wait(PATIENCE_S)
    assert turns < 32


def test_what_breaks_off_anywhere_leaves_nothing(hurried: Server) -> None:
    body = json.dumps({"inputs": normals(1).tolist()}).encode()
    whole = BODY % len(body) + body
    for length in (0, 1, 20, len(BODY), len(BODY) + 10, len(whole) - 1, len(whole)):
        with raw(hurried.url, 5, whole[:length]):
            pass
    wait_until_alone(hurried)
    with httpx.Client(base_url=hurried.url, timeout=60) as client:
        predicted(client, normals(1))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"GET /health/live HTTP/1.1\r\n" + b"A: b\r\n" * 102, "expected at most 100, got more"),
        (b"GET /health/live HTTP/1.1\r\nA: " + b"b" * 70_000, "expected at most 32768 bytes"),
        (b"GET /" + b"b" * 70_000, "expected at most 32768 bytes"),
    ],
)
def test_headers_beyond_their_bounds_are_refused(hurried: Server, data: bytes, told: str) -> None:
    with raw(hurried.url, 1, data) as (one,):
        status, page = refused(one.rest())
    assert status == 431
    assert told in page["detail"]
    wait_until_alone(hurried)


def test_trailers_and_extensions_of_chunks_count_as_headers(hurried: Server) -> None:
    head = BODY.replace(b"Content-Length: %d", b"Transfer-Encoding: chunked")
    for data in (b"1;a=" + b"b" * 70_000, b"1\r\n{\r\n0\r\n" + b"A: b\r\n" * 102):
        with raw(hurried.url, 1, head + data) as (one,):
            assert refused(one.rest())[0] == 431
    wait_until_alone(hurried)


def test_what_is_no_http_gets_the_one_error_body(hurried: Server) -> None:
    with raw(hurried.url, 1, b"hello\r\n\r\n") as (one,):
        assert refused(one.rest())[0] == 400


def test_a_callers_id_is_kept_in_a_refusal_before_any_route(hurried: Server) -> None:
    head = b"POST / HTTP/1.1\r\nX-Request-Id: order-7\r\nContent-Length: 9\r\n\r\n"
    with raw(hurried.url, 1, head.replace(b"POST /", BODY.split()[0] + b" /docs")) as (one,):
        assert b"order-7" in one.rest()


def test_bodies_of_unknown_length_do_not_count_as_the_longest(hurried: Server) -> None:
    body = json.dumps({"inputs": normals(1).tolist()}).encode()
    head = BODY.replace(b"Content-Length: %d", b"Transfer-Encoding: chunked\r\nConnection: close")
    with raw(hurried.url, 40, head + b"%x\r\n%s\r\n" % (len(body), body)) as many:
        for one in many:  # all bodies have begun, none has ended
            one.send(b"0\r\n\r\n")
        assert {one.rest().split()[1] for one in many} == {b"200"}
    wait_until_alone(hurried)


def test_a_reply_that_is_not_read_is_ended(hurried: Server) -> None:
    with raw(hurried.url, 1) as (one,):
        one.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**12)
        ask = b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n"
        one.send(ask * 50)  # more than buffers hold
        wait_until_alone(hurried)


def test_a_request_may_begin_before_the_route_of_the_last_has_ended(settings: Settings) -> None:
    """A client has all bytes of a reply, and sends the next head, while the route still runs."""
    get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"

    async def talk() -> bytes:
        may_end = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            while (await receive()).get("more_body"):
                pass
            headers = [(b"content-length", b"2")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"ok", "more_body": True})
            await may_end.wait()
            await send({"type": "http.response.body", "body": b""})

        config = uvicorn.Config(app, log_level="critical")
        config.load()
        crowd, state = Crowd(ConnectionLimits.of(settings)), ServerState()
        server = await asyncio.get_running_loop().create_server(
            lambda: Connection(config, state, {}, crowd=crowd), "127.0.0.1", 0
        )
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(get)
        await reader.readuntil(b"ok")
        (connection,) = crowd.present
        assert isinstance(connection, Connection)
        writer.write(head)
        while not connection.pipeline:
            await asyncio.sleep(0)
        may_end.set()
        while connection.pipeline:
            await asyncio.sleep(0)
        writer.write(b"hi")
        reply = await reader.readuntil(b"ok")
        writer.close()
        server.close()
        return reply

    assert asyncio.run(asyncio.wait_for(talk(), PATIENCE_S)).startswith(b"HTTP/1.1 200")


def test_a_pause_between_requests_is_not_a_slow_one(hurried: Server) -> None:
    with raw(hurried.url, 2) as (quick, silent):
        quick.send(LIVE)
        assert quick.reply().startswith(b"HTTP/1.1 200")
        assert silent.rest() == b""  # longer than any request may take
        quick.send(LIVE.replace(b"Host: a", b"Host: a\r\nConnection: close"))
        assert b"200 OK" in quick.rest()


def test_connections_that_were_silent_longest_make_room(
    serve: Callable[[Settings], Server], settings: Settings
) -> None:
    server = serve(settings.model_copy(update={"max_connections": 20}))
    with raw(server.url, 20) as silent, httpx.Client(base_url=server.url, timeout=60) as client:
        assert client.get("/health/live").status_code == 200
        assert b"" in [one.rest() for one in silent[:1]]


def test_where_all_connections_are_in_use_a_new_one_is_told_so(
    serve: Callable[[Settings], Server], settings: Settings
) -> None:
    server = serve(settings.model_copy(update={"max_connections": 5}))
    with raw(server.url, 5, BODY % 100 + b"{"):
        end_s = time.monotonic() + PATIENCE_S
        while len(server.http.server_state.tasks) < 5:
            assert time.monotonic() < end_s
        with raw(server.url, 1) as (one,):
            status, page = refused(one.rest())
    assert (status, page["type"]) == (503, "urn:dubito:error:unavailable")


def test_a_deadline_is_bounded_by_the_setting(
    serve: Callable[[Settings], Server], settings: Settings
) -> None:
    short = {"max_request_timeout_ms": 100, "request_timeout_ms": 100}
    server = serve(settings.model_copy(update=short))
    with raw(server.url, 1) as (one,):
        asked = (BODY % 10).replace(
            b"Host: a", b"Host: a\r\nX-Request-Timeout-Ms: 86000000\r\nExpect: x"
        )
        one.send(asked + b"{")
        assert one.socket.recv(2**16).startswith(b"HTTP/1.1 504")


@pytest.fixture
def ending(settings: Settings, bundles: Bundles) -> Iterator[ServerProcess]:
    """A server in a process of its own, which a signal can end."""
    with serving(settings.data_dir, {"DUBITO_DRAIN_TIMEOUT_MS": "20000"}) as server:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            upload(client, "animals", bundles("first")).raise_for_status()
            predicted(client, normals(1))
        yield server


def test_what_was_accepted_is_answered_at_the_end(ending: ServerProcess) -> None:
    body = json.dumps({"inputs": normals(2).tolist()}).encode()
    whole = BODY % len(body) + body
    with (
        raw(ending.url, 5) as kept,
        raw(ending.url, 5, whole[:-1]) as begun,
        raw(ending.url, 5, LIVE[:20]) as half,
        raw(ending.url, 5) as unheard,
    ):
        for one in kept:
            assert one.send(LIVE).reply().startswith(b"HTTP/1.1 200")
        ending.process.terminate()
        for one in unheard:
            one.send(LIVE)
        statuses = {one.rest().split()[1] for one in unheard}
        assert statuses <= {b"200", b"503"}  # by whether the signal was there first
        for status, page in (refused(one.rest()) for one in half):
            assert status == 503
            assert "shutting down" in page["detail"]
        for one in begun:
            assert one.send(whole[-1:]).rest().split()[1] in (b"200", b"503")
        assert {one.rest() for one in kept} == {b""}
    assert ending.process.ended(PATIENCE_S)


@pytest.mark.parametrize(
    ("head", "told"),
    [
        ("Host: a\r\nContent-Length: x", "a whole number as `Content-Length`"),
        ("Host: a\r\nContent-Length: 1\r\nContent-Length: 1", "one `Content-Length`, got two"),
        (
            "Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
            "`Content-Length` or `Transfer-Encoding`, got both",
        ),
        (
            "Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1",
            "`Content-Length` or `Transfer-Encoding`, got both",
        ),
        ("Host: a\r\nTransfer-Encoding: chunked\r\n\r\nzz", "size of a chunk"),
        ("Host: a\0b", "a control character"),
        ("Host: a\r\nA b: c", "names of headers"),
        ("Accept: a", "one `Host`"),
        ("Host: a\r\nHost: b", "one `Host`"),
    ],
)
def test_what_is_no_http_is_told_what_is_wrong_with_it(
    shared: httpx.Client, head: str, told: str
) -> None:
    request = f"POST {ANIMALS}/predict HTTP/1.1\r\n{head}\r\n\r\n"
    with raw(str(shared.base_url).rstrip("/"), 1, request.encode()) as (one,):
        status, page = refused(one.rest())
    assert (status, told in page["detail"]) == (400, True), page["detail"]


@pytest.mark.parametrize("size", [33_000, 40_000, 64_000])
@pytest.mark.parametrize("part", ["path", "header", "headers"])
def test_the_bound_on_the_bytes_of_headers_is_kept(
    shared: httpx.Client, part: str, size: int
) -> None:
    path = f"/health/live?a={'a' * size}" if part == "path" else "/health/live"
    count = {"path": 0, "header": 1, "headers": 40}[part]
    lines = "".join(f"A{place}: {'b' * (size // count)}\r\n" for place in range(count))
    request = f"GET {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n"
    with raw(str(shared.base_url).rstrip("/"), 1, request.encode()) as (one,):
        status, page = refused(one.rest())
    assert (status, "at most 32768 bytes" in page["detail"]) == (431, True)
    with raw(
        str(shared.base_url).rstrip("/"),
        1,
        LIVE.replace(b"\r\n\r\n", b"\r\nA: " + b"b" * 32_000 + b"\r\n\r\n"),
    ) as (one,):
        assert b" 200 " in one.reply().partition(b"\r\n")[0]
