"""One replica: the application of `create_app` around the engines of one device.

Flow: Serve makes the actor → threads and loops as of a server → application → pinned models warm →
requests. Serve asks beside them whether it lives and how busy it is; other replicas, what it
counted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import torch
from anyio import to_thread
from fastapi import FastAPI
from ray import serve
from starlette.types import ASGIApp

from dubito import threads
from dubito.api import create_app
from dubito.api.border.access import Access
from dubito.cluster.frame import ReplicaFrame
from dubito.engine.summing.compiled import is_compiled, warm_up
from dubito.settings import Settings

_PATIENCE_S = 5.0  # with other replicas that are asked for what they counted


@serve.ingress()
class Replica:
    """A replica, as Ray Serve makes one.

    Args:
        settings: of the server that it stands for.
    """

    def __init__(self, settings: Settings) -> None:
        threads.prepare(os.environ, is_server=True)
        if is_compiled(torch.device("cpu")):
            warm_up()
        self._context = serve.get_replica_context()
        self._dubito: FastAPI = create_app(settings)
        self._counted_s = 0.0
        self._looked_s = time.monotonic()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """The application that requests are for."""
        return ReplicaFrame(self._dubito, self._context.replica_tag, self._others)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """How busy the replica was since the last look, and the seconds of work that wait."""
        application = self._access.application
        now_s, counted_s = time.monotonic(), application.telemetry.computed_s()
        busy = (counted_s - self._counted_s) / max(now_s - self._looked_s, 1e-3)
        self._counted_s, self._looked_s = counted_s, now_s
        return {"busy": min(1.0, busy), "ahead_s": application.worker.entrance.ahead_s()}

    async def check_health(self) -> None:
        """Have Serve replace a replica whose device's worker is silent.

        Raises:
            RuntimeError: it is.
        """
        if not self._access.application.vitals.is_live():
            raise RuntimeError("the worker of the device does not answer")

    async def counted(self) -> tuple[str, bytes]:
        """The name of this replica, and its metrics."""
        telemetry = self._access.application.telemetry
        return self._context.replica_tag, await to_thread.run_sync(telemetry.text)

    @property
    def _access(self) -> Access:
        access: Access = self._dubito.state.access
        return access

    async def _others(self) -> Mapping[str, bytes]:
        handle = serve.get_deployment_handle(self._context.deployment, self._context.app_name)
        return dict(await handle.broadcast("counted").results_async(timeout_s=_PATIENCE_S))
