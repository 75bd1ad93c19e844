"""What a replica asks of all: to see a change, to keep what was answered, to tell what was counted.

    a version is loaded, unloaded, or gets an alias → the others do, as `models/companions.py` says
    a change is made here  → the others look into the database → it is acknowledged
    a true outcome came    → the others write what they answered → its prediction is looked for
    `/metrics`             → the others tell what they counted → one page

So a client that was answered finds at every replica what it changed or was predicted. Who does not
answer in time is not waited for: it looks within `DUBITO_POLL_MS` by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Protocol

import structlog

from dubito.application import Application
from dubito.registry.noting import Change


class Ask(Protocol):
    """Calls a method of every replica."""

    def __call__(self, method: str, within_s: float, *words: object) -> Awaitable[Sequence[object]]:
        """Results, or what was raised.

        Args:
            method: its name.
            within_s: seconds for which it may take.
            words: its arguments.
        """


LOOKED, SETTLED, COUNTED, FOLLOWED = "looked", "settled", "counted", "followed"
"""Methods of a replica."""

_LOOKS_WITHIN_S = 1.0
_COUNTS_WITHIN_S = 5.0
_FOLLOWS_WITHIN_S = 60.0  # a large network may be read from a bucket
_log = structlog.get_logger(__name__)


class Peers:
    """All replicas, as one of them reaches them; made in its event loop's thread or before.

    Args:
        ask: asks them.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._loop: asyncio.AbstractEventLoop | None = None

    def join(self, application: Application) -> None:
        """Have an application tell the others of changes, and wait for what they answered.

        Called in the event loop of the replica.
        """
        self._loop = asyncio.get_running_loop()
        application.library.facts.tell_by(self._tell)
        application.monitoring.settle_by(self._settle)
        application.library.companions.tell_by(self._follow)

    async def counted(self) -> Mapping[str, bytes]:
        """The pages of metrics of the replicas that answer, by their names."""
        found = await self._within(COUNTED, _COUNTS_WITHIN_S)
        return dict(one for one in found if isinstance(one, tuple))

    def _tell(self) -> None:
        self._wait(LOOKED, _LOOKS_WITHIN_S)

    def _settle(self, within_s: float) -> None:
        self._wait(SETTLED, within_s)

    def _follow(self, change: Change) -> None:
        self._wait(FOLLOWED, _FOLLOWS_WITHIN_S, change)

    def _wait(self, method: str, within_s: float, *words: object) -> None:
        """Ask from a thread other than the event loop's."""
        if self._loop is None or self._loop.is_closed():
            return
        asked: Future[Sequence[object]] = asyncio.run_coroutine_threadsafe(
            self._within(method, within_s, *words), self._loop
        )
        with suppress(TimeoutError):
            asked.result(within_s)

    async def _within(self, method: str, within_s: float, *words: object) -> Sequence[object]:
        try:
            return await self._ask(method, within_s, *words)
        except Exception as error:  # whatever Ray raises: the change itself is made
            _log.warning("other replicas were not reached", asked=method, reason=str(error))
            return ()
