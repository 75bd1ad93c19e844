"""`…/predict`: rows in, columns with their uncertainty out.

Flow: `intake` reads the body → decoded → the application queues it → wait → columns.
"""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import Response

from dubito.answered import PredictReply
from dubito.api.border.auth import GuardedRoute, needs
from dubito.api.border.bodies import parse_json
from dubito.api.border.context import request_id
from dubito.api.border.fields import no_query, read_fields, read_query, rows_or_pool, unnamed
from dubito.api.border.replies import columns_response, wanted_type
from dubito.api.intake import AtOnce, Received, answered
from dubito.api.openapi import (
    ACCEPTED,
    TIMEOUT,
    UNOBSERVED,
    ModelName,
    asked_version,
    both,
    gives,
    takes,
)
from dubito.api.pages.predictions import PredictPage
from dubito.api.tables import read_table
from dubito.arrays import read_npy, read_npz
from dubito.asked import PredictBody, PredictOptions, PredictOrder, order_of
from dubito.columns import num_entries
from dubito.engine import Inputs
from dubito.keys import KeyScope
from dubito.media import JSON, NPY, NPZ, ROWS, TEXT
from dubito.preprocess import TableFile
from dubito.registry import JobFact
from dubito.serving.asking import Queued
from dubito.serving.worker import Job

router = APIRouter(prefix="/v1/models", tags=["predict"], route_class=GuardedRoute)

_KINDS = (JSON, NPY, NPZ, *ROWS, TEXT)
_SHORT_ENTRIES = 10_000  # of an answer, which are written in a millisecond or two


@both(
    router.post,
    "predict",
    summary="Predict with uncertainty",
    response_model=PredictPage,
    responses={200: gives(NPY, NPZ), **ACCEPTED},
    openapi_extra=takes(
        *(PredictBody, NPY, NPZ, *ROWS, TEXT), query=PredictOptions, headers=(TIMEOUT, UNOBSERVED)
    ),
)
@needs(KeyScope.PREDICT)
async def predict(request: Request, model: ModelName) -> Response:
    """Predict rows: of the request at once, of a stored pool by a job.

    Without a version in the path, the alias `default` names it. The reply is
    `.npz` or `.npy` where `Accept` asks for it.
    """

    def answer(reply: PredictReply) -> Response:
        head = {"request_id": request_id(request), **reply.head()}
        return columns_response(head, reply.outputs, wanted_type(request), reply.classes)

    order = partial(_order, request, model, asked_version(request))

    def start(received: Received) -> Job[PredictReply] | JobFact:
        """Queue what a body asks; a pool makes it long work."""
        asked, application = order(received), received.held.application
        if asked.pool is not None:
            return application.jobs.predict(asked, received.caller)
        return application.ask(asked, **_queued(received))

    def at_once(received: Received) -> Job[PredictReply] | None:
        if received.kind != JSON:
            return None
        asked = order(received)
        if asked.pool is not None:
            return None
        return received.held.application.ask.at_once(asked, **_queued(received))

    return await answered(request, _KINDS, start, answer, AtOnce(at_once, _is_short))


def _queued(received: Received) -> Queued:
    return {"reservation": received.reservation, "deadline_s": received.deadline_s}


def _is_short(reply: PredictReply) -> bool:
    return num_entries(reply.outputs) <= _SHORT_ENTRIES


def _order(request: Request, model: str, version: str, received: Received) -> PredictOrder:
    """What a body asks."""
    options: PredictOptions
    rows: dict[str, Inputs | TableFile] = {}
    if received.kind == JSON:
        no_query(received.query)
        fields = parse_json(received.body, received.held.settings.max_rows)
        options = read_fields(PredictBody, fields)
        rows_or_pool(fields)
    else:
        options = read_query(PredictOptions, received.query)
        rows["inputs"] = _read_rows(received)
    # known only now: a digest of the body, where the caller names none
    is_observed = received.held.settings.monitoring and UNOBSERVED["name"] not in request.headers
    named = request_id(request) if is_observed else None
    beside = {"model": model, "version": version, "request_id": named}
    return order_of(PredictOrder, options, **rows, **beside)


def _read_rows(received: Received) -> Inputs | TableFile:
    if received.kind == NPY:
        return read_npy(received.body)
    if received.kind == NPZ:
        return unnamed(read_npz(received.body, received.held.settings.max_body_bytes))
    return read_table(received)
