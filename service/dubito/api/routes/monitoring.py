"""`…/feedback` and `…/monitoring`: true outcomes in, how things stand out."""

from __future__ import annotations

from functools import partial

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import Response

from dubito.api.access import Access, access
from dubito.api.bodies import JSON, body_length, media_type, parse_json, read_body
from dubito.api.context import request_id
from dubito.api.fields import no_query, read_fields
from dubito.api.pages import feedback_page, monitoring_page
from dubito.api.replies import json_response
from dubito.api.schemas import FeedbackBody
from dubito.api.waiting import deadline
from dubito.monitoring.monitor import FeedbackOrder, Truth
from dubito.registry.monitoring import Added

router = APIRouter(prefix="/v1/models", tags=["monitoring"])

_FEEDBACK_BODY = {
    "requestBody": {
        "required": True,
        "content": {JSON: {"schema": FeedbackBody.model_json_schema()}},
    }
}


@router.post("/{model}/feedback", summary="Send true outcomes", openapi_extra=_FEEDBACK_BODY)
async def feedback(request: Request, model: str) -> Response:
    """Store the true outcomes of an earlier prediction, whichever version made it."""
    return await _feedback(request, model, "default")


@router.post(
    "/{model}/versions/{version}/feedback",
    summary="Send true outcomes, one version",
    openapi_extra=_FEEDBACK_BODY,
)
async def feedback_version(request: Request, model: str, version: str) -> Response:
    """Store the true outcomes of an earlier prediction of one version."""
    return await _feedback(request, model, version)


@router.get("/{model}/monitoring", summary="Is it still calibrated?")
def get_monitoring(request: Request, model: str) -> Response:
    """Show coverage, ECE and flag rate of the last outcomes, the drift test, and alarms."""
    return _monitoring(access(request), model, "default")


@router.get("/{model}/versions/{version}/monitoring", summary="Is it still calibrated? One version")
def get_version_monitoring(request: Request, model: str, version: str) -> Response:
    """Show the same for a version by its number or an alias."""
    return _monitoring(access(request), model, version)


async def _feedback(request: Request, model: str, version: str) -> Response:
    held = access(request)
    media_type(request, (JSON,))
    async with deadline(request, held.settings.request_timeout_ms):
        length = body_length(request, held.settings.max_body_bytes)
        with held.application.admission.holding(length):
            body = await read_body(request, held.settings.max_body_bytes)
            no_query(request.query_params.multi_items())
            added = await to_thread.run_sync(partial(_store, held, model, version, body))
    return json_response({"request_id": request_id(request), **feedback_page(model, added)})


def _store(held: Access, model: str, version: str, body: bytes) -> tuple[Added, ...]:
    given = read_fields(FeedbackBody, parse_json(body))
    truths = tuple(Truth(one.row, one.label, one.target) for one in given.rows)
    order = FeedbackOrder(model, given.request_id, truths, version, given.labels_are)
    return held.application.monitoring.feedback(order)


def _monitoring(held: Access, model: str, version: str) -> Response:
    return json_response(monitoring_page(held.application.monitoring.page(model, version)))
