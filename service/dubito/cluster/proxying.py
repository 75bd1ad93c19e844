"""What Serve's proxies do for Dubito before a replica is chosen, and with what no replica answers.

Flow: request → its model, by which it is routed → whether it has an id of its own → Serve → a
refusal of Serve's own becomes one of ours; no reply at all, a 503. Connections are bounded as those
of one server (`doors`).

Serve imports `middlewares` in its proxies, by the variable that `deploying` sets for them. It reads
the settings there as every server does.
"""

from __future__ import annotations

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dubito.api.border.browsers import security_headers
from dubito.api.border.errors import error_response
from dubito.cluster import doors
from dubito.cluster.headers import MODEL, NO_ID
from dubito.errors import DubitoError, QueueFullError, UnavailableError
from dubito.settings import Settings

_MODEL_IN_PATH = re.compile(r"/v[12]/(?:repository/)?models/([a-z][a-z0-9._-]{0,63})(?:/|$)")
_OWN_PATHS = "/-/"  # of Serve, for probes
_RETRY_S = 2.0


def middlewares() -> list[Middleware]:
    """What stands around a proxy, whose connections are bounded from here on."""
    settings = Settings()
    doors.bound(settings)
    return [Middleware(Guard, settings=settings)]


class Guard:
    """The frame of a proxy.

    Args:
        app: the proxy.
        settings: what browsers are told.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._headers = security_headers(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        if scope["type"] != "http" or scope["path"].startswith(_OWN_PATHS):
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id")
        scope = {**scope, "headers": _headers(scope, has_id=given is not None)}
        reply = _Reply(send)
        await self._app(scope, receive, reply.send)
        if reply.refused is not None or not reply.is_begun:
            response = error_response(reply.refused or _gone(), given or "")
            response.headers.update(dict(self._headers))
            await response(scope, _nothing, send)


class _Reply:
    """A reply on its way: Serve's own refusals are held back."""

    def __init__(self, send: Send) -> None:
        self._send_on = send
        self.is_begun = False
        self.refused: DubitoError | None = None

    async def send(self, message: Message) -> None:
        if self.refused is not None:
            return
        if message["type"] == "http.response.start":
            self.refused = _as_ours(message)
            if self.refused is not None:
                return
            self.is_begun = True
            _name_once(message)
        await self._send_on(message)


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


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
