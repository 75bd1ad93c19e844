"""`…/predict`: rows in, columns with their uncertainty out.

Flow: `intake` reads the body → decoded → the application queues it → wait → columns.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import partial
from typing import cast

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response

from dubito.answered import PredictReply
from dubito.api.border.auth import GuardedRoute, needs
from dubito.api.border.bodies import parse_json
from dubito.api.border.context import request_id
from dubito.api.border.fields import (
    no_query,
    read_order,
    read_query,
    rows_or_pool,
    unnamed,
)
from dubito.api.border.headers import header
from dubito.api.border.replies import columns_response, wanted_type
from dubito.api.intake import AtOnce, Received, answered, is_short
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
from dubito.engine import Inputs
from dubito.keys import KeyScope
from dubito.media import JSON, NPY, NPZ, ROWS, TEXT
from dubito.preprocess import TableFile
from dubito.registry import JobFact
from dubito.serving.asking import Queued
from dubito.serving.worker import Job

router = APIRouter(prefix="/v1/models", tags=["predict"], route_class=GuardedRoute)

_KINDS = (JSON, NPY, NPZ, *ROWS, TEXT)
_UNOBSERVED = str(UNOBSERVED["name"]).lower().encode()
_SHORT_FIELDS_BYTES = 1024  # of a request beside its rows


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

    version = asked_version(request)
    order = partial(_order, model, version)

    def start(received: Received) -> Job[PredictReply] | JobFact:
        """Queue what a body asks; a pool makes it long work."""
        named = _observed_as(request, received)
        asked, application = order(received, _fields(received), named), received.held.application
        if asked.pool is not None:
            return application.jobs.predict(asked, received.caller)
        return application.ask(asked, **_queued(received))

    def at_once(received: Received) -> Job[PredictReply] | None:
        """Queue what a short body asks, in the way of one that was like it where there was one."""
        if received.kind not in (JSON, NPY):
            return None
        ask, queued = received.held.application.ask, _queued(received)
        fields, named = _fields(received), _observed_as(request, received)
        key = _likeness(received, fields, named)
        if key is not None:
            rows = cast(Inputs, fields["inputs"])
            job = ask.again(model, version, key, rows, named, **queued)
            if job is not None:
                return job
        asked = order(received, fields, named)
        return None if asked.pool is not None else ask.at_once(asked, key, **queued)

    return await answered(request, _KINDS, start, answer, AtOnce(at_once, is_short))


def _queued(received: Received) -> Queued:
    return {"reservation": received.reservation, "deadline_s": received.deadline_s}


def _observed_as(request: Request, received: Received) -> str | None:
    """The id under which monitoring keeps what is answered; None: it does not.

    It is known only now: a digest of the body, where the caller names none.
    """
    is_observed = received.held.settings.monitoring and header(request.scope, _UNOBSERVED) is None
    return request_id(request) if is_observed else None


def _fields(received: Received) -> Mapping[str, object]:
    """What a body says: all fields of JSON, else the rows alone."""
    if received.kind != JSON:
        return {"inputs": _read_rows(received)}
    no_query(received.query)
    return parse_json(received.body, received.held.settings.max_rows)


def _likeness(
    received: Received, fields: Mapping[str, object], named: str | None
) -> Hashable | None:
    """What requests have in common that differ in their rows alone; None where it is long."""
    if "inputs" not in fields:
        return None
    said: object = received.query
    if received.kind == JSON:
        said = {name: value for name, value in fields.items() if name != "inputs"}
    written = orjson.dumps(said) if said else b""
    is_short = len(written) <= _SHORT_FIELDS_BYTES
    return (written, received.kind, named is None) if is_short else None


def _order(
    model: str, version: str, received: Received, fields: Mapping[str, object], named: str | None
) -> PredictOrder:
    """What a body asks."""
    beside = {"model": model, "version": version, "request_id": named}
    if received.kind != JSON:
        options = read_query(PredictOptions, received.query)
        return order_of(PredictOrder, options, **fields, **beside)
    order = read_order(PredictOrder, PredictBody, fields, **beside)
    rows_or_pool(fields)
    return order


def _read_rows(received: Received) -> Inputs | TableFile:
    if received.kind == NPY:
        return read_npy(received.body)
    if received.kind == NPZ:
        return unnamed(read_npz(received.body, received.held.settings.max_body_bytes))
    return read_table(received)
