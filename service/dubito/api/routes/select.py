"""`…/select`: a pool in, the rows to label next out.

Flow: `intake` reads the body → decoded in a thread → the application queues the search → wait →
indices and scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import TypeAdapter

from dubito.answered import SelectReply
from dubito.api.arrays import named, read_npz
from dubito.api.bodies import JSON, NPZ, parse_json
from dubito.api.context import request_id
from dubito.api.fields import no_query, read_fields, read_query, rows_or_pool
from dubito.api.intake import Given, answered
from dubito.api.replies import json_response
from dubito.asked import SelectBody, SelectOptions, SelectOrder, order_of
from dubito.registry import JobFact
from dubito.serving.worker import Job

router = APIRouter(prefix="/v1/models", tags=["select"])

_NAMES = ("inputs", "targets")
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": TypeAdapter(SelectBody).json_schema()},
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
    def answer(reply: SelectReply) -> Response:
        return json_response({"request_id": request_id(request), **reply.head()})

    return await answered(request, (JSON, NPZ), partial(_start, model, version), answer)


def _start(model: str, version: str, given: Given) -> Job[SelectReply] | JobFact:
    """Decode a body and queue what it asks; a stored pool makes it long work."""
    options: SelectOptions
    rows: Mapping[str, object] = {}
    if given.kind == JSON:
        no_query(given.query)
        fields = parse_json(given.body)
        options = read_fields(SelectBody, fields)
        rows_or_pool(fields)
    else:
        options = read_query(SelectOptions, given.query)
        rows = named(read_npz(given.body, given.held.settings.max_body_bytes), _NAMES)
    order = order_of(SelectOrder, options, **rows, model=model, version=version)
    application = given.held.application
    if order.pool is not None:
        return application.jobs.select(order, actor=given.actor)
    return application.ask(order, reservation=given.place, deadline_s=given.deadline_s)
