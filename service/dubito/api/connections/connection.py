"""One connection: uvicorn's, with bounds on bytes, headers and time.

Flow: silent → the head of a request (line and headers) → its body → silent again, while the
request is answered. Each phase has a time by which it has to go on; `look` compares. What is over
a bound gets the one error body where no reply has begun. Then the connection lingers: nothing more
is written, and what still comes is dropped for a moment, since closing at once would reset the
connection before the other side has read why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from enum import Enum, auto
from typing import Any

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from dubito.api.border.context import ending
from dubito.api.connections import refusals
from dubito.api.connections.crowd import Crowd
from dubito.errors import DubitoError

_PIECE_BYTES = 16 * 1024
_LINGER_S = 2.0
_BESIDE_BYTES = 4  # of a header: colon, blank and end of line


class Phase(Enum):
    """What is being read."""

    SILENT = auto()
    HEAD = auto()
    BODY = auto()


class _RefusedError(Exception):
    """Ends the parsing of what is refused already."""


class Connection(HttpToolsProtocol):
    """A connection with bounds.

    Args:
        config: of uvicorn.
        server_state: of uvicorn.
        app_state: of uvicorn.
        crowd: the connections of the server.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        crowd: Crowd,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._crowd = crowd
        self._limits = crowd.limits
        self._phase = Phase.SILENT
        self._deadline_s = 0.0  # of the phase, on the clock of the loop
        self._reading_deadline_s: float | None = None  # of the other side's
        self._unsent_bytes = 0
        self._overhead_bytes = 0  # since the last head, or the last piece of a body
        self._head_bytes = 0  # of the path and the headers, as they are parsed
        self._refused: DubitoError | str = ""
        self._is_lingering = False
        self.idle_since_s = 0.0
        self.has_served = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; the time of the first request runs."""
        super().connection_made(transport)
        self.idle_since_s = self.loop.time()
        self._deadline_s = self.idle_since_s + self._limits.header_s
        if not self._crowd.admit(self):
            self._refuse(refusals.crowded(self._limits))

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._crowd.remove(self)
        self.pipeline.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, in pieces as long as no body does."""
        for piece in self._pieces(data):
            if self._is_lingering or self.transport.is_closing():
                return
            self._overhead_bytes += len(piece)
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade:  # to what is not spoken here: HTTP goes on
                pass
            except httptools.HttpParserError as error:
                self._refuse(self._refused or str(error))
                return
            if self._overhead_bytes > self._limits.header_bytes:
                self._refuse(refusals.too_long_headers(self._limits))

    def _pieces(self, data: bytes) -> Iterator[bytes | memoryview]:
        if self._phase is Phase.BODY or len(data) <= _PIECE_BYTES:
            yield data
            return
        view = memoryview(data)
        for start in range(0, len(data), _PIECE_BYTES):
            yield view[start : start + _PIECE_BYTES]

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self._phase = Phase.HEAD
        self._head_bytes = 0
        if self.has_served:  # of the first, the time runs since the connection
            self._deadline_s = self.loop.time() + self._limits.header_s

    def on_url(self, url: bytes) -> None:
        """A piece of the path."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or one trailer."""
        self._count(len(name) + len(value) + _BESIDE_BYTES)
        if len(self.headers) >= self._limits.headers:
            self._stop(refusals.too_many_headers(self._limits))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole: a request begins."""
        self._overhead_bytes = 0
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (not hosts and self.parser.get_http_version() == "1.1"):
            self._stop(refusals.HOST)
        self._phase = Phase.BODY
        self._deadline_s = self.loop.time() + self._limits.transfer_s
        if self._crowd.is_ending and not self._is_answering:
            self._stop(ending())
        super().on_headers_complete()
        self.has_served = True

    def on_body(self, body: bytes) -> None:
        """A piece of a body, which buys time."""
        self._overhead_bytes = 0
        bought_s = self._deadline_s + len(body) / self._limits.rate
        self._deadline_s = min(self.loop.time() + self._limits.transfer_s, bought_s)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._overhead_bytes = 0
        self._phase = Phase.SILENT
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A reply is written; what is left of its request's body is dropped with the connection.

        A body that is read may be that of the next request, which waits for its turn: a client that
        has all bytes of a reply goes on before the route has ended.
        """
        has_body_left = self._is_body_coming and not self.pipeline
        super().on_response_complete()
        self.idle_since_s = self.loop.time()
        if has_body_left and not self.transport.is_closing():
            self._linger()

    @property
    def _is_body_coming(self) -> bool:
        return self._phase is Phase.BODY

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def is_idle(self) -> bool:
        """Whether the connection is open, and nothing has begun on it."""
        is_open = not (self._is_lingering or self.transport.is_closing())
        return is_open and self._phase is Phase.SILENT and not self._is_answering

    def look(self, now_s: float) -> None:
        """Refuse or end what is over its time."""
        if self._is_read_too_slowly(now_s) or (self._is_lingering and now_s > self._deadline_s):
            self.transport.abort()
        elif self._is_lingering or self.transport.is_closing():
            return
        elif self._phase is Phase.HEAD:
            self._look_at_head(now_s)
        elif self._phase is Phase.BODY:
            self._look_at_body(now_s)
        elif not self.has_served and now_s > self._deadline_s:
            self.transport.close()

    def _look_at_head(self, now_s: float) -> None:
        if self._is_answering:  # an earlier one, after which there is still time
            self._deadline_s = now_s + self._limits.header_s
        elif now_s > self._deadline_s:
            self._refuse(refusals.slow_headers(self._limits))

    def _look_at_body(self, now_s: float) -> None:
        if self.flow.read_paused or self.cycle.waiting_for_100_continue:  # the wait is ours
            self._deadline_s = now_s + self._limits.transfer_s
        elif now_s > self._deadline_s:
            self._refuse(refusals.slow_body(self._limits))

    def _is_read_too_slowly(self, now_s: float) -> bool:
        """Whether the other side does not take what is written; what it takes buys time."""
        size, before = self.transport.get_write_buffer_size(), self._unsent_bytes
        self._unsent_bytes = size
        if size == 0:
            self._reading_deadline_s = None
            return False
        latest_s = now_s + self._limits.transfer_s
        deadline_s = self._reading_deadline_s or latest_s
        taken = max(0, before - size)
        self._reading_deadline_s = min(latest_s, deadline_s + taken / self._limits.rate)
        return now_s > self._reading_deadline_s

    def leave(self) -> None:
        """Close where nothing has begun; refuse what has no whole head yet; else end with it."""
        if self.is_idle:
            self.transport.close()
        elif self._phase is Phase.HEAD and not self._is_answering:
            self._refuse(ending())

    def shutdown(self) -> None:
        """The server ends: the present request is the last; one that comes gets a 503."""
        if self._is_answering:
            self.cycle.keep_alive = False

    def _count(self, num_bytes: int) -> None:
        self._head_bytes += num_bytes
        if self._head_bytes > self._limits.header_bytes:
            self._stop(refusals.too_long_headers(self._limits))

    def _stop(self, error: DubitoError | str) -> None:
        """Refuse from within the parser."""
        self._refused = error
        raise _RefusedError

    def _refuse(self, error: DubitoError | str) -> None:
        """Answer with an error and linger; a text: why it is no HTTP, as the parser says.

        A reply that waits for its turn goes first, and is the last; one that has begun is cut off.
        """
        if self._is_lingering or self.transport.is_closing():
            return
        if self._is_answering and not self.cycle.more_body:  # the fault is in what came behind
            self._is_lingering = True
            self._deadline_s = self.loop.time() + 24 * 3600
            self.cycle.keep_alive = False
            return
        if self._is_answering and self.cycle.response_started:
            self.transport.abort()
            return
        url, headers = getattr(self, "url", b""), self.headers or ()
        self.transport.write(refusals.written(error, url, headers, self._always()))
        self._crowd.tell("malformed" if isinstance(error, str) else error.kind)
        if self._is_answering:  # its route sees a caller that went away
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._linger()

    def _always(self) -> list[tuple[bytes, bytes]]:
        """Headers of every reply."""
        return self.server_state.default_headers

    def _linger(self) -> None:
        self._unset_keepalive_if_required()
        self._is_lingering = True
        self._deadline_s = self.loop.time() + _LINGER_S
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
