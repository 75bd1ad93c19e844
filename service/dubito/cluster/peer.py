"""One replica without Serve: an application in its frame, and what others ask of it."""

from __future__ import annotations

import time

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI

from dubito.api.border.access import Access
from dubito.application import Application
from dubito.cluster.frame import ReplicaFrame
from dubito.cluster.peers import Ask, Peers
from dubito.registry.noting import Change

_SETTLES_WITHIN_S = 5.0


class Peer:
    """A replica among others.

    Args:
        app: what `create_app` returned.
        name: of the replica.
        ask: asks all of them.

    Attributes:
        frame: the application that requests are for.
    """

    def __init__(self, app: FastAPI, name: str, ask: Ask) -> None:
        self._app = app
        self._name = name
        self.frame = ReplicaFrame(app, name, Peers(ask))
        self._settling = CapacityLimiter(1)  # apart from threads that may wait for others to settle
        self._following = CapacityLimiter(1)  # so are those that may wait for others to load
        self._counted_s = 0.0
        self._looked_s = time.monotonic()

    def load(self) -> dict[str, float]:
        """How busy the replica was since the last look, and the seconds of work that wait."""
        application = self._application
        now_s, counted_s = time.monotonic(), application.telemetry.computed_s()
        busy = (counted_s - self._counted_s) / max(now_s - self._looked_s, 1e-3)
        self._counted_s, self._looked_s = counted_s, now_s
        return {"busy": min(1.0, busy), "ahead_s": application.worker.entrance.ahead_s()}

    def check_health(self) -> None:
        """Refuse to go on with a device whose worker is silent.

        Raises:
            RuntimeError: it is.
        """
        if not self._application.vitals.is_live():
            raise RuntimeError("the worker of the device does not answer")

    async def looked(self) -> None:
        """See what others changed."""
        self._application.library.facts.look()  # which is quick, and waits for no thread

    async def settled(self) -> None:
        """Keep what was answered so far."""
        await to_thread.run_sync(
            self._application.monitoring.settle, _SETTLES_WITHIN_S, limiter=self._settling
        )

    async def followed(self, change: Change) -> None:
        """Load or unload what another one was asked to."""
        library = self._application.library
        await to_thread.run_sync(library.follow, change, limiter=self._following)

    async def counted(self) -> tuple[str, bytes]:
        """The name of this replica, and its metrics."""
        return self._name, await to_thread.run_sync(self._application.telemetry.text)

    @property
    def _application(self) -> Application:
        access: Access = self._app.state.access
        return access.application
