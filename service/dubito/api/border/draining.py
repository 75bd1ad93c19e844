"""A refusal that comes before the body was read: the rest is read and dropped, then it is sent.

A server that answers and closes while bytes are still on their way resets the connection, and many
clients then never see the answer. Within bounds, and not where the client waits for leave to send
(`Expect: 100-continue`), which it simply does not get.
"""

from __future__ import annotations

from anyio import move_on_after
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dubito.api.border.headers import header

_MOST_BYTES = 128 * 2**20
_MOST_S, _IDLE_S = 10.0, 1.0
_REFUSALS = frozenset({*range(400, 500), 503, 507})


class DrainingMiddleware:
    """Reads what is left of a body before a refusal is sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        if scope["type"] != "http" or header(scope, b"expect"):
            await self._app(scope, receive, send)
            return
        is_over, num_bytes = False, 0

        async def receive_and_note() -> Message:
            nonlocal is_over, num_bytes
            message = await receive()
            is_over = is_over or not message.get("more_body", False)  # a disconnection has none
            num_bytes += len(message.get("body", b""))
            return message

        async def send_after_the_rest(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in _REFUSALS:
                with move_on_after(_MOST_S):
                    while not is_over and num_bytes < _MOST_BYTES:
                        with move_on_after(_IDLE_S) as patience:
                            await receive_and_note()
                        if patience.cancelled_caught:
                            break
            await send(message)

        await self._app(scope, receive_and_note, send_after_the_rest)
