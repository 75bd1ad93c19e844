"""One replica: the application of `create_app` around the engines of one device, as Serve makes it.

Flow: Serve makes the actor → threads and loops as of a server → application → pinned models warm →
requests. Serve asks beside them whether it lives and how busy it is; other replicas, to see what
they changed, to keep what it answered, and what it counted.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from ray import serve
from starlette.types import ASGIApp

from dubito import threads
from dubito.api import create_app
from dubito.cluster.peer import Peer
from dubito.engine.summing.compiled import is_compiled, warm_up
from dubito.registry.noting import Change
from dubito.settings import Settings


@serve.ingress()
class Replica:
    """A replica, as Ray Serve makes one.

    Args:
        settings: of the server that it stands for.
    """

    def __init__(self, settings: Settings) -> None:
        prepare()
        name = serve.get_replica_context().replica_tag
        self._peer = Peer(create_app(settings), name, ask_all)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """The application that requests are for."""
        return self._peer.frame

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """See `Peer.load`."""
        return self._peer.load()

    async def check_health(self) -> None:
        """Have Serve replace a replica whose device's worker is silent."""
        self._peer.check_health()

    async def looked(self) -> None:
        """See `Peer.looked`."""
        await self._peer.looked()

    async def settled(self) -> None:
        """See `Peer.settled`."""
        await self._peer.settled()

    async def followed(self, change: Change) -> None:
        """See `Peer.followed`."""
        await self._peer.followed(change)

    async def counted(self) -> tuple[str, bytes]:
        """See `Peer.counted`."""
        return await self._peer.counted()


def prepare() -> None:
    """Threads and loops as of a server."""
    threads.prepare(os.environ, is_server=True)
    if is_compiled(torch.device("cpu")):
        warm_up()


async def ask_all(method: str, within_s: float, *words: object) -> Sequence[object]:
    """Call a method of all replicas of the deployment that this process is one of.

    Args:
        method: its name.
        within_s: seconds for which it may take.
        words: its arguments.

    Returns:
        What they returned, or raised.
    """
    context = serve.get_replica_context()
    handle = serve.get_deployment_handle(context.deployment, context.app_name)
    asked = handle.broadcast(method, *words)
    found: Sequence[object] = await asked.results_async(timeout_s=within_s, return_exceptions=True)
    return found
