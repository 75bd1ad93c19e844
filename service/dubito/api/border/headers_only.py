"""HEAD on every path that answers GET: the same headers, and no body (RFC 9110, 9.3.2).

The request goes on as a GET, so that its headers, its key and its errors are those of a GET. What
would write the body is cancelled as soon as the headers are out; a stream never begins.
"""

from __future__ import annotations

from anyio import CancelScope
from anyio.lowlevel import checkpoint
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadersOnlyMiddleware:
    """Answers HEAD with the headers of GET."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        with CancelScope() as rest:

            async def send_headers(message: Message) -> None:
                if message["type"] == "http.response.start":
                    await send(message)
                    await send({"type": "http.response.body", "body": b""})
                    rest.cancel()
                    await checkpoint()

            await self._app({**scope, "method": "GET"}, receive, send_headers)
