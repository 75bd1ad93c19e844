"""The connections of Serve's proxies: uvicorn's, with the bounds that those of one server have.

Serve makes the HTTP server of a proxy itself and leaves the protocol to uvicorn. Flow: `bound` puts
`connection` in the place of uvicorn's own, before the server of this process is made → the first
connection begins the watch over all.
"""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn.config
from uvicorn.server import ServerState

from dubito.api.border.browsers import security_headers
from dubito.api.connections.connection import Connection
from dubito.api.connections.crowd import Crowd
from dubito.api.connections.limits import ConnectionLimits
from dubito.settings import Settings

SETTINGS = (
    *("max_connections", "max_headers", "max_header_bytes", "header_timeout_ms"),
    *("transfer_timeout_ms", "min_transfer_rate"),
)
"""What a proxy has to be told of, since it is bounded by them."""

_door: Door | None = None


def bound(settings: Settings) -> None:
    """Bound all connections of the HTTP server that this process makes next."""
    global _door  # uvicorn imports `connection` by its name, and hands it nothing of ours
    _door = Door(settings)
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:connection"


def connection(**given: Any) -> Connection:
    """A connection of the bounded server; its arguments are uvicorn's."""
    assert _door is not None  # `bound` made it
    return _door.connection(**given)


class Door:
    """Where all connections of a proxy come in.

    Args:
        settings: their bounds, and what browsers are told.
    """

    def __init__(self, settings: Settings) -> None:
        self.crowd = Crowd(ConnectionLimits.of(settings))
        self._headers = [
            (name.encode(), value.encode()) for name, value in security_headers(settings)
        ]
        self._watch: asyncio.Task[None] | None = None

    def connection(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> Connection:
        """One more; the first begins the watch."""
        if self._watch is None:
            self._watch = asyncio.get_running_loop().create_task(self.crowd.watch())
        made = _Proxied(config, server_state, app_state, _loop, crowd=self.crowd)
        made.beside = self._headers
        return made


class _Proxied(Connection):
    """A connection whose refusals have the headers that replicas put on replies."""

    beside: list[tuple[bytes, bytes]]

    def _always(self) -> list[tuple[bytes, bytes]]:
        return [*super()._always(), *self.beside]
