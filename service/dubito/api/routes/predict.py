"""`…/predict`: rows in, columns with their uncertainty out.

Flow: a place in the queue → the body within its limit → decoded in a thread → the application
queues it → wait → columns.
"""

from __future__ import annotations

from functools import partial

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import Response

from dubito.api.access import Access, access
from dubito.api.arrays import read_npy, read_npz
from dubito.api.auth import actor
from dubito.api.bodies import JSON, NPY, NPZ, body_length, media_type, parse_json, read_body
from dubito.api.context import request_id
from dubito.api.replies import accepted, columns_response, wanted_type
from dubito.api.schemas import (
    PredictBody,
    PredictOptions,
    no_query,
    read_fields,
    read_query,
    rows_or_pool,
)
from dubito.api.waiting import deadline, outcome
from dubito.engine import Inputs
from dubito.errors import UnsupportedMediaTypeError
from dubito.registry import JobFact
from dubito.serving.orders import PredictOrder, PredictReply
from dubito.serving.worker import Job, Reservation

router = APIRouter(prefix="/v1/models", tags=["predict"])

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": PredictBody.model_json_schema()},
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
    held = access(request)
    kind = media_type(request, (JSON, NPY, NPZ))
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
        answer = partial(
            columns_response, _head(reply, request), reply.outputs, wanted_type(request)
        )
        return await to_thread.run_sync(answer)


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
) -> Job[PredictReply] | JobFact:
    """Decode a body and queue what it asks; a pool makes it long work."""
    options: PredictOptions
    inputs: Inputs
    pool: str | None = None
    if kind == JSON:
        no_query(query)
        fields = parse_json(body)
        options = read_fields(PredictBody, fields)
        rows_or_pool(fields)
        pool, inputs = options.pool, options.inputs  # type: ignore[assignment]  # checked later
    else:
        options = read_query(PredictOptions, query)
        inputs = _read_arrays(kind, body, held.settings.max_body_bytes)
    order = PredictOrder(
        model=model,
        version=version,
        inputs=inputs,
        sampling=options.order(),
        coverage=options.coverage,
        calibration=options.calibration,
        outputs=options.outputs,
    )
    if pool is not None:
        format = options.format if isinstance(options, PredictBody) else None
        return held.application.jobs.predict(order, pool, format=format or "npz", actor=who)
    return held.application.predict(order, reservation=place, deadline_s=deadline_s)


def _read_arrays(kind: str, body: bytes, limit_bytes: int) -> Inputs:
    if kind == NPY:
        return read_npy(body)
    if kind == NPZ:
        arrays = read_npz(body, limit_bytes)
        return arrays["inputs"] if list(arrays) == ["inputs"] else arrays
    raise UnsupportedMediaTypeError(kind)


def _head(reply: PredictReply, request: Request) -> dict[str, object]:
    sampling = reply.sampling
    return {
        "request_id": request_id(request),
        "model": reply.model,
        "version": reply.version,
        **({} if reply.members is None else {"members": list(reply.members)}),
        "num_samples": sampling.num_samples,
        "seed": sampling.seed,
        "masks": sampling.masks,
        "draw": sampling.draw,
        "method": sampling.method,
        "tolerance": sampling.tolerance,
        "calibration": reply.calibration,
        "warnings": reply.warnings,
    }
