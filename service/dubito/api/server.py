"""The HTTP server: uvicorn's, which ends streams before it waits for its connections to close."""

from __future__ import annotations

import socket

import uvicorn
from fastapi import FastAPI

from dubito.api.border.access import Access


class Server(uvicorn.Server):
    """Serves the application until it is told to end.

    A stream of events lives as long as its job, and would hold a shutdown up until its time is out.

    Args:
        config: of uvicorn, for the same application.
        app: what `create_app` returned.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, end streams, let other requests finish, and close."""
        access: Access = self._app.state.access
        access.is_ending.set()
        await super().shutdown(sockets)
