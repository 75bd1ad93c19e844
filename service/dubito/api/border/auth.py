"""The bearer key: asked on every path but `/health/*` whenever one is set.

It stands before the router, so that a route nobody thought of is shut as well.
"""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from dubito.addresses import is_loopback
from dubito.api.border.context import request_id
from dubito.api.border.errors import error_response
from dubito.errors import InputError, UnauthorizedError
from dubito.names import ANONYMOUS
from dubito.settings import Settings

KEY_NAME = "key"  # the one key of the settings has no other name
_ACTOR = "dubito.actor"
MISSING_KEY = (
    "expected the header `Authorization: Bearer KEY` with the server's key, got none or another "
    "one: ask whoever runs the server for it"
)
_OPEN_PATHS = frozenset({"/health/live", "/health/ready"})


class AuthMiddleware:
    """Refuses what comes without the key.

    Args:
        app: what is guarded.
        key: the key; None lets everything through.
    """

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        self._app = app
        self._key = None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or answer 401."""
        if scope["type"] == "lifespan" or self._key is None or scope["path"] in _OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        if is_key(Headers(scope=scope).get("authorization", ""), self._key):
            scope[_ACTOR] = KEY_NAME
            await self._app(scope, receive, send)
            return
        error = UnauthorizedError(MISSING_KEY)
        response = error_response(error, request_id(HTTPConnection(scope)))
        await response(scope, receive, send)


def actor(request: HTTPConnection) -> str:
    """The name of the key that a request came with, for the audit."""
    name: str = request.scope.get(_ACTOR, ANONYMOUS)
    return name


def is_key(header: str, key: bytes) -> bool:
    """Whether the header `Authorization` has the key."""
    scheme, _, sent = header.partition(" ")
    is_equal = hmac.compare_digest(sent.strip().encode("latin-1"), key)
    return is_equal and scheme.lower() == "bearer"


def check_bind(settings: Settings) -> None:
    """Refuse to serve on an open address without a key.

    Args:
        settings: host, key, and whether the caller insists.

    Raises:
        InputError: the address is not loopback, there is no key, and `insecure` is not set.
    """
    if settings.api_key is not None or settings.insecure or is_loopback(settings.host):
        return
    raise InputError(
        f"host {settings.host}: expected a loopback address or a key, got neither: "
        "set DUBITO_API_KEY, or add --insecure to serve anyone who can reach the port"
    )
