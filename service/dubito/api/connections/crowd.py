"""All connections of a server: who has to go where there are too many, or one is too slow.

Flow: a connection comes → `admit` makes room for it → every quarter of a second `watch` looks at
each: what is over its time is refused or ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from dubito.api.connections.limits import ConnectionLimits

_LOOK_S = 0.25
_EVICTED_AT_ONCE = 64
"""So that a flood does not have all connections compared for each of its own."""


class Watched(Protocol):
    """A connection, as far as the crowd is concerned."""

    idle_since_s: float
    has_served: bool

    @property
    def is_idle(self) -> bool:
        """Whether it is open, and nothing has begun on it."""

    def look(self, now_s: float) -> None:
        """Refuse or end what is over its time."""

    def leave(self) -> None:
        """Close, where nothing has begun."""


class Crowd:
    """The connections of a server.

    Args:
        limits: their bounds.

    Attributes:
        is_ending: whether what comes now is answered with 503.
        tell: called with the kind of error of what is refused before a route.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.is_ending = False
        self.tell: Callable[[str], None] = lambda reason: None
        self._present: set[Watched] = set()
        self._leaving: set[Watched] = set()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._present)

    @property
    def present(self) -> list[Watched]:
        """Those that there are now."""
        return list(self._present)

    def admit(self, connection: Watched) -> bool:
        """Make room for one more.

        Returns:
            Whether there is room.
        """
        self._present.add(connection)
        if len(self._present) - len(self._leaving) <= self.limits.connections:
            return True
        idle = [one for one in self._present if one.is_idle and one is not connection]
        for one in _longest_idle(idle)[:_EVICTED_AT_ONCE]:
            self._leaving.add(one)
            one.leave()
        return bool(idle)

    def remove(self, connection: Watched) -> None:
        """Forget one that is closed."""
        self._present.discard(connection)
        self._leaving.discard(connection)

    async def watch(self) -> None:
        """Look at all connections, again and again."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK_S)
            now_s = loop.time()
            for connection in self.present:
                connection.look(now_s)


def _longest_idle(connections: Iterable[Watched]) -> list[Watched]:
    """Those that never sent a request first."""
    return sorted(connections, key=lambda one: (one.has_served, one.idle_since_s))
