"""What Serve's proxies do for Dubito before a replica is chosen, and with what no replica answers.

Flow: request → its model, by which it is routed → whether it has an id of its own → body, within a
pause → Serve → a refusal of Serve's own becomes one of ours; no reply at all, a 503.

Serve imports `middlewares` in its proxies, by the variable that `deploying` sets for them. It reads
the settings there as every server does.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dubito.api.border.browsers import security_headers
from dubito.api.border.errors import error_response
from dubito.cluster.headers import MODEL, NO_ID
from dubito.errors import DubitoError, QueueFullError, SlowRequestError, UnavailableError
from dubito.settings import Settings

_MODEL_IN_PATH = re.compile(r"/v[12]/(?:repository/)?models/([a-z][a-z0-9._-]{0,63})(?:/|$)")
_OWN_PATHS = "/-/"  # of Serve, for probes
_RETRY_S = 2.0


def middlewares() -> list[Middleware]:
    """What stands around a proxy."""
    return [Middleware(Guard, settings=Settings())]


class Guard:
    """The frame of a proxy.

    Args:
        app: the proxy.
        settings: how long a body may pause, and what browsers are told.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._pause_s = settings.transfer_timeout_ms / 1000
        self._headers = security_headers(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        if scope["type"] != "http" or scope["path"].startswith(_OWN_PATHS):
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id")
        scope = {**scope, "headers": _headers(scope, has_id=given is not None)}
        reply = _Reply(send, scope)
        with suppress(_PauseError):  # which Serve may also keep to itself
            await self._app(scope, self._patient(receive, reply), reply.send)
        if reply.is_late:
            await self._refuse(reply, _slow(self._pause_s), given)
        elif reply.refused is not None or not reply.is_begun:
            await self._refuse(reply, reply.refused or _gone(), given)

    def _patient(self, receive: Receive, reply: _Reply) -> Receive:
        """Messages of a body that do not pause for long, until the reply begins."""
        is_over = False

        async def receive_soon() -> Message:
            nonlocal is_over
            if is_over or reply.is_begun:
                return await receive()
            try:
                async with asyncio.timeout(self._pause_s):
                    message = await receive()
            except TimeoutError as error:
                reply.is_late = True
                raise _PauseError from error
            is_over = not message.get("more_body", False)
            return message

        return receive_soon

    async def _refuse(self, reply: _Reply, error: DubitoError, given: str | None) -> None:
        response = error_response(error, given or "")
        response.headers.update(dict(self._headers))
        await response(reply.scope, _nothing, reply.send_on)


class _PauseError(Exception):
    """A body stopped."""


class _Reply:
    """A reply on its way: Serve's own refusals are held back."""

    def __init__(self, send: Send, scope: Scope) -> None:
        self.send_on = send
        self.scope = scope
        self.is_begun = False
        self.is_late = False
        self.refused: DubitoError | None = None

    async def send(self, message: Message) -> None:
        if self.is_late or self.refused is not None:
            return
        if message["type"] == "http.response.start":
            self.refused = _as_ours(message)
            if self.refused is not None:
                return
            self.is_begun = True
            _name_once(message)
        await self.send_on(message)


def _headers(scope: Scope, *, has_id: bool) -> list[tuple[bytes, bytes]]:
    """Those of the request, with the model, and without what only a proxy may say."""
    kept = [(name, value) for name, value in scope["headers"] if _plain(name) not in _FORGED]
    found = _MODEL_IN_PATH.match(scope["path"])
    if found is not None:
        kept.append((MODEL, found[1].encode()))
    return kept if has_id else [*kept, (NO_ID, b"1")]


def _plain(name: bytes) -> bytes:
    return name.lower().replace(b"_", b"-")


_FORGED = frozenset({_plain(NO_ID), _plain(MODEL)})


def _as_ours(start: Message) -> DubitoError | None:
    """Serve's own refusal in our words; None of what a replica answered."""
    status, kind = start["status"], Headers(raw=start["headers"]).get("content-type", "")
    if status < 400 or not kind.startswith("text/plain"):
        return None
    if status == 429:
        return QueueFullError(
            "too many requests wait for a replica: try again later", retry_after_s=_RETRY_S
        )
    return _gone()


def _name_once(start: Message) -> None:
    """Leave one id in a reply: the one that the application gave it."""
    headers = MutableHeaders(raw=list(start["headers"]))
    ids = headers.getlist("x-request-id")
    if len(ids) > 1:
        del headers["x-request-id"]
        headers["x-request-id"] = ids[0]
        start["headers"] = headers.raw


def _gone() -> UnavailableError:
    return UnavailableError(
        "the replica that had the request is gone, or none is ready: try again later",
        retry_after_s=_RETRY_S,
    )


def _slow(pause_s: float) -> SlowRequestError:
    return SlowRequestError(
        f"body: expected no pause of more than {pause_s:g} seconds, got a longer one: send it again"
    )


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
