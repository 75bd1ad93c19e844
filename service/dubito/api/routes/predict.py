"""`…/predict`: rows in, columns with their uncertainty out.

Flow: `intake` reads the body → decoded in a thread → the application queues it → wait → columns.
"""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import TypeAdapter

from dubito.answered import PredictReply, sampling_fields
from dubito.api.arrays import read_npy, read_npz
from dubito.api.bodies import JSON, NPY, NPZ, parse_json
from dubito.api.context import request_id
from dubito.api.fields import no_query, read_fields, read_query, rows_or_pool
from dubito.api.intake import Given, answered
from dubito.api.replies import columns_response, wanted_type
from dubito.asked import PredictBody, PredictOptions, PredictOrder, order_of
from dubito.engine import Inputs
from dubito.errors import UnsupportedMediaTypeError
from dubito.registry import JobFact
from dubito.serving.worker import Job

router = APIRouter(prefix="/v1/models", tags=["predict"])

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": TypeAdapter(PredictBody).json_schema()},
            NPY: _BINARY,
            NPZ: _BINARY,
        },
    }
}


@router.post("/{model}/predict", summary="Predict with uncertainty", openapi_extra=_BODY)
async def predict(request: Request, model: str) -> Response:
    """Predict with the version that the alias `default` names."""
    return await _predict(request, model, "default")


@router.post(
    "/{model}/versions/{version}/predict",
    summary="Predict with uncertainty, one version",
    openapi_extra=_BODY,
)
async def predict_version(request: Request, model: str, version: str) -> Response:
    """Predict with a version by its number or an alias."""
    return await _predict(request, model, version)


async def _predict(request: Request, model: str, version: str) -> Response:
    def answer(reply: PredictReply) -> Response:
        head, wanted = _head(reply, request), wanted_type(request)
        return columns_response(head, reply.outputs, wanted, reply.classes)

    start = partial(_start, request, model, version)
    return await answered(request, (JSON, NPY, NPZ), start, answer)


def _start(request: Request, model: str, version: str, given: Given) -> Job[PredictReply] | JobFact:
    """Decode a body and queue what it asks; a pool makes it long work."""
    options: PredictOptions
    rows: dict[str, Inputs] = {}
    if given.kind == JSON:
        no_query(given.query)
        fields = parse_json(given.body)
        options = read_fields(PredictBody, fields)
        rows_or_pool(fields)
    else:
        options = read_query(PredictOptions, given.query)
        limit_bytes = given.held.settings.max_body_bytes
        rows["inputs"] = _read_arrays(given.kind, given.body, limit_bytes)
    # known only now: a digest of the body, where the caller names none
    named = request_id(request) if given.held.settings.monitoring else None
    beside = {"model": model, "version": version, "request_id": named}
    order = order_of(PredictOrder, options, **rows, **beside)
    application = given.held.application
    if order.pool is not None:
        return application.jobs.predict(order, actor=given.actor)
    return application.ask(order, reservation=given.place, deadline_s=given.deadline_s)


def _read_arrays(kind: str, body: bytes, limit_bytes: int) -> Inputs:
    if kind == NPY:
        return read_npy(body)
    if kind == NPZ:
        arrays = read_npz(body, limit_bytes)
        return arrays["inputs"] if list(arrays) == ["inputs"] else arrays
    raise UnsupportedMediaTypeError(kind)


def _head(reply: PredictReply, request: Request) -> dict[str, object]:
    return {
        "request_id": request_id(request),
        "model": reply.model,
        "version": reply.version,
        **sampling_fields(reply.sampling, reply.members),
        "calibration": reply.calibration,
        "warnings": reply.warnings,
    }
