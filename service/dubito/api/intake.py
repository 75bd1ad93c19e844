"""From a body to an answer, as all routes that use the device do it.

Flow: a place in the queue → the body within its limit → is there time for it? → decoded and queued
in a thread → wait for the job, at most until the deadline → the answer, made in a thread. What is
short goes without threads: to hand it over and back would take longer than the work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from anyio import to_thread
from fastapi import Request
from fastapi.responses import Response

from dubito.answered import CalibrateReply, EvaluateReply, PredictReply, SelectReply
from dubito.api.border.access import Access, access
from dubito.api.border.admitting import line_of
from dubito.api.border.auth import caller_of
from dubito.api.border.bodies import LONG_BYTES, media_type, read_body
from dubito.api.border.context import note_version
from dubito.api.border.long_json import PIECE_BYTES
from dubito.api.border.replies import json_response
from dubito.api.border.waiting import Deadline, outcome
from dubito.api.pages.work import AcceptedPage
from dubito.columns import num_entries
from dubito.keys import Caller
from dubito.media import ROWS
from dubito.registry import JobFact
from dubito.serving.worker import Job, Reservation

T = TypeVar("T")

_SHORT_ENTRIES = 10_000  # of an answer, which are written in a millisecond or two
_WITH_VERSION = (PredictReply, CalibrateReply, EvaluateReply, SelectReply)


@dataclass(frozen=True)
class AtOnce(Generic[T]):
    """What a route does without a thread.

    Args:
        start: decodes a short body and queues its job; None where that has to wait for something.
        is_short: whether the answer to a result is made in a moment.
    """

    start: Callable[[Received], Job[T] | None]
    is_short: Callable[[T], bool]


@dataclass(frozen=True)
class Received:
    """A body that was read, and the reservation in the queue that its job will take.

    Args:
        held: the application and its settings.
        kind: content type of the body.
        body: all of it.
        query: parameters of the query, in order.
        reservation: held until the answer is there.
        deadline_s: on the clock of `time.monotonic`.
        caller: who asks.
    """

    held: Access
    kind: str
    body: bytes
    query: list[tuple[str, str]]
    reservation: Reservation
    deadline_s: float
    caller: Caller


def is_short(reply: PredictReply) -> bool:
    """Whether the answer to a prediction is made in a moment."""
    return num_entries(reply.outputs) <= _SHORT_ENTRIES


async def answered(
    request: Request,
    kinds: tuple[str, ...],
    start: Callable[[Received], Job[T] | JobFact],
    answer: Callable[[T], Response],
    at_once: AtOnce[T] | None = None,
) -> Response:
    """Read a body, run the job that it asks for, and answer.

    Args:
        request: whose body is read.
        kinds: content types that the route understands.
        start: decodes the body and queues the job, or stores it as long work, which is answered
            with 202; runs in a thread.
        answer: makes the answer of the job's result; runs in a thread.
        at_once: what needs no thread; None: everything does.

    Raises:
        DubitoError: of the class that names the reason.
    """
    held = access(request)
    kind = media_type(request, kinds)
    limit_bytes = held.settings.max_body_bytes
    passing = held.application.admission.passage.passing
    async with Deadline(request, held.settings) as deadline_s:
        with held.application.admission.holding() as room:
            body = await read_body(request, limit_bytes, take=room.take)
            room.expect(line_of(request), deadline_s)
            query = request.query_params.multi_items()
            place = room.reservation
            received = Received(held, kind, body, query, place, deadline_s, caller_of(request))
            job = await _started(received, start, at_once)
            if isinstance(job, JobFact):
                return json_response(
                    AcceptedPage(job=job.id), 202, {"Location": f"/v1/jobs/{job.id}"}
                )
            reply = await outcome(job, request)
            if isinstance(reply, _WITH_VERSION):
                note_version(request, reply.version)
        if at_once is not None and at_once.is_short(reply):
            return answer(reply)
        with passing():
            return await to_thread.run_sync(answer, reply)


async def _started(
    received: Received,
    start: Callable[[Received], Job[T] | JobFact],
    at_once: AtOnce[T] | None,
) -> Job[T] | JobFact:
    """The job that a body asks for: begun here where that is short, else in a thread."""
    held, size = received.held, len(received.body)
    if at_once is not None and size <= PIECE_BYTES:
        job = at_once.start(received)
        if job is not None:
            return job
    if received.kind in ROWS or size > LONG_BYTES:
        limiter = held.preparers if received.kind in ROWS else held.decoders
        return await to_thread.run_sync(partial(start, received), limiter=limiter)
    with held.application.admission.passage.passing():
        return await to_thread.run_sync(start, received)
