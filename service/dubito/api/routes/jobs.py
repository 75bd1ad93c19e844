"""`/v1/jobs`: long work, its progress as server-sent events, and its result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.responses import StreamingResponse

from dubito.api.border.access import Access, access
from dubito.api.border.auth import GuardedRoute, caller_of, needs
from dubito.api.border.replies import json_response, unchanged
from dubito.api.openapi import NOT_MODIFIED, UNLESS_MATCH, JobName, event_schema, gives, takes
from dubito.api.pages.fits import MadeFitPage
from dubito.api.pages.work import JobPage, JobsPage, SelectedPage
from dubito.columns import to_json
from dubito.errors import DubitoError
from dubito.keys import KeyScope
from dubito.media import NPZ, PARQUET
from dubito.registry import JobFact

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=GuardedRoute)

EVENTS = "text/event-stream"
_LOOK_S = 0.25
_KEEP_ALIVE_S = 15.0  # after which a comment tells proxies that the stream lives
_ENDINGS = {NPZ: "npz", PARQUET: "parquet"}


@router.get("", summary="All jobs", response_model=JobsPage)
@needs(KeyScope.PREDICT)
def list_jobs(request: Request) -> Response:
    """List the last 1000 jobs, newest first."""
    facts = access(request).application.jobs.all(caller_of(request))
    return json_response(JobsPage(jobs=[JobPage.of_job(fact) for fact in facts]))


@router.get("/{job}", summary="One job", response_model=JobPage)
@needs(KeyScope.PREDICT)
def get_job(request: Request, job: JobName) -> Response:
    """Show the state, progress, rate and remaining time of a job."""
    fact = access(request).application.jobs.get(job, caller_of(request))
    return json_response(JobPage.of_job(fact))


@router.delete("/{job}", summary="Cancel a job", response_model=JobPage)
@needs(KeyScope.PREDICT)
def cancel_job(request: Request, job: JobName) -> Response:
    """Cancel a job that is queued or running."""
    fact = access(request).application.jobs.cancel(job, caller_of(request))
    return json_response(JobPage.of_job(fact))


@router.get(
    "/{job}/events",
    summary="The progress of a job",
    response_class=StreamingResponse,
    responses={200: {"content": {EVENTS: {"itemSchema": event_schema("JobPage")}}}},
)
@needs(KeyScope.PREDICT)
async def job_events(request: Request, job: JobName) -> Response:
    """Stream server-sent events: `progress` whenever the job moves, `end` once it is finished."""
    held = access(request)
    first = await to_thread.run_sync(held.application.jobs.get, job, caller_of(request))
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_events(held, first), media_type=EVENTS, headers=headers)


@router.get(
    "/{job}/result",
    summary="The result of a job",
    response_model=SelectedPage | MadeFitPage,
    responses={200: gives(*_ENDINGS, headers={"ETag": "Digest of the result."}), **NOT_MODIFIED},
    openapi_extra=takes(None, headers=(UNLESS_MATCH,)),
)
@needs(KeyScope.PREDICT)
def job_result(request: Request, job: JobName) -> Response:
    """Fetch the result: `.npz` or `.parquet` of a prediction, JSON of a selection or fit."""
    fact, pieces = access(request).application.jobs.result(job, caller_of(request))
    assert fact.result is not None
    kind, digest = str(fact.result["media_type"]), str(fact.result["digest"])
    headers = {"Content-Length": str(fact.result["size_bytes"]), "ETag": f'"{digest}"'}
    if answer := unchanged(request, headers["ETag"]):
        return answer
    if kind in _ENDINGS:
        headers["Content-Disposition"] = f'attachment; filename="{job}.{_ENDINGS[kind]}"'
    return StreamingResponse(pieces, media_type=kind, headers=headers)


async def _events(held: Access, fact: JobFact) -> AsyncIterator[bytes]:
    told: object = None
    told_s = time.monotonic()
    while True:
        page = JobPage.of_job(fact)
        if page != told or fact.is_finished:
            yield _event("end" if fact.is_finished else "progress", fact, page)
            told, told_s = page, time.monotonic()
        elif time.monotonic() - told_s > _KEEP_ALIVE_S:
            yield b": alive\n\n"
            told_s = time.monotonic()
        if fact.is_finished or held.is_ending.is_set():
            return
        await asyncio.sleep(_LOOK_S)
        try:
            fact = await to_thread.run_sync(held.application.jobs.get, fact.id)
        except DubitoError:  # the database is away, or the job was forgotten: the caller asks anew
            return


def _event(name: str, fact: JobFact, page: JobPage) -> bytes:
    return b"event: %s\nid: %d\ndata: %s\n\n" % (
        name.encode(),
        fact.done,
        to_json(page.model_dump()),
    )
