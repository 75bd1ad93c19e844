"""Waiting for a job: the deadline of the request, and a caller who goes away."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from starlette.datastructures import Headers
from starlette.requests import Request

from dubito.api.border.errors import FieldProblem, FieldsError
from dubito.errors import DeadlineError, UnavailableError
from dubito.serving.worker import Job
from dubito.settings import Settings

T = TypeVar("T")

_HEADER = "X-Request-Timeout-Ms"
_LONGEST_MS = 24 * 3600 * 1000


@asynccontextmanager
async def deadline(request: Request, settings: Settings) -> AsyncIterator[float]:
    """Bound what is done inside by the request's deadline.

    Args:
        request: may carry `X-Request-Timeout-Ms`.
        settings: the deadline of one that does not, and the latest that may be asked for.

    Yields:
        The deadline on the clock of `time.monotonic`, in seconds.

    Raises:
        DeadlineError: it passed.
    """
    timeout_ms = timeout_of(request.headers, settings)
    timeout = asyncio.timeout(timeout_ms / 1000)
    try:
        async with timeout:
            yield time.monotonic() + timeout_ms / 1000
    except TimeoutError as error:
        if not timeout.expired():
            raise
        raise DeadlineError(
            f"expected an answer within {timeout_ms} ms, got none: allow more time with {_HEADER}, "
            "or ask for fewer rows or samples"
        ) from error


def timeout_of(headers: Headers, settings: Settings) -> int:
    """Milliseconds until the deadline of a request.

    Raises:
        FieldsError: what the header says is no such number.
    """
    text = headers.get(_HEADER)
    if text is None:
        return settings.request_timeout_ms
    if not (re.fullmatch("[0-9]{1,9}", text) and 0 < int(text) <= _LONGEST_MS):
        problem = f"expected milliseconds from 1 to {_LONGEST_MS}, got {text[:40]!r}: correct it"
        raise FieldsError([FieldProblem(_HEADER, problem)])
    return min(int(text), max(settings.max_request_timeout_ms, settings.request_timeout_ms))


async def outcome(job: Job[T], request: Request) -> T:
    """Wait for what a job returns; the job is abandoned where nobody waits for it any more.

    Raises:
        DubitoError: whatever the job raised.
    """
    future = asyncio.wrap_future(job.future)
    future.add_done_callback(_mark_seen)
    gone = asyncio.ensure_future(_disconnected(request))
    both: set[asyncio.Future[T] | asyncio.Future[None]] = {future, gone}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            raise UnavailableError("the caller went away before the answer was there")
        return future.result()
    finally:
        gone.cancel()
        if not job.future.done():
            job.abandon()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _mark_seen(future: asyncio.Future[T]) -> None:
    """Look at the error of an abandoned job, which nobody else will."""
    if not future.cancelled():
        future.exception()
