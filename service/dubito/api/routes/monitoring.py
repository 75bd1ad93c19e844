"""`…/feedback` and `…/monitoring`: true outcomes in, how things stand out."""

from __future__ import annotations

from functools import partial

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import Response

from dubito.api.border.access import Access, access
from dubito.api.border.auth import GuardedRoute, needs
from dubito.api.border.bodies import LONG_BYTES, media_type, parse_json, read_body
from dubito.api.border.context import request_id
from dubito.api.border.fields import no_query, read_fields
from dubito.api.border.replies import json_response
from dubito.api.border.waiting import deadline
from dubito.api.openapi import TIMEOUT, ModelName, asked_version, both, takes
from dubito.api.pages.monitoring import FeedbackPage, MonitoringDetailsPage
from dubito.api.schemas import FeedbackBody
from dubito.keys import KeyScope
from dubito.media import JSON
from dubito.monitoring.monitor import FeedbackOrder, Truth
from dubito.registry.monitoring import Added

router = APIRouter(prefix="/v1/models", tags=["monitoring"], route_class=GuardedRoute)


@both(
    router.post,
    "feedback",
    summary="Send true outcomes",
    response_model=FeedbackPage,
    openapi_extra=takes(FeedbackBody, headers=(TIMEOUT,)),
)
@needs(KeyScope.PREDICT)
async def feedback(request: Request, model: ModelName) -> Response:
    """Store the true outcomes of an earlier prediction.

    With a version in the path it is refused where another one predicted.
    """
    held = access(request)
    media_type(request, (JSON,))
    async with deadline(request, held.settings):
        with held.application.admission.holding() as room:
            body = await read_body(request, held.settings.max_body_bytes, take=room.take)
            no_query(request.query_params.multi_items())
            store = partial(_store, held, model, asked_version(request), body)
            limiter = held.decoders if len(body) > LONG_BYTES else None
            added = await to_thread.run_sync(store, limiter=limiter)
    return json_response(FeedbackPage.of_added(request_id(request), model, added))


@both(
    router.get,
    "monitoring",
    summary="Is it still calibrated?",
    response_model=MonitoringDetailsPage,
)
@needs(KeyScope.PREDICT)
def get_monitoring(request: Request, model: ModelName) -> Response:
    """Show coverage, ECE and flag rate of the last outcomes, the drift test, and alarms."""
    page = access(request).application.monitoring.page(model, asked_version(request))
    return json_response(MonitoringDetailsPage.of_state(page))


def _store(held: Access, model: str, version: str, body: bytes) -> tuple[Added, ...]:
    sent = read_fields(FeedbackBody, parse_json(body))
    truths = tuple(Truth(outcome.row, outcome.label, outcome.target) for outcome in sent.rows)
    order = FeedbackOrder(model, sent.request_id, truths, version, sent.labels_are)
    return held.application.monitoring.feedback(order)
