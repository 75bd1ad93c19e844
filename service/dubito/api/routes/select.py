"""`…/select`: a pool in, the rows to label next out.

Flow: a place in the queue → the body within its limit → decoded in a thread → the application
queues the search → wait → indices and scores.
"""

from __future__ import annotations

from functools import partial
from typing import cast

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import Response

from dubito.api.access import Access, access
from dubito.api.arrays import named, read_npz
from dubito.api.auth import actor
from dubito.api.bodies import JSON, NPZ, body_length, media_type, parse_json, read_body
from dubito.api.context import request_id
from dubito.api.replies import accepted, json_response
from dubito.api.schemas import (
    SelectBody,
    SelectOptions,
    no_query,
    read_fields,
    read_query,
    rows_or_pool,
)
from dubito.api.waiting import deadline, outcome
from dubito.engine import Inputs
from dubito.registry import JobFact
from dubito.serving.selecting import SelectOrder, SelectReply
from dubito.serving.worker import Job, Reservation

router = APIRouter(prefix="/v1/models", tags=["select"])

_NAMES = ("inputs", "targets")
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": SelectBody.model_json_schema()},
            NPZ: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.post("/{model}/select", summary="Choose rows to label", openapi_extra=_BODY)
async def select(request: Request, model: str) -> Response:
    """Choose with the version that the alias `default` names."""
    return await _select(request, model, "default")


@router.post(
    "/{model}/versions/{version}/select",
    summary="Choose rows to label, one version",
    openapi_extra=_BODY,
)
async def select_version(request: Request, model: str, version: str) -> Response:
    """Choose with a version by its number or an alias."""
    return await _select(request, model, version)


async def _select(request: Request, model: str, version: str) -> Response:
    held = access(request)
    kind = media_type(request, (JSON, NPZ))
    async with deadline(request, held.settings.request_timeout_ms) as deadline_s:
        length = body_length(request, held.settings.max_body_bytes)
        with held.application.admitted(length) as place:
            body = await read_body(request, held.settings.max_body_bytes)
            query = request.query_params.multi_items()
            start = partial(
                _start, held, model, version, kind, body, query, place, deadline_s, actor(request)
            )
            job = await to_thread.run_sync(start)
            if isinstance(job, JobFact):
                return accepted(job)
            reply = await outcome(job, request)
    return json_response({"request_id": request_id(request), **reply.head()})


def _start(
    held: Access,
    model: str,
    version: str,
    kind: str,
    body: bytes,
    query: list[tuple[str, str]],
    place: Reservation,
    deadline_s: float,
    who: str,
) -> Job[SelectReply] | JobFact:
    """Decode a body and queue what it asks; a stored pool makes it long work."""
    options: SelectOptions
    pool: str | None = None
    if kind == JSON:
        no_query(query)
        fields = parse_json(body)
        options = read_fields(SelectBody, fields)
        rows_or_pool(fields)
        pool = options.pool
        arrays: dict[str, object] = {name: getattr(options, name) for name in _NAMES}
    else:
        options = read_query(SelectOptions, query)
        arrays = dict(named(read_npz(body, held.settings.max_body_bytes), _NAMES))
    order = SelectOrder(
        model=model,
        version=version,
        inputs=cast(Inputs, arrays["inputs"]),
        targets=cast("Inputs | None", arrays.get("targets")),
        acquisition=options.acquisition(),
        sampling=options.order(),
    )
    if pool is not None:
        return held.application.jobs.select(order, pool, actor=who)
    return held.application.select(order, reservation=place, deadline_s=deadline_s)
