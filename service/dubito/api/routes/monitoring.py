"""`…/feedback` and `…/monitoring`: true outcomes in, how things stand out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import Response

from dubito.api.border.access import Access, access
from dubito.api.border.auth import GuardedRoute, needs
from dubito.api.border.bodies import LONG_BYTES, media_type, parse_json, read_body
from dubito.api.border.context import request_id
from dubito.api.border.fields import no_query, read_fields, read_query
from dubito.api.border.replies import json_response
from dubito.api.border.waiting import Deadline
from dubito.api.openapi import TIMEOUT, ModelName, asked_version, both, takes
from dubito.api.pages.monitoring import FeedbackPage, MonitoringDetailsPage
from dubito.api.schemas import FeedbackBody, FeedbackQuery
from dubito.api.tables import table_of
from dubito.keys import KeyScope
from dubito.media import ARCHIVES, JSON, TABLES
from dubito.monitoring.monitor import FeedbackOrder, Truth
from dubito.preprocess import read_columns
from dubito.registry.monitoring import Added

router = APIRouter(prefix="/v1/models", tags=["monitoring"], route_class=GuardedRoute)

_KINDS = (*TABLES, *ARCHIVES)


@both(
    router.post,
    "feedback",
    summary="Send true outcomes",
    response_model=FeedbackPage,
    openapi_extra=takes(FeedbackBody, *_KINDS, query=FeedbackQuery, headers=(TIMEOUT,)),
)
@needs(KeyScope.PREDICT)
async def feedback(request: Request, model: ModelName) -> Response:
    """Store the true outcomes of an earlier prediction.

    With a version in the path it is refused where another one predicted.
    """
    held = access(request)
    kind = media_type(request, (JSON, *_KINDS))
    async with Deadline(request, held.settings):
        with held.application.admission.holding() as room:
            body = await read_body(request, held.settings.max_body_bytes, take=room.take)
            query = request.query_params.multi_items()
            read = _read_json if kind == JSON else partial(_read_table, held, kind)
            store = partial(_store, held, partial(read, model, asked_version(request), body, query))
            limiter = held.decoders if len(body) > LONG_BYTES else None
            limiter = held.preparers if kind in _KINDS else limiter
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


def _store(held: Access, read: Callable[[], FeedbackOrder]) -> tuple[Added, ...]:
    return held.application.monitoring.feedback(read())


def _read_json(
    model: str, version: str, body: bytes, query: list[tuple[str, str]]
) -> FeedbackOrder:
    no_query(query)
    sent = read_fields(FeedbackBody, parse_json(body))
    truths = tuple(Truth(outcome.row, outcome.label, outcome.target) for outcome in sent.rows)
    return FeedbackOrder(model, sent.request_id, truths, version, sent.labels_are)


def _read_table(
    held: Access, kind: str, model: str, version: str, body: bytes, query: list[tuple[str, str]]
) -> FeedbackOrder:
    """The outcomes in columns of a table, whose rows are those that were predicted."""
    asked = read_query(FeedbackQuery, query)
    rows = table_of(held, kind, body)
    columns = read_columns(rows, asked.label, held.settings.max_rows)
    cells = list(zip(*columns.values(), strict=True))
    known = [(row, cell) for row, cell in enumerate(cells) if None not in cell]
    manifest = held.application.library.version(model, version).manifest
    truths = read_fields(
        FeedbackBody,
        {
            "request_id": asked.request_id,
            "rows": [{"row": row, **_truth(cell, manifest["task"])} for row, cell in known],
        },
    )
    return FeedbackOrder(
        model,
        asked.request_id,
        tuple(Truth(one.row, one.label, one.target) for one in truths.rows),
        version,
        asked.labels_are,
    )


def _truth(cell: tuple[object, ...], task: object) -> dict[str, object]:
    name = "target" if task == "regression" else "label"
    return {name: cell[0] if len(cell) == 1 else list(cell)}
