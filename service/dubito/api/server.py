"""The HTTP server: uvicorn's, with bounded connections, and an end that leaves nobody unanswered.

Flow of the end: no new connection → those that the system has taken already are taken too → what is
being answered is finished, what comes now gets a 503, who is silent is let go → at the limit what
is left gets a 503 → the application ends.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial

import uvicorn
from fastapi import FastAPI

from dubito.api.border.access import Access
from dubito.api.border.browsers import security_headers
from dubito.api.connections.connection import Connection
from dubito.api.connections.crowd import Crowd
from dubito.api.connections.limits import ConnectionLimits
from dubito.settings import Settings

_QUIET_S = 0.5
"""How long bytes that lie unread are waited for, once no new connection is taken."""

_LAST_S = 2.0
"""Time for the last replies to leave."""

_TICK_S = 0.02

_DOORS = 16
"""Times that a socket is listened at: at each, uvloop takes one connection a turn of its loop."""


class Server(uvicorn.Server):
    """Serves the application until it is told to end.

    Args:
        config: of uvicorn, for the same application.
        app: what `create_app` returned.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app
        settings: Settings = app.state.settings
        self.crowd = Crowd(ConnectionLimits.of(settings))
        self._listening: list[socket.socket] = []
        config.http = partial(Connection, crowd=self.crowd)  # type: ignore[assignment]
        config.ws = "none"
        config.headers = [*config.headers, *security_headers(settings)]
        config.ssl_certfile, config.ssl_keyfile = settings.tls_cert, settings.tls_key

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen.

        A loop that is busy turns slowly, and connections that wait to be taken would wait for as
        many turns as there are of them.
        """
        if sockets:
            sockets = [*sockets, *(one.dup() for one in sockets for _ in range(_DOORS - 1))]
            self._listening = sockets
        await super().startup(sockets)
        self.crowd.tell = self._access.application.telemetry.rejected
        self._watch = asyncio.create_task(self.crowd.watch())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what was accepted, within the limit, and end."""
        loop, access = asyncio.get_running_loop(), self._access
        began_s = loop.time()
        access.is_ending.set()  # streams end
        self.crowd.is_ending = True
        await self._close_the_door(self._listening or sockets or [])
        for connection in list(self.server_state.connections):
            connection.shutdown()
        quiet_s = loop.time() + _QUIET_S
        while len(self.crowd) and loop.time() < began_s + self.crowd.limits.drain_s:
            if self.force_exit:
                break
            if loop.time() > quiet_s:
                for watched in self.crowd.present:
                    watched.leave()
            await asyncio.sleep(_TICK_S)
        await self._end_the_rest()
        self._watch.cancel()
        if not self.force_exit:
            await self.lifespan.shutdown()

    async def _close_the_door(self, sockets: list[socket.socket]) -> None:
        """Take what the system has accepted, then listen no more.

        Closing resets all connections that wait to be taken. So the system is told first to accept
        no others.
        """
        for listening in sockets:
            listening.listen(0)
        num_before = -1
        while num_before != (num_before := len(self.crowd)):
            await asyncio.sleep(_TICK_S)
        for server in self.servers:
            server.close()
        for listening in sockets:
            listening.close()

    async def _end_the_rest(self) -> None:
        """Give what is not answered yet a 503, and close all connections."""
        self._access.is_over.set()
        for task in list(self.server_state.tasks):
            task.cancel()
        loop = asyncio.get_running_loop()
        last_s = loop.time() + _LAST_S
        while len(self.crowd) and loop.time() < last_s and not self.force_exit:
            for watched in self.crowd.present:
                watched.leave()
            await asyncio.sleep(_TICK_S)
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    @property
    def _access(self) -> Access:
        access: Access = self._app.state.access
        return access
