"""`…/select`: a pool in, the rows to label next out.

Flow: `intake` reads the body → decoded in a thread → the application queues the search → wait →
indices and scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import Response

from dubito.answered import SelectReply
from dubito.api.border.auth import GuardedRoute, needs
from dubito.api.border.bodies import parse_json
from dubito.api.border.context import request_id
from dubito.api.border.fields import named, no_query, read_fields, read_query, rows_or_pool
from dubito.api.border.replies import json_response
from dubito.api.intake import Received, answered
from dubito.api.openapi import ACCEPTED, TIMEOUT, ModelName, asked_version, both, takes
from dubito.api.pages.work import SelectPage
from dubito.api.tables import read_table
from dubito.arrays import read_npz
from dubito.asked import SelectBody, SelectOptions, SelectOrder, order_of
from dubito.keys import KeyScope
from dubito.media import JSON, NPZ, ROWS
from dubito.registry import JobFact
from dubito.serving.worker import Job

router = APIRouter(prefix="/v1/models", tags=["select"], route_class=GuardedRoute)

_NAMES = ("inputs", "targets")


@both(
    router.post,
    "select",
    summary="Choose rows to label",
    response_model=SelectPage,
    responses=ACCEPTED,
    openapi_extra=takes(SelectBody, NPZ, *ROWS, query=SelectOptions, headers=(TIMEOUT,)),
)
@needs(KeyScope.SELECT)
async def select(request: Request, model: ModelName) -> Response:
    """Choose rows of a pool: of one in the request at once, of a stored one by a job.

    Without a version in the path, the alias `default` names it.
    """

    def answer(reply: SelectReply) -> Response:
        return json_response({"request_id": request_id(request), **reply.head()})

    start = partial(_start, model, asked_version(request))
    return await answered(request, (JSON, NPZ, *ROWS), start, answer)


def _start(model: str, version: str, received: Received) -> Job[SelectReply] | JobFact:
    """Decode a body and queue what it asks; a stored pool makes it long work."""
    options: SelectOptions
    rows: Mapping[str, object] = {}
    if received.kind == JSON:
        no_query(received.query)
        fields = parse_json(received.body, received.held.settings.max_rows)
        options = read_fields(SelectBody, fields)
        rows_or_pool(fields)
    else:
        options = read_query(SelectOptions, received.query)
        is_table = received.kind in ROWS
        rows = {"inputs": read_table(received)} if is_table else _arrays(received)
    order = order_of(SelectOrder, options, **rows, model=model, version=version)
    application = received.held.application
    if order.pool is not None:
        return application.jobs.select(order, received.caller)
    return application.ask(order, reservation=received.reservation, deadline_s=received.deadline_s)


def _arrays(received: Received) -> Mapping[str, object]:
    return named(read_npz(received.body, received.held.settings.max_body_bytes), _NAMES)
