"""When the client asks again, what it waits for, and what it makes of odd answers."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

import dubito_client
from dubito.serving.worker import Reservation
from dubito.settings import Settings
from dubito_client import (
    AsyncClient,
    Client,
    DeadlineError,
    DubitoError,
    InputError,
    NotFoundError,
    QueueFullError,
    ReplyError,
    UnavailableError,
    UnreachableError,
)

from .conftest import Bundles, Server
from .http import normals, npy

HTML = {"Content-Type": "text/html"}
LIVE = json.dumps({"models": []}).encode()


@contextmanager
def odd_server(
    *answers: tuple[int, dict[str, str], bytes], port: int = 0
) -> Iterator[tuple[str, list[str]]]:
    """A server that gives the answers in turn, the last again and again; and who asked what."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, body = answers[min(len(asked), len(answers) - 1)]
            asked.append(f"{self.command} {self.path}")
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def full(
    serve: Callable[[Settings], Server], settings: Settings, bundles: Bundles
) -> Iterator[tuple[str, Reservation]]:
    """A server whose queue is full, and the place that fills it."""
    server = serve(settings.model_copy(update={"max_queued_work": 64}))
    with Client(server.url) as client:
        client.upload("animals", bundles("first"))
    place = server.app.state.access.application.worker.reserve(1)
    place.resize(64)
    yield server.url, place
    place.release()


def test_a_full_queue_is_waited_for_as_long_as_it_says(full: tuple[str, Reservation]) -> None:
    url, place = full
    answers: list[tuple[int, str | None]] = []

    def note(response: httpx.Response) -> None:
        answers.append((response.status_code, response.headers.get("Retry-After")))
        place.release()  # once the client was refused

    with httpx.Client(event_hooks={"response": [note]}) as http, Client(url, http=http) as client:
        assert client.predict("animals", normals(1)).version == 1
        assert not http.is_closed
    assert answers == [(429, "1"), (200, None)]


def test_a_full_queue_is_waited_for_by_the_asynchronous_client(
    full: tuple[str, Reservation],
) -> None:
    url, place = full
    codes: list[int] = []

    async def note(response: httpx.Response) -> None:
        codes.append(response.status_code)
        place.release()

    async def ask() -> int:
        async with httpx.AsyncClient(event_hooks={"response": [note]}) as http:
            return (await AsyncClient(url, http=http).predict("animals", normals(1))).version

    assert asyncio.run(ask()) == 1
    assert codes == [429, 200]


def test_patience_ends_with_the_servers_own_words(full: tuple[str, Reservation]) -> None:
    url, _ = full
    with Client(url, patience_s=0.5) as client, pytest.raises(QueueFullError) as caught:
        client.predict("animals", normals(1))
    assert caught.value.retry_after_s == 1.0
    assert caught.value.detail.startswith("the queue holds at most 64 rows x samples, 64 wait")


def test_a_server_that_drains_is_waited_for_within_patience(
    serve: Callable[[Settings], Server], settings: Settings, bundles: Bundles
) -> None:
    server = serve(settings)
    with Client(server.url, patience_s=1.0) as client:
        client.upload("animals", bundles("first"))
        server.app.state.access.application.worker.close(5.0)
        with pytest.raises(UnavailableError, match="shutting down") as caught:
            client.predict("animals", normals(1))
        assert (caught.value.code, caught.value.retry_after_s) == (503, 5.0)
        assert client.health().draining


def test_a_deadline_is_told_to_the_server_which_answers_in_time(
    serve: Callable[[Settings], Server], settings: Settings, bundles: Bundles
) -> None:
    with Client(serve(settings).url) as client:
        client.upload("animals", bundles("first"))
        with pytest.raises(DeadlineError, match="expected an answer within 1 ms"):
            client.within(0.001).evaluate("animals", normals(9000), [0] * 9000)
        assert client.predict("animals", normals(1)).version == 1


def test_a_server_that_comes_up_late_is_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    is_refused, is_up = threading.Event(), threading.Event()
    attempts: list[httpx.Request] = []

    def note(request: httpx.Request) -> None:
        attempts.append(request)
        if len(attempts) == 2:
            is_refused.set()
            is_up.wait()

    found: list[object] = []
    with httpx.Client(event_hooks={"request": [note]}) as http:
        client = Client(f"http://127.0.0.1:{port}", http=http)
        asking = threading.Thread(target=lambda: found.append(client.models()))
        asking.start()
        is_refused.wait()
        with odd_server((200, {}, LIVE), port=port):
            is_up.set()
            asking.join()
    assert found == [[]]
    assert len(attempts) == 2


def test_where_nobody_listens_patience_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    client = Client(f"http://127.0.0.1:{port}", patience_s=0.1)
    with client, pytest.raises(UnreachableError, match="check the address and the server"):
        client.models()


def test_a_key_that_no_header_can_hold_is_told_of_as_such() -> None:
    with odd_server((200, {}, LIVE)) as (url, _):
        with (
            Client(url, key="two\nlines") as client,
            pytest.raises(UnreachableError, match="correct the key: no line breaks"),
        ):
            client.models()
        with Client(url) as client:  # nothing of the first one's reached the server
            assert client.models() == []


@pytest.mark.parametrize("seconds", ["0", "Wed, 21 Oct 2026 07:28:00 GMT", "-1", "inf", "soon"])
def test_503_of_a_proxy_is_waited_for_half_a_second_whatever_its_header_says(seconds: str) -> None:
    busy, free = (503, {**HTML, "Retry-After": seconds}, b"<h1>busy</h1>"), (200, {}, LIVE)
    with odd_server(busy, free) as (url, asked):
        with Client(url, patience_s=0.49) as client, pytest.raises(UnavailableError):
            client.models()
        assert len(asked) == 1  # the second would have come too late
    if seconds == "0":
        with odd_server(busy, free) as (url, asked), Client(url) as client:
            assert client.models() == []
        assert len(asked) == 2


def test_what_may_have_been_done_is_not_asked_twice(tmp_path: Path) -> None:
    path = tmp_path / "some.dubito"
    path.write_bytes(b"bundle")
    calls: tuple[Callable[[Client], object], ...] = (
        lambda client: client.upload("animals", path),
        lambda client: client.calibrate("animals", normals(2), [0, 1]),
        lambda client: client.predict_pool("animals", "pool"),
        lambda client: client.select_pool("animals", "pool", strategy="bald", k=1),
        lambda client: client.add_pool(normals(2)),
        lambda client: client.delete_pool("pool"),
        lambda client: client.set_alias("animals", "next", 1, revision=1),
        lambda client: client.cancel("job"),
    )
    cut_off = {"Content-Length": "1000"}
    for call in calls:
        with odd_server((503, {"Retry-After": "0.01"}, b"")) as (url, asked), Client(url) as client:
            with pytest.raises(UnavailableError):
                call(client)
            assert len(asked) == 1
        with odd_server((201, cut_off, b"{")) as (url, asked), Client(url) as client:
            with pytest.raises(UnreachableError):
                call(client)
            assert len(asked) == 1
        refused = (429, {"Retry-After": "0.01"}, b""), (404, {}, b"")
        with odd_server(*refused) as (url, asked), Client(url) as client:
            with pytest.raises(NotFoundError):
                call(client)
            assert len(asked) == 2


def test_an_answer_that_is_cut_off_is_asked_for_again() -> None:
    answers = (200, {"Content-Length": "1000"}, LIVE), (200, {}, LIVE)
    with odd_server(*answers) as (url, asked), Client(url) as client:
        assert client.models() == []
    assert asked == ["GET /v1/models"] * 2


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ((502, HTML, b"<h1>Bad   Gateway</h1>"), ReplyError, r"502 text/html .* It says: <h1>Bad"),
        ((404, HTML, b"nginx"), NotFoundError, r"got 404 text/html"),
        ((504, HTML, b"late"), DeadlineError, r"got 504"),
        ((301, {"Location": "https://there"}, b""), ReplyError, r"got 301 to https://there from"),
        ((200, HTML, b"<h1>hello</h1>"), ReplyError, r"14 bytes of text/html that cannot be read"),
        ((200, {}, b'{"model": "a"}'), ReplyError, r"cannot be read"),
        ((200, {}, b"[]"), ReplyError, r"cannot be read"),
        ((200, {}, b"null"), ReplyError, r"cannot be read"),
        ((500, {}, b'{"type": 1}'), DubitoError, r"got 500"),
        ((422, {}, b'{"type": "urn:dubito:error:new", "detail": "no"}'), InputError, r"^no$"),
        ((418, {}, b'{"type": "urn:dubito:error:tea", "detail": "pot"}'), DubitoError, r"^pot$"),
    ],
)
def test_odd_answers_are_told_as_they_are(
    answer: tuple[int, dict[str, str], bytes], kind: type[DubitoError], words: str
) -> None:
    with odd_server(answer) as (url, asked), Client(url) as client:
        with pytest.raises(kind, match=words) as caught:
            client.model("animals")
        assert type(caught.value) is kind
        assert caught.value.code == answer[0]
        assert len(asked) == 1


@pytest.mark.parametrize("body", [b"", b"PK\3\4", npy(normals(1)), b"PK\5\6" + bytes(18)])
def test_arrays_that_are_none_are_told(body: bytes) -> None:
    answer = (200, {"Content-Type": "application/x-npz"}, body)
    with (
        odd_server(answer) as (url, _),
        Client(url) as client,
        pytest.raises(ReplyError, match="cannot be read"),
    ):
        client.predict("animals", normals(1))


JOB = {
    **dict.fromkeys(("reason", "rate_per_s", "remaining_s", "started_at", "finished_at", "result")),
    **{"job": "j", "kind": "predict", "state": "running", "model": "m", "version": 1},
    **{"pool": "p", "done": 1, "total": 2, "warnings": [], "actor": "anonymous"},
    "created_at": "2026-11-30T00:00:00Z",
}


def _event(**facts: object) -> bytes:
    return b"event: progress\nid: 1\ndata: %s\n\n" % json.dumps({**JOB, **facts}).encode()


def test_progress_goes_on_where_a_stream_ended_or_broke() -> None:
    ended = (200, {}, b": alive\n\n" + _event())
    broken = (200, {"Content-Length": "9999"}, _event(done=2))
    last = (200, {}, _event(state="succeeded", done=2))
    for kind in (Client, AsyncClient):
        with odd_server(ended, broken, last) as (url, asked):
            states = _followed(kind(url))
        assert [(state.state, state.done) for state in states] == [
            *(("running", 1), ("running", 2), ("succeeded", 2))
        ]
        assert asked == ["GET /v1/jobs/j/events"] * 3


def _followed(client: Client | AsyncClient) -> list[dubito_client.Job]:
    if isinstance(client, Client):
        with client:
            return list(client.progress("j"))

    async def follow() -> list[dubito_client.Job]:
        async with client:
            return [state async for state in client.progress("j")]

    return asyncio.run(follow())


def test_a_stream_that_never_says_anything_is_given_up() -> None:
    with (
        odd_server((200, HTML, b"<h1>hello</h1>")) as (url, _),
        Client(url, patience_s=0.1) as client,
        pytest.raises(UnreachableError, match="the stream ended too early"),
    ):
        client.wait("j")


def test_an_address_without_a_scheme_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="add the scheme"):
        Client("localhost:8000")
