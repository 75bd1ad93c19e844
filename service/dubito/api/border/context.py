"""The outermost frame of a request: its id, its log lines, and the answer to the unforeseen.

The id is the caller's `X-Request-Id` where it follows the pattern; else a digest of method, path,
query and, once it was read to its end, the body. So the same request gives the same bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dubito.api.border.access import access_of
from dubito.api.border.errors import error_response
from dubito.api.border.headers import header
from dubito.errors import DubitoError, UnavailableError

if TYPE_CHECKING:
    from dubito.telemetry.tracing import RequestSpan

_KEY = "dubito.context"
_REASON = "dubito.reason"
_VERSION = "dubito.version"
_SPAN = "dubito.span"
CALLER = "dubito.caller"  # set by `auth`
OTHER_ROUTE = "(none)"
CALLERS_ID = re.compile("[A-Za-z0-9._:-]{1,128}")
_DIGEST_BYTES = 12
_HELD_BYTES = 2047
"""Digested at once: beyond it, hashlib lets go of the interpreter, and waits to get it back."""

_log = structlog.get_logger(__name__)


class RequestContext:
    """The id of one request; it is settled when it is first asked for."""

    def __init__(self, scope: Scope) -> None:
        self._id = callers_id((header(scope, b"x-request-id") or "").encode("latin-1"))
        head = "\0".join([scope["method"], scope["path"], scope["query_string"].decode("latin-1")])
        self._head = hashlib.blake2b(head.encode() + b"\0", digest_size=_DIGEST_BYTES)
        self._body = self._head.copy()
        self._is_complete = False

    def feed(self, message: Message) -> None:
        """Take in one message of the body."""
        if message["type"] == "http.request" and self._id is None:
            body: bytes = message.get("body", b"")
            for start in range(0, len(body), _HELD_BYTES):
                self._body.update(body[start : start + _HELD_BYTES])
            self._is_complete = not message.get("more_body", False)

    @property
    def request_id(self) -> str:
        """Return the id, settled now if it is not yet."""
        if self._id is None:
            self._id = (self._body if self._is_complete else self._head).hexdigest()
        return self._id


def callers_id(header: bytes) -> str | None:
    """The id that a caller gives; None where it does not follow the pattern."""
    id = header.decode("latin-1")
    return id if CALLERS_ID.fullmatch(id) else None


def request_id(connection: HTTPConnection) -> str:
    """The id of the present request."""
    context: RequestContext = connection.scope[_KEY]
    return context.request_id


class ContextMiddleware:
    """Gives every request its context, echoes the id, and turns the unforeseen into a 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = scope[_KEY] = RequestContext(scope)
        _begin_span(scope)
        began_s, status = time.perf_counter(), 0

        async def receive_and_feed() -> Message:
            message = await receive()
            context.feed(message)
            return message

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                named = (b"x-request-id", context.request_id.encode())
                message["headers"] = [*message.get("headers", ()), named]
            await send(message)

        try:
            await self._app(scope, receive_and_feed, send_with_id)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if status or task is None or not access_of(scope).is_over.is_set():
                raise
            task.uncancel()
            response = refusal(scope, ending())
            await response(scope, receive, send_with_id)
        except Exception:
            _log.exception(
                "unforeseen error",
                request_id=context.request_id,
                method=scope["method"],
                path=scope["path"],
            )
            if status:
                raise
            response = refusal(scope, internal_error())
            await response(scope, receive, send_with_id)
        finally:
            _tell(scope, status, time.perf_counter() - began_s)


def refusal(scope: Scope, error: DubitoError) -> Response:
    """The answer to an error, of which telemetry is told."""
    note_reason(scope, error)
    context: RequestContext = scope[_KEY]
    return error_response(error, context.request_id)


def note_reason(scope: Scope, error: DubitoError) -> None:
    """Why a request is refused, for telemetry."""
    scope[_REASON] = error.kind


def note_version(connection: HTTPConnection, version: int) -> None:
    """The version that answers a request, for its line in the log."""
    connection.scope[_VERSION] = version


def _tell(scope: Scope, status: int, seconds: float) -> None:
    """Tell telemetry, and the log where it is wanted, of a request that is over; 0: no reply."""
    held = access_of(scope)
    route = scope.get("route")
    template = getattr(route, "path", OTHER_ROUTE)
    method = scope["method"] if route is not None else OTHER_ROUTE
    telemetry = held.application.telemetry
    telemetry.request(template, method, status, seconds)
    if status >= HTTPStatus.BAD_REQUEST:
        telemetry.rejected(
            scope.get(_REASON) or HTTPStatus(status).phrase.lower().replace(" ", "-")
        )
    span: RequestSpan | None = scope.get(_SPAN)
    is_logged = held.settings.log_requests
    told = _told(scope) if is_logged or span is not None else {}
    if span is not None:
        known = {f"dubito.{name}": value for name, value in told.items()}
        known |= {"http.request.method": scope["method"], "http.route": template}
        span.end(f"{method} {template}", status, known)
        told["trace_id"] = span.trace_id
    if is_logged:
        told |= {"method": scope["method"], "route": template, "status": status}
        _log.info("request", **told, seconds=round(seconds, 6))


def _begin_span(scope: Scope) -> None:
    """Trace a request, where traces are made."""
    tracing = access_of(scope).application.telemetry.tracing
    if tracing is not None:
        scope[_SPAN] = tracing.begin(scope["method"], Headers(scope=scope))


def _told(scope: Scope) -> dict[str, str | int]:
    """What log and trace say of a request: its id, who asked, and of which version."""
    context: RequestContext = scope[_KEY]
    caller = scope.get(CALLER)
    parts = scope.get("path_params", {})
    told = {
        "request_id": context.request_id,
        "key": None if caller is None else caller.name,
        "model": parts.get("model"),
        "version": scope.get(_VERSION, parts.get("version")),
    }
    return {name: value for name, value in told.items() if value is not None}


def ending() -> DubitoError:
    """The error of what cannot be answered any more, since the server ends."""
    return UnavailableError(
        "the server is shutting down: send the request to another one or try again later",
        retry_after_s=5.0,
    )


def internal_error() -> DubitoError:
    """The error that says nothing about what happened."""
    return DubitoError("internal error: the log has the details under the request id")
