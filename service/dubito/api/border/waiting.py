"""Waiting for a job: the deadline of the request, and a caller who goes away."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress
from types import TracebackType
from typing import TypeVar

from starlette.requests import Request
from starlette.types import Scope

from dubito.api.border.errors import FieldProblem, FieldsError
from dubito.api.border.headers import header
from dubito.errors import DeadlineError, UnavailableError
from dubito.serving.worker import Job
from dubito.settings import Settings

T = TypeVar("T")

_HEADER = "X-Request-Timeout-Ms"
_LONGEST_MS = 24 * 3600 * 1000
_WATCHED_AFTER_S = 0.1


class Deadline:
    """Bounds what is done inside by the deadline of a request.

    Entering it gives the deadline on the clock of `time.monotonic`, in seconds.

    Args:
        request: may carry `X-Request-Timeout-Ms`.
        settings: the deadline of one that does not, and the latest that may be asked for.

    Raises:
        DeadlineError: it passed.
    """

    def __init__(self, request: Request, settings: Settings) -> None:
        self._timeout_ms = timeout_of(request.scope, settings)
        self._timeout = asyncio.timeout(self._timeout_ms / 1000)

    async def __aenter__(self) -> float:
        await self._timeout.__aenter__()
        return time.monotonic() + self._timeout_ms / 1000

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError as late:
            raise DeadlineError(
                f"expected an answer within {self._timeout_ms} ms, got none: allow more time with "
                f"{_HEADER}, or ask for fewer rows or samples"
            ) from late


def timeout_of(scope: Scope, settings: Settings) -> int:
    """Milliseconds until the deadline of a request.

    Raises:
        FieldsError: what the header says is no such number.
    """
    text = header(scope, b"x-request-timeout-ms")
    if text is None:
        return settings.request_timeout_ms
    if not (re.fullmatch("[0-9]{1,9}", text) and 0 < int(text) <= _LONGEST_MS):
        problem = f"expected milliseconds from 1 to {_LONGEST_MS}, got {text[:40]!r}: correct it"
        raise FieldsError([FieldProblem(_HEADER, problem)])
    return min(int(text), max(settings.max_request_timeout_ms, settings.request_timeout_ms))


async def outcome(job: Job[T], request: Request) -> T:
    """Wait for what a job returns; the job is abandoned where nobody waits for it any more.

    Whether the caller is still there is looked at once the wait is a long one: most are shorter
    than what it takes to look.

    Raises:
        DubitoError: whatever the job raised.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    watches: list[asyncio.Task[None]] = []

    def tell(future: object = None) -> None:
        if not done.done():
            done.set_result(None)

    def tell_from_thread(future: object) -> None:
        with suppress(RuntimeError):  # the loop has ended, and nobody waits
            loop.call_soon_threadsafe(tell)

    def watch() -> None:
        watches.append(asyncio.ensure_future(_disconnected(request)))
        watches[0].add_done_callback(tell)

    job.future.add_done_callback(tell_from_thread)
    begins = loop.call_later(_WATCHED_AFTER_S, watch)
    try:
        await done
        if not job.future.done():
            raise UnavailableError("the caller went away before the answer was there")
        return job.future.result()
    finally:
        begins.cancel()
        for one in watches:
            one.cancel()
        if not job.future.done():
            job.abandon()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
